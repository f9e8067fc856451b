"""Every target: rows that were changed there too, and what each policy makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from apply.recorded import outcome
from apply.target import Target
from schemas.conflict import ConflictRules, Image, decide
from schemas.errors import SchemaConflict
from schemas.kinds import Kind
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
    r,
    table,
    u,
)

__all__ = ["place"]

MOMENT = Kind(name="timestamp", fraction=6)
USERS = table(
    "users",
    column("name"),
    column("mail"),
    column("stock", INT),
    column("changed_at", MOMENT),
)
ORDERS = table(
    "orders",
    column("user_id", INT),
    column("note"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
BASE = {
    "id": 1,
    "sync_id": "a",
    "name": "n",
    "mail": "m",
    "stock": 10,
    "changed_at": "2024-01-01T00:00:00Z",
}


def changed(**after: Any) -> Change:
    return u(USERS, BASE, **BASE | after)


def started(place: Place, **rules: Any) -> tuple[Stream, Target]:
    """One row on both sides."""
    target = place.target(conflicts={"app.u*": ConflictRules(**rules)}, parked_limit=10)
    target.prepare([USERS, ORDERS])
    stream = Stream()
    deliver(target, stream.batch(c(USERS, **BASE)))
    return stream, target


def edited(place: Place, **values: Any) -> None:
    """The target's own application writes."""
    for name, value in values.items():
        text = f"'{value}'" if isinstance(value, str) else str(value)
        place.execute(f"update users set {name} = {text} where sync_id = 'a'")


def row(target: Target) -> dict[str, Any]:
    (found,) = held(target, USERS)
    return {n: found[n] for n in ("name", "mail", "stock")}


def recorded(target: Target) -> list[tuple[str, str]]:
    return [(one.rule, one.outcome) for one in target.conflicts()]


@pytest.mark.parametrize(
    ("policy", "expected", "ends"),
    [
        ("source_wins", {"name": "s", "mail": "m", "stock": 10}, "source"),
        ("target_wins", {"name": "n", "mail": "t", "stock": 10}, "target"),
        ("merge_columns", {"name": "s", "mail": "t", "stock": 10}, "merged"),
    ],
)
def test_disjoint_columns_were_changed(
    place: Place, policy: str, expected: dict[str, Any], ends: str
) -> None:
    """T33: with a row policy the other side's change is lost, and recorded; merged both survive."""
    stream, target = started(place, policy=policy)
    edited(place, mail="t")
    deliver(target, stream.batch(changed(name="s")))
    assert row(target) == expected
    assert recorded(target) == [(policy, ends)]
    (one,) = target.conflicts()
    assert one.conflict.mine is not None
    assert (one.conflict.mine["mail"], list(one.conflict.changed)) == ("t", ["mail"])
    assert (one.batch, one.ordinal, one.position) == (2, 0, "p2")


def test_a_change_of_the_same_column_by_each_policy_of_columns(place: Place) -> None:
    rules = {"columns": {"stock": "additive", "mail": "target_wins", "name": "max"}}
    stream, target = started(place, **rules)
    edited(place, stock=7, mail="t", name="z")
    deliver(target, stream.batch(changed(stock=15, mail="s", name="y")))
    assert row(target) == {"name": "z", "mail": "t", "stock": 12}
    again = {"stock": 16, "mail": "s", "name": "zz"}
    before = BASE | {"stock": 15, "mail": "s", "name": "y"}
    deliver(target, stream.batch(u(USERS, before, **before | again)))
    assert row(target) == {"name": "zz", "mail": "t", "stock": 13}


@pytest.mark.parametrize(
    ("here", "there", "name"),
    [
        ("2024-01-02T00:00:00Z", "2024-01-03T00:00:00.5Z", "s"),
        ("2024-01-03T00:00:00Z", "2024-01-02T00:00:00Z", "t"),
    ],
)
def test_the_newest_wins(place: Place, here: str, there: str, name: str) -> None:
    stream, target = started(place, policy="newest_wins", by="changed_at")
    text = here.replace("T", " ").replace("Z", "") if place.is_mysql else here
    edited(place, name="t", changed_at=text)
    deliver(target, stream.batch(changed(name="s", changed_at=there)))
    assert row(target)["name"] == name


def test_a_tie_is_the_same_on_both_sides() -> None:
    """T35: whichever side calls itself the source, one row wins."""
    rules = ConflictRules(policy="newest_wins", by="changed_at")
    kinds = {c.name: c.kind for c in USERS.columns}
    one, other = BASE | {"name": "x"}, BASE | {"name": "y"}
    there = decide(conflict(BASE, one, other), rules, kinds)
    here = decide(conflict(BASE, other, one), rules, kinds)
    assert (there.write is None) != (here.write is None)
    assert (there.write or other)["name"] == (here.write or one)["name"]


def conflict(before: Image, after: Image, mine: Image) -> Any:
    from schemas.conflict import Conflict

    return Conflict(before, after, mine, ["name"], [])


def test_what_is_not_a_conflict(place: Place) -> None:
    """Its own after-image there already, a copied row, several changes in one batch, a row that
    nobody touched, and columns that the target does not take.
    """
    stream, target = started(place, policy="park")
    place.execute("alter table users add column own int")
    edited(place, name="s")
    deliver(target, stream.batch(changed(name="s")))
    one, two = BASE | {"name": "s"}, BASE | {"name": "s", "stock": 11}
    deliver(target, stream.batch(u(USERS, one, **two), u(USERS, two, **two | {"stock": 12})))
    edited(place, mail="t", own=1)
    deliver(target, stream.batch(r(USERS, **BASE)))
    assert row(target) == {"name": "n", "mail": "m", "stock": 10}
    deliver(target, stream.batch(c(USERS, **BASE | {"sync_id": "b", "id": 2})))
    deliver(target, stream.batch(d(USERS, **BASE | {"sync_id": "b", "id": 2})))
    assert target.conflicts() == []
    assert target.parked() == []


@pytest.mark.parametrize(("policy", "is_there"), [("source_wins", True), ("target_wins", False)])
def test_a_row_that_is_gone_here(place: Place, policy: str, is_there: bool) -> None:
    """T36: update against delete."""
    stream, target = started(place, policy=policy)
    place.execute("delete from users")
    deliver(target, stream.batch(changed(name="s")))
    assert [found["name"] for found in held(target, USERS)] == (["s"] if is_there else [])
    assert recorded(target) == [(policy, "source" if is_there else "target")]


@pytest.mark.parametrize(("policy", "is_there"), [("source_wins", False), ("target_wins", True)])
def test_a_row_that_was_changed_here_and_is_gone_there(
    place: Place, policy: str, is_there: bool
) -> None:
    """T36: delete against update; nothing inserts it again, and nothing deletes it later."""
    stream, target = started(place, policy=policy)
    edited(place, name="t")
    deliver(target, stream.batch(d(USERS, **BASE)))
    assert [found["name"] for found in held(target, USERS)] == (["t"] if is_there else [])
    assert recorded(target) == [(policy, "target" if is_there else "deleted")]


def test_a_row_that_both_sides_inserted(place: Place) -> None:
    stream, target = started(place, policy="target_wins")
    place.execute("insert into users (sync_id, name) values ('b', 't')")
    deliver(target, stream.batch(c(USERS, **BASE | {"sync_id": "b", "id": 2, "name": "s"})))
    assert [found["name"] for found in held(target, USERS)] == ["n", "t"]
    assert recorded(target) == [("target_wins", "target")]


def test_a_person_decides(place: Place) -> None:
    """T40: others go on, later changes of the row queue behind; retry takes the source's row, skip
    keeps the target's, edit makes another.
    """
    stream, target = started(place, policy="park")
    other = BASE | {"sync_id": "b", "id": 2}
    deliver(target, stream.batch(c(USERS, **other)))
    edited(place, mail="t")
    deliver(target, stream.batch(changed(name="s"), u(USERS, other, **other | {"name": "x"})))
    later = BASE | {"name": "s"}
    deliver(target, stream.batch(u(USERS, later, **later | {"stock": 11})))
    assert [(p.reason, p.row_key) for p in target.parked()] == [
        ("conflict", '{"sync_id":"a"}'),
        ("behind", '{"sync_id":"a"}'),
    ]
    assert [found["name"] for found in held(target, USERS)] == ["n", "x"]
    first, second = target.parked()
    target.edit(second.number, {"mail": "t"})
    target.retry([first.number])
    assert row_of(target, "a") == {"name": "s", "mail": "t", "stock": 11}


def row_of(target: Target, sync_id: str) -> dict[str, Any]:
    found = next(f for f in held(target, USERS) if f["sync_id"] == sync_id)
    return {n: found[n] for n in ("name", "mail", "stock")}


def keep_the_longer_name(
    before: Image | None, after: Image | None, mine: Image | None
) -> Image | None:
    assert before is not None
    assert after is not None
    assert mine is not None
    return {"name": after["name"]} if len(after["name"]) > len(mine["name"]) else None


def test_a_handler_of_ones_own(place: Place) -> None:
    name = f"{__name__}:keep_the_longer_name"
    stream, target = started(place, policy="handler", handler=name)
    edited(place, name="tt", mail="t")
    deliver(target, stream.batch(changed(name="sss", mail="s")))
    assert row(target) == {"name": "sss", "mail": "t", "stock": 10}
    assert recorded(target) == [(f"handler {name}", "merged")]


def test_references_are_compared_as_the_rows_they_lead_to(place: Place) -> None:
    """Local keys differ from the source's, and are no conflict; another parent is one."""
    target = place.target(conflicts={"*": ConflictRules(policy="merge_columns")})
    target.prepare([USERS, ORDERS])
    place.execute("insert into users (sync_id, name) values ('local', 'x')")
    stream = Stream()
    users = [c(USERS, **BASE | {"id": i, "sync_id": f"u{i}"}) for i in (1, 2)]
    order = {"id": 1, "sync_id": "o", "user_id": 1, "note": ""}
    deliver(target, stream.batch(*users, c(ORDERS, **order)))
    deliver(target, stream.batch(u(ORDERS, order, **order | {"note": "x"})))
    assert target.conflicts() == []
    ((two,),) = place.query("select id from users where sync_id = 'u2'")
    place.execute(f"update orders set user_id = {two}")
    before = order | {"note": "x"}
    deliver(target, stream.batch(u(ORDERS, before, **before | {"note": "y"})))
    (found,) = held(target, ORDERS)
    assert (found["user_id"], found["note"]) == ('{"sync_id":"u2"}', "y")
    assert [list(one.conflict.changed) for one in target.conflicts()] == [["user_id"]]


def test_replaying_recorded_conflicts_gives_what_live_application_did(place: Place) -> None:
    """T41."""
    stream, target = started(place, policy="merge_columns", columns={"stock": "additive"})
    edited(place, mail="t", stock=3)
    deliver(target, stream.batch(changed(name="s", stock=11)))
    deliver(target, stream.batch(d(USERS, **BASE | {"name": "s", "stock": 11})))
    kinds = {c.name: c.kind for c in USERS.columns}
    rules = ConflictRules(policy="merge_columns", columns={"stock": "additive"})
    found = [(one, decide(one.conflict, rules, kinds)) for one in target.conflicts()]
    assert [outcome(one.conflict, decision) for one, decision in found] == [
        one.outcome for one in target.conflicts()
    ]


def test_rules_that_cannot_be_meant_are_refused_before_anything_is_written(place: Place) -> None:
    rules = ConflictRules(policy="newest_wins", by="nope", columns={"name": "additive"})
    target = place.target(conflicts={"app.users": rules})
    with pytest.raises(SchemaConflict) as caught:
        target.prepare([USERS])
    assert "needs `by`" in str(caught.value)
    assert "cannot be additive" in str(caught.value)
