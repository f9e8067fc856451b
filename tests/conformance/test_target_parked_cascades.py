"""Every target: changes that wait, where foreign keys act at the source unseen by its log."""

from __future__ import annotations

from typing import Any

from tests.conformance.targets import (
    INT,
    Change,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    held,
    place,
    table,
    u,
)

__all__ = ["place"]

USERS = table("users", column("name"))
MEMBERS = table(
    "members",
    column("user_id", INT, nullable=False),
    column("role"),
    uniques=(("user_id",),),
    foreign_keys=(foreign_key("user_id", "users", "CASCADE"),),
)
TEAMS = table(
    "teams", column("lead_id", INT), foreign_keys=(foreign_key("lead_id", "members", "SET NULL"),)
)


def user(number: int, name: str = "n") -> Change:
    return c(USERS, id=number, sync_id=f"u{number}", name=name)


def member(number: int, user_id: int, role: str = "r", make: Any = c) -> Change:
    made: Change = make(MEMBERS, id=number, sync_id=f"m{number}", user_id=user_id, role=role)
    return made


def team(number: int, lead_id: int | None) -> Change:
    return c(TEAMS, id=number, sync_id=f"t{number}", lead_id=lead_id)


def leads(place: Place) -> list[tuple[Any, ...]]:
    """Each team, the sync_id of its lead and of that one's user."""
    return place.query(
        "select t.sync_id, m.sync_id, u.sync_id from teams t left join members m on m.id = "
        "t.lead_id left join users u on u.id = m.user_id order by t.sync_id"
    )


def test_a_value_is_free_for_the_batch_in_which_its_holder_goes(place: Place) -> None:
    """The holder is referenced by a row that the source emptied unseen, so it goes last."""
    stream, target = Stream(), place.target(parked_limit=10)
    target.prepare([USERS, MEMBERS, TEAMS])
    deliver(target, stream.batch(user(1), user(2), member(1, 1), member(2, 2), team(1, 1)))
    gone = d(MEMBERS, id=1, sync_id="m1", user_id=1, role="r")
    deliver(target, stream.batch(gone, member(2, 1, make=u), member(3, 2)))
    assert target.parked() == []
    found = {row["sync_id"]: row["user_id"] for row in held(target, MEMBERS)}
    assert found == {"m2": '{"sync_id":"u1"}', "m3": '{"sync_id":"u2"}'}
    assert leads(place) == [("t1", None, None)]


def test_a_delete_waits_for_the_parked_change_that_moves_a_child_away(place: Place) -> None:
    """H20: the child lives at the source, and what references it does."""
    stream, target = Stream(), place.target(parked_limit=10)
    target.prepare([USERS, MEMBERS, TEAMS])
    place.check("members", "role", "<> 'bad'")
    deliver(target, stream.batch(user(1), user(2), member(1, 1), team(1, 1)))
    deliver(target, stream.batch(member(1, 2, "bad", make=u)))
    deliver(target, stream.batch(d(USERS, id=1, sync_id="u1", name="n")))
    assert [(c.op, c.reason) for c in target.parked()] == [("u", "value"), ("d", "referenced")]
    assert leads(place) == [("t1", "m1", "u1")]
    place.uncheck("members")
    target.retry()
    assert target.parked() == []
    assert leads(place) == [("t1", "m1", "u2")]
    assert [row["sync_id"] for row in held(target, USERS)] == ["u2"]


def test_what_waits_goes_with_its_parent_and_refers_to_nothing_that_went(place: Place) -> None:
    """H20: of parked changes too, for whatever reason they wait."""
    stream, target = Stream(), place.target(parked_limit=10)
    target.prepare([USERS, MEMBERS, TEAMS])
    place.check("members", "role", "<> 'bad'")
    deliver(target, stream.batch(user(1), member(1, 1, "bad"), team(1, 1)))
    assert [c.reason for c in target.parked()] == ["value", "parent"]
    deliver(target, stream.batch(d(USERS, id=1, sync_id="u1", name="n")))
    assert target.parked() == []
    assert held(target, MEMBERS) == []
    assert leads(place) == [("t1", None, None)]


def test_rows_of_two_batches_are_released_together(place: Place) -> None:
    """Neither is lost: both wait for a parent that is written after them."""
    stream, target = Stream(), place.target(parked_limit=10)
    target.prepare([USERS, MEMBERS, TEAMS])
    place.check("members", "role", "<> 'bad'")
    deliver(target, stream.batch(user(1), member(1, 1, "bad")))
    deliver(target, stream.batch(team(1, 1)))
    deliver(target, stream.batch(team(2, 1)))
    deliver(target, stream.batch(member(1, 1, "good", make=u)))
    target.retry()
    assert target.parked() == []
    assert leads(place) == [("t1", "m1", "u1"), ("t2", "m1", "u1")]


def test_a_row_that_a_later_change_sent_elsewhere_waits_for_its_parent_no_more(
    place: Place,
) -> None:
    stream, target = Stream(), place.target(parked_limit=10)
    target.prepare([USERS, MEMBERS, TEAMS])
    deliver(target, stream.batch(team(1, 7)))
    assert [c.reason for c in target.parked()] == ["parent"]
    deliver(target, stream.batch(u(TEAMS, id=1, sync_id="t1", lead_id=None)))
    assert target.parked() == []
    assert leads(place) == [("t1", None, None)]
