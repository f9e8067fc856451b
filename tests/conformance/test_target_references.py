"""Every target: foreign keys between tables whose primary keys differ from the source's."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import Poison, SchemaConflict
from schemas.kinds import Kind
from schemas.table import Column
from tests.conformance.targets import (
    ID,
    INT,
    SOURCE,
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
    s,
    t,
    table,
    u,
)

__all__ = ["SOURCE", "place"]

USERS = table("users", column("name"))
ORDERS = table(
    "orders",
    column("user_id", INT),
    column("note"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
STRICT = table(
    "orders",
    column("user_id", INT, nullable=False),
    column("note"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
STAFF = table(
    "staff", column("boss", INT), column("name"), foreign_keys=(foreign_key("boss", "staff"),)
)
COPYING = {"what": "rows", "after": None, "done": False}
COPIED = {"what": "rows", "after": None, "done": True}


def user(number: int, sync_id: str) -> Any:
    return c(USERS, id=number, sync_id=sync_id, name=sync_id)


def order(number: int, sync_id: str, user_id: int | None, of: Any = ORDERS) -> Any:
    return c(of, id=number, sync_id=sync_id, user_id=user_id, note="n")


def links(target: Any, of: Any = ORDERS, name: str = "user_id") -> dict[str, Any]:
    """sync_id -> the parent's sync_id."""
    return {row["sync_id"]: row[name] and row[name].split('"')[3] for row in held(target, of)}


def shifted(place: Place) -> None:
    """Let the target's own keys differ from any of the source's."""
    place.execute(
        "insert into users (id, sync_id, name) values (1000, 'local', 'local')",
        "delete from users where id = 1000",
    )
    if place.kind == "postgres":
        place.execute("select setval(pg_get_serial_sequence('users', 'id'), 1000)")


def test_a_reference_becomes_the_parents_local_key(place: Place) -> None:
    """T13."""
    stream, target = Stream(), place.target()
    target.prepare([ORDERS, USERS])
    shifted(place)
    # The child's table sorts before the parent's, the child's row stands after it.
    deliver(target, stream.batch(user(10, "a"), order(1, "o1", 10), order(2, "o2", None)))
    deliver(target, stream.batch(user(11, "b"), order(3, "o3", 11), order(4, "o4", 10)))
    assert links(target) == {"o1": "a", "o2": None, "o3": "b", "o4": "a"}
    rows = place.query("select o.user_id from orders o join users u on u.id = o.user_id")
    assert len(rows) == 3
    assert all(key > 1000 for (key,) in rows)


def test_the_planner_knows_how_many_parents_there_are(place: Place) -> None:
    """Without statistics PostgreSQL compares every child with every parent, twice."""
    many = range(1, 3_001)
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(*(user(n, f"u{n}") for n in many)), first=False)
    if place.kind == "postgres":
        counted = "select 1 from pg_stats where tablename = 'headwater_identity'"
        assert place.query(counted), "its rows were never counted"
    deliver(target, stream.batch(*(order(n, f"o{n}", 3_001 - n) for n in many)))
    assert links(target) == {f"o{n}": f"u{3_001 - n}" for n in many}


def test_a_re_pointed_child_and_its_old_parents_delete_in_one_transaction(place: Place) -> None:
    for orders in (ORDERS, STRICT):
        stream, target = Stream(), place.target()
        target.prepare([USERS, orders])
        deliver(
            target, stream.batch(user(1, "a"), user(2, "b"), order(1, "o", 1, orders)), first=False
        )
        deliver(
            target,
            stream.batch(
                u(orders, id=1, sync_id="o", user_id=2, note="moved"), d(USERS, id=1, sync_id="a")
            ),
        )
        assert links(target, orders) == {"o": "b"}
        assert [row["sync_id"] for row in held(target, USERS)] == ["b"]
        place.execute("drop table orders", "drop table users")
        target.drop()


def test_a_cascade_of_the_target_never_takes_a_row_that_moved(place: Place) -> None:
    orders = table(
        "orders",
        column("user_id", INT),
        column("note"),
        foreign_keys=(foreign_key("user_id", "users", "CASCADE"),),
    )
    stream, target = Stream(), place.target()
    target.prepare([USERS, orders])
    deliver(
        target,
        stream.batch(
            user(1, "a"), user(2, "b"), order(1, "o", 1, orders), order(2, "p", 1, orders)
        ),
    )
    ids = place.query("select id from orders where sync_id = 'o'")
    # MySQL before 9.6 does not log the cascade that deletes p.
    deliver(
        target,
        stream.batch(
            u(orders, id=1, sync_id="o", user_id=2, note="moved"), d(USERS, id=1, sync_id="a")
        ),
    )
    assert links(target, orders) == {"o": "b"}
    assert place.query("select id from orders where sync_id = 'o'") == ids


def test_parents_and_children_are_deleted_together(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, STRICT])
    deliver(target, stream.batch(user(1, "a"), order(1, "o", 1, STRICT), user(2, "b")))
    deliver(target, stream.batch(d(STRICT, id=1, sync_id="o"), d(USERS, id=1, sync_id="a")))
    assert links(target, STRICT) == {}
    assert [row["sync_id"] for row in held(target, USERS)] == ["b"]


def test_a_used_again_source_key_means_another_parent_from_then_on(place: Place) -> None:
    """T6 with children: id 10 is a, then b, in one batch and over batches."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(
        target,
        stream.batch(
            user(10, "a"),
            order(1, "o1", 10),
            d(ORDERS, id=1, sync_id="o1"),
            d(USERS, id=10, sync_id="a"),
            user(10, "b"),
            order(2, "o2", 10),
        ),
    )
    assert links(target) == {"o2": "b"}
    deliver(target, stream.batch(d(ORDERS, id=2, sync_id="o2"), d(USERS, id=10, sync_id="b")))
    deliver(target, stream.batch(user(10, "c"), order(3, "o3", 10)))
    assert links(target) == {"o3": "c"}
    open_ = place.query("select identity from headwater_identity where to_batch is null")
    assert open_ == [("c",)]


def test_a_replayed_child_finds_the_parent_of_its_moment(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    batches = [
        stream.batch(user(10, "a"), user(11, "b")),
        stream.batch(order(1, "o1", 10)),
        # a's key becomes 12, then b's becomes 10.
        stream.batch(u(USERS, id=12, sync_id="a", name="a")),
        stream.batch(u(USERS, id=10, sync_id="b", name="b")),
    ]
    for batch in batches:
        deliver(target, batch)
    place.execute(f"update headwater_checkpoint set log_offset = '{batches[0].offset}'")
    deliver(target, batches[1])
    assert links(target) == {"o1": "a"}


def test_a_changed_parent_key_with_its_cascade_changes_nothing(place: Place) -> None:
    """T8: id 10 -> 11, the children's update follows by cascade."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), order(1, "o", 10)))
    before = place.query("select * from orders")
    deliver(
        target,
        stream.batch(
            u(USERS, id=11, sync_id="a", name="a"),
            u(ORDERS, id=1, sync_id="o", user_id=11, note="n"),
        ),
    )
    assert place.query("select * from orders") == before
    deliver(target, stream.batch(order(2, "p", 11)))
    assert links(target) == {"o": "a", "p": "a"}


def test_children_follow_a_parent_whose_identity_changed(place: Place) -> None:
    """T5: the source logs nothing for the children; one live row is left, and they point at it."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, STRICT])
    deliver(target, stream.batch(user(10, "a"), order(1, "o", 10, STRICT)))
    deliver(target, stream.batch(d(USERS, id=10, sync_id="a"), user(10, "z")))
    assert links(target, STRICT) == {"o": "z"}
    assert [row["sync_id"] for row in held(target, USERS)] == ["z"]


def test_a_tree_may_come_in_any_order(place: Place) -> None:
    """T16: leaves first, a cycle, and a row that is its own boss."""
    stream, target = Stream(), place.target()
    target.prepare([STAFF])

    def person(number: int, boss: int | None) -> Any:
        return c(STAFF, id=number, sync_id=f"s{number}", boss=boss, name="x")

    deliver(target, stream.batch(*(person(i, i + 1) for i in range(1, 30)), person(30, None)))
    deliver(target, stream.batch(person(40, 41), person(41, 40), person(50, 50)))
    expected = {f"s{i}": f"s{i + 1}" for i in range(1, 30)} | {"s30": None}
    assert links(target, STAFF, "boss") == expected | {"s40": "s41", "s41": "s40", "s50": "s50"}
    deliver(target, stream.batch(*(d(STAFF, sync_id=f"s{i}") for i in [*range(1, 31), 40, 41])))
    assert links(target, STAFF, "boss") == {"s50": "s50"}


def test_a_tree_that_must_have_bosses_may_come_in_any_order(place: Place) -> None:
    staff = table(
        "staff",
        column("boss", INT, nullable=False),
        column("name"),
        foreign_keys=(foreign_key("boss", "staff"),),
    )
    stream, target = Stream(), place.target()
    target.prepare([staff])
    place.execute("insert into staff (id, sync_id, boss, name) values (1000, 'root', 1000, 'x')")
    fresh = place.target()
    deliver(
        fresh,
        stream.batch(
            s(staff, 1, "root"),
            *(c(staff, id=i, sync_id=f"s{i}", boss=i - 1, name="x") for i in (5, 4, 3, 2)),
        ),
    )
    expected = {"root": "root", "s2": "root", "s3": "s2", "s4": "s3", "s5": "s4"}
    assert links(fresh, staff, "boss") == expected


def test_two_tables_may_reference_each_other(place: Place) -> None:
    """T16 across tables: each row's reference is set when the other row is there."""
    teams = table("teams", column("lead", INT), foreign_keys=(foreign_key("lead", "people"),))
    people = table("people", column("team", INT), foreign_keys=(foreign_key("team", "teams"),))
    stream, target = Stream(), place.target()
    target.prepare([teams, people])
    deliver(
        target,
        stream.batch(
            c(teams, id=1, sync_id="t", lead=None),
            c(people, id=1, sync_id="p", team=1),
            u(teams, id=1, sync_id="t", lead=1),
        ),
    )
    assert links(target, teams, "lead") == {"t": "p"}
    assert links(target, people, "team") == {"p": "t"}
    deliver(
        target,
        stream.batch(
            u(teams, id=1, sync_id="t", lead=None),
            d(people, id=1, sync_id="p"),
            d(teams, id=1, sync_id="t"),
        ),
    )
    assert (held(target, teams), held(target, people)) == ([], [])


def test_local_keys_are_never_remembered(place: Place) -> None:
    """T23: the parent was made again in the target, under another local key."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), order(1, "o1", 10)))
    (old,) = place.query("select id from users")
    place.execute(
        "delete from orders", "delete from users", "insert into users (sync_id) values ('a')"
    )
    deliver(target, stream.batch(order(2, "o2", 10)))
    assert links(target) == {"o2": "a"}
    assert place.query("select user_id from orders") != [old]


def test_an_unknown_parent_is_poison_and_says_what_to_copy(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    with pytest.raises(
        Poison, match=r"app.users for app.orders.user_id .batch 1, ordinal 1"
    ) as caught:
        deliver(target, stream.batch(user(1, "a"), order(1, "o", 99)))
    assert "app.users" in caught.value.hint
    assert held(target, USERS) == []


def test_seeds_tell_of_parents_from_before_the_stream(place: Place) -> None:
    """Adopted rows: a's key is known from a seed, b's from its update, c's moved before the
    seed.
    """
    place.execute(
        f"create table users (id {place.serial}, sync_id varchar(36) unique, name varchar(50))",
        "insert into users (sync_id) values ('x'), ('a'), ('b'), ('c')",
    )
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(
        target,
        stream.batch(
            order(1, "o1", 10),
            order(2, "o2", 11),
            order(3, "o3", 12),
            u(USERS, {"id": 12, "sync_id": "c", "name": "c"}, id=13, sync_id="c", name="c"),
            order(4, "o4", 13),
            u(USERS, id=11, sync_id="b", name="b"),
            s(USERS, 10, "a"),
            s(USERS, 11, "b"),
            s(USERS, 13, "c"),
        ),
    )
    assert links(target) == {"o1": "a", "o2": "b", "o3": "c", "o4": "c"}
    # A seed is no row of the table.
    assert place.query("select name from users where sync_id = 'a'") == [(None,)]


def test_a_child_whose_parent_is_still_to_be_copied_waits(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, STRICT])
    both = {"app.users": COPYING, "app.orders": COPYING}
    # The child's own chunk is still to come: it will bring the row.
    deliver(target, stream.batch(order(2, "o2", 10, STRICT), progress=both))
    assert links(target, STRICT) == {}
    deliver(
        target,
        stream.batch(r(USERS, id=10, sync_id="a", name="a"), progress=both | {"app.users": COPIED}),
    )
    deliver(target, stream.batch(order(2, "o2", 10, STRICT)))
    assert links(target, STRICT) == {"o2": "a"}


def test_references_within_a_table_wait_for_later_chunks(place: Place) -> None:
    """T16 over a first copy: the boss stands in a later chunk; a newer NULL is not undone."""
    stream, target = Stream(), place.target()
    target.prepare([STAFF])
    copying = {"app.staff": COPYING}
    deliver(
        target,
        stream.batch(
            r(STAFF, id=1, sync_id="s1", boss=9, name="x"),
            r(STAFF, id=2, sync_id="s2", boss=9, name="x"),
            progress=copying,
        ),
    )
    deliver(
        target, stream.batch(u(STAFF, id=2, sync_id="s2", boss=None, name="x"), progress=copying)
    )
    # Another process goes on.
    other = place.target()
    deliver(
        other,
        stream.batch(
            r(STAFF, id=9, sync_id="s9", boss=9, name="x"), progress={"app.staff": COPIED}
        ),
    )
    assert links(other, STAFF, "boss") == {"s1": "s9", "s2": None, "s9": "s9"}
    assert place.query("select count(*) from headwater_waiting") == [(0,)]


def test_a_parent_deleted_and_inserted_again_gets_a_new_local_key(place: Place) -> None:
    """Its children went with it, although no event says so."""
    orders = table(
        "orders",
        column("user_id", INT),
        column("note"),
        foreign_keys=(foreign_key("user_id", "users", "CASCADE"),),
    )
    stream, target = Stream(), place.target()
    target.prepare([USERS, orders])
    deliver(target, stream.batch(user(1, "a")))
    (old,) = place.query("select id from users")
    deliver(target, stream.batch(d(USERS, id=1, sync_id="a"), user(2, "a")))
    assert place.query("select id from users") != [old]


def test_a_truncate_ends_what_keys_meant(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), order(1, "o", 10)))
    deliver(target, stream.batch(t(ORDERS), t(USERS), user(10, "b"), order(1, "p", 10)))
    assert links(target) == {"p": "b"}


def test_copied_keys_need_no_translation(place: Place) -> None:
    stream, target = Stream(), place.target(primary_keys="copy")
    target.prepare([USERS, STRICT, STAFF])
    deliver(
        target,
        stream.batch(
            user(10, "a"),
            order(1, "o", 10, STRICT),
            c(STAFF, id=1, sync_id="s1", boss=2, name="x"),
            c(STAFF, id=2, sync_id="s2", boss=None, name="x"),
        ),
    )
    assert place.query("select user_id from orders") == [(10,)]
    assert place.query("select boss from staff order by id") == [(2,), (None,)]
    assert place.query("select count(*) from headwater_identity") == [(0,)]


def test_a_reference_to_a_table_that_is_not_captured_is_refused(place: Place) -> None:
    target = place.target()
    with pytest.raises(SchemaConflict, match=r"app.orders.user_id references app.users"):
        target.prepare([ORDERS])
    left = place.target(exclude_columns=["app.orders.user_id"])
    left.prepare([ORDERS])
    deliver(left, Stream().batch(order(1, "o", 10)))
    assert place.query("select sync_id from orders") == [("o",)]


def test_a_copied_row_whose_required_parent_comes_later_is_never_left_out(place: Place) -> None:
    staff = table(
        "staff", column("boss", INT, nullable=False), foreign_keys=(foreign_key("boss", "staff"),)
    )
    stream, target = Stream(), place.target()
    target.prepare([staff])
    chunk = stream.batch(r(staff, id=1, sync_id="s1", boss=9), progress={"app.staff": COPYING})
    with pytest.raises(Poison, match="cannot wait"):
        deliver(target, chunk)


def test_parents_may_be_identified_by_binary_values(place: Place) -> None:
    """MySQL's binary(16) as sync_id: the identity is kept as base64, and found by its bytes."""
    sixteen = Column(name="sync_id", kind=Kind(name="binary", length=16), nullable=False)
    users = replace(USERS, columns=(ID, sixteen, *USERS.columns[2:]), uniques=(("sync_id",),))
    keys = {n: b64encode(bytes([n] * 16)).decode() for n in (251, 252)}
    stream, target = Stream(), place.target()
    target.prepare([users, ORDERS])
    rows = [c(users, id=n, sync_id=key, name="u") for n, key in keys.items()]
    deliver(target, stream.batch(order(1, "o1", 251), *rows, order(2, "o2", 252)))
    deliver(target, stream.batch(order(3, "o3", 252)))
    assert links(target) == {"o1": keys[251], "o2": keys[252], "o3": keys[252]}
