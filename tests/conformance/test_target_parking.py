"""Every target: changes that it refuses are parked with all they were, each row's in their order,
and applied when they can be; all others flow.
"""

from __future__ import annotations

from typing import Any

import pytest

from apply.target import Target
from schemas.errors import Misconfigured, Operator, Poison, SchemaConflict
from schemas.table import Table
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
    t,
    table,
    u,
)

__all__ = ["place"]

ITEMS = table("items", column("name"), column("price", INT))
USERS = table("users", column("mail"), column("age", INT), uniques=(("mail",),))
ORDERS = table(
    "orders",
    column("user_id", INT),
    column("note"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
LINES = table("lines", column("order_id", INT), foreign_keys=(foreign_key("order_id", "orders"),))


def item(number: int, price: int, **more: Any) -> Change:
    return c(ITEMS, id=number, sync_id=f"i{number}", name="n", price=price, **more)


def priced(number: int, price: int) -> Change:
    return u(ITEMS, id=number, sync_id=f"i{number}", name="n", price=price)


def user(number: int, mail: str, age: int = 1, make: Any = c) -> Change:
    made: Change = make(USERS, id=number, sync_id=f"u{number}", mail=mail, age=age)
    return made


def order(number: int, user_id: int | None, note: str = "", make: Any = c) -> Change:
    made: Change = make(ORDERS, id=number, sync_id=f"o{number}", user_id=user_id, note=note)
    return made


def ready(place: Place, *tables: Table, limit: int = 100) -> tuple[Stream, Target]:
    target = place.target(parked_limit=limit)
    target.prepare(tables)
    return Stream(), target


def waiting(target: Target) -> list[tuple[str, str]]:
    return [(c.row_key, c.reason) for c in target.parked()]


def key(sync_id: str) -> str:
    return f'{{"sync_id":"{sync_id}"}}'


def prices(target: Target) -> dict[str, int]:
    return {row["sync_id"]: row["price"] for row in held(target, ITEMS)}


def test_a_refused_row_waits_with_its_later_changes_and_all_others_flow(place: Place) -> None:
    """H100: parked with full context; the same key's later changes wait; release works."""
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, 5), item(2, 5)))
    deliver(target, stream.batch(priced(1, 6), priced(2, -1), item(3, 7)))
    deliver(target, stream.batch(priced(2, 8), priced(3, 9)))
    assert prices(target) == {"i1": 6, "i2": 5, "i3": 9}
    first, second = target.parked()
    assert (first.table_name, first.batch, first.ordinal) == ("app.items", 2, 1)
    assert (first.reason, second.reason) == ("value", "behind")
    assert '"price":-1' in first.value
    assert (first.position, first.op) == ("p2", "u")
    assert Table.loads(first.description) == ITEMS
    assert "-1" not in first.problem
    assert first.hint
    deliver(target, stream.batch(d(ITEMS, id=1, sync_id="i1")))
    assert prices(target) == {"i2": 5, "i3": 9}
    assert target.retry().applied == [first.number, second.number]
    assert prices(target) == {"i2": 8, "i3": 9}, "the newest of what waited, in one step"
    assert target.parked() == []


def test_what_is_parked_outlives_the_process_and_goes_when_the_target_is_mended(
    place: Place,
) -> None:
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1), item(2, 5)))
    again = place.target(parked_limit=100)
    deliver(again, stream.batch(priced(1, -2), priced(2, 6)))
    assert prices(again) == {"i2": 6}
    failed = again.retry()
    assert (failed.applied, len(failed.parked)) == ([], 2)
    assert [change.tries for change in again.parked()] == [2, 0]
    place.uncheck("items")
    assert len(place.target(parked_limit=100).retry().applied) == 2
    deliver(again, stream.batch(priced(1, 4)))
    assert prices(again) == {"i1": 4, "i2": 6}
    assert waiting(again) == []


def test_every_refused_row_of_a_large_batch_is_found_and_no_other(place: Place) -> None:
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    bad = {7, 8, 450, 1023, 1999}
    deliver(target, stream.batch(*(item(i, -1 if i in bad else 1) for i in range(2000))))
    assert {change.row_key for change in target.parked()} == {key(f"i{i}") for i in bad}
    assert prices(target).keys() == {f"i{i}" for i in range(2000)} - {f"i{i}" for i in bad}


def test_a_child_is_applied_in_the_batch_that_brings_its_parent(place: Place) -> None:
    """H91: and so are its own children, which waited behind it."""
    stream, target = ready(place, USERS, ORDERS, LINES)
    line = c(LINES, id=1, sync_id="l1", order_id=1)
    deliver(target, stream.batch(order(1, 7), order(2, None), line))
    assert waiting(target) == [(key("o1"), "parent"), (key("l1"), "parent")]
    assert [c.waits_key for c in target.parked()] == ["7", "1"]
    deliver(target, stream.batch(order(1, 7, "later", make=u)))
    assert len(target.parked()) == 3
    deliver(target, stream.batch(user(6, "f")))
    assert len(target.parked()) == 3, "another parent"
    deliver(target, stream.batch(user(7, "g")))
    assert waiting(target) == []
    found = {row["sync_id"]: (row["user_id"], row["note"]) for row in held(target, ORDERS)}
    assert found == {"o1": (key("u7"), "later"), "o2": (None, "")}
    assert [row["order_id"] for row in held(target, LINES)] == [key("o1")]


def test_a_parked_child_finds_the_parent_of_its_moment(place: Place) -> None:
    """A re-used key never gives it another row's identity."""
    stream, target = ready(place, USERS, ORDERS)
    place.check("orders", "note", "<> 'bad'")
    deliver(target, stream.batch(user(1, "a")))
    deliver(target, stream.batch(order(1, 1, "bad")))
    moved = u(USERS, {"id": 1, "sync_id": "u1"}, id=5, sync_id="u1", mail="a", age=1)
    reused = c(USERS, id=1, sync_id="u9", mail="b", age=1)
    deliver(target, stream.batch(moved, reused))
    place.uncheck("orders")
    target.retry()
    assert [row["user_id"] for row in held(target, ORDERS)] == [key("u1")]


def test_a_reference_keeps_its_parent_until_the_new_one_is_there(place: Place) -> None:
    """T21: and a later change of other columns does not jump the queue of the same row."""
    stream, target = ready(place, USERS, ORDERS)
    place.check("users", "age", "> 0")
    deliver(target, stream.batch(user(1, "a"), order(1, 1)))
    deliver(target, stream.batch(user(2, "b", age=-1), order(1, 2, make=u)))
    deliver(target, stream.batch(order(1, 2, "later", make=u)))
    (row,) = held(target, ORDERS)
    assert (row["user_id"], row["note"]) == (key("u1"), "")
    first = target.parked()[0]
    target.edit(first.number, {"age": 3})
    assert len(target.retry([first.number]).applied) == 3
    (row,) = held(target, ORDERS)
    assert (row["user_id"], row["note"]) == (key("u2"), "later")


def test_a_row_that_waits_for_a_unique_value_goes_when_its_holder_does(place: Place) -> None:
    stream, target = ready(place, USERS)
    place.check("users", "age", "> 0")
    deliver(target, stream.batch(user(1, "a"), user(3, "c")))
    deliver(target, stream.batch(user(1, "b", age=-1, make=u), user(2, "a")))
    assert waiting(target) == [(key("u1"), "value"), (key("u2"), "unique")]
    deliver(target, stream.batch(user(3, "d", make=u)))
    assert len(target.parked()) == 2, "its value is not free"
    deliver(target, stream.batch(d(USERS, id=1, sync_id="u1")))
    assert waiting(target) == []
    assert {row["sync_id"]: row["mail"] for row in held(target, USERS)} == {"u2": "a", "u3": "d"}


def test_a_row_copied_anew_is_no_longer_parked(place: Place) -> None:
    """What was asked for is tried, and stands for all that waited before it."""
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1)))
    deliver(target, stream.batch(r(ITEMS, id=1, sync_id="i1", name="n", price=-3)))
    assert len(target.parked()) == 2
    deliver(target, stream.batch(r(ITEMS, id=1, sync_id="i1", name="n", price=3)))
    assert target.parked() == []
    assert prices(target) == {"i1": 3}


def test_a_partial_row_is_completed_by_the_changes_that_waited_before_it(place: Place) -> None:
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1)))
    deliver(target, stream.batch(u(ITEMS, id=1, sync_id="i1", price=4)))
    target.retry()
    (row,) = held(target, ITEMS)
    assert (row["name"], row["price"]) == ("n", 4)


def test_a_partial_row_that_the_target_lacks_is_parked(place: Place) -> None:
    stream, target = ready(place, ITEMS)
    deliver(target, stream.batch(u(ITEMS, id=1, sync_id="i1", price=4), item(2, 1)))
    assert waiting(target) == [(key("i1"), "incomplete")]
    assert prices(target) == {"i2": 1}


def test_a_deleted_row_that_local_rows_reference_is_parked(place: Place) -> None:
    stream, target = ready(place, USERS, ORDERS)
    deliver(target, stream.batch(user(1, "a"), user(2, "b")))
    (own,) = place.query("select id from users where sync_id = 'u1'")
    place.execute(f"insert into orders (sync_id, user_id) values ('here', {own[0]})")
    gone = [d(USERS, id=i, sync_id=f"u{i}") for i in (1, 2)]
    deliver(target, stream.batch(*gone))
    assert waiting(target) == [(key("u1"), "referenced")]
    assert [row["sync_id"] for row in held(target, USERS)] == ["u1"]
    deliver(target, stream.batch(user(3, "c")))
    assert len(target.parked()) == 1
    place.execute("delete from orders")
    deliver(target, stream.batch(d(USERS, id=3, sync_id="u3")))
    assert held(target, USERS) == []
    assert target.parked() == []


def test_a_row_without_identity_or_with_a_value_that_does_not_fit_is_parked(place: Place) -> None:
    """H106: NULL in the identity has a defined outcome."""
    stream, target = ready(place, ITEMS)
    nameless = c(ITEMS, id=9, sync_id=None, name="n", price=1)
    deliver(target, stream.batch(item(1, 1), nameless, item(2, 2)))
    assert waiting(target) == [('{"sync_id":null}', "value")]
    assert prices(target) == {"i1": 1, "i2": 2}


def test_a_row_that_a_deferred_constraint_refuses_is_parked(place: Place) -> None:
    """PostgreSQL checks it at commit, and names no row there; elsewhere the key is immediate."""
    stream, target = ready(place, ITEMS)
    late = "alter table items add unique (price) deferrable initially deferred"
    place.execute(late if place.kind == "postgres" else "create unique index u on items (price)")
    deliver(target, stream.batch(item(1, 5), item(2, 6)))
    deliver(target, stream.batch(priced(1, 6), priced(2, 5)))
    assert prices(target) == {"i1": 6, "i2": 5}, "an exchange"
    deliver(target, stream.batch(item(3, 7), item(4, 6), item(5, 9)))
    assert waiting(target) == [(key("i4"), "unique")]
    deliver(target, stream.batch(priced(1, 8)))
    assert prices(target) == {"i1": 8, "i2": 5, "i3": 7, "i4": 6, "i5": 9}


def test_edited_and_skipped_changes(place: Place) -> None:
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1), item(2, -2), item(3, 3)))
    first, second = target.parked()
    for number, columns, why in (
        (first.number, {"sync_id": "x"}, "identity"),
        (first.number, {"nope": 1}, "no column nope"),
        (99, {"price": 1}, "no parked change 99"),
    ):
        with pytest.raises(Misconfigured, match=why):
            target.edit(number, columns)
    target.edit(first.number, {"price": 11})
    target.skip([second.number], "a test row")
    with pytest.raises(Misconfigured, match="no parked change"):
        target.skip([second.number], "again")
    target.retry()
    assert prices(target) == {"i1": 11, "i3": 3}
    assert target.parked() == []
    (skipped,) = target.parked(skipped=True)
    assert (skipped.state, skipped.note) == ("skipped", "a test row")
    deliver(target, stream.batch(priced(2, 5)))
    assert prices(target)["i2"] == 5, "nothing waits behind what was given up"


def test_more_than_may_be_parked_stops_the_target_before_the_batch(place: Place) -> None:
    stream, target = ready(place, ITEMS, limit=2)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1), item(2, 5)))
    at = target.checkpoint()
    with pytest.raises(Operator, match="parked_limit"):
        deliver(target, stream.batch(item(3, -1), item(4, -1), item(5, 1)))
    assert target.checkpoint() == at
    assert len(target.parked()) == 1
    assert prices(target) == {"i2": 5}
    with pytest.raises(Poison):
        deliver(place.target(parked_limit=0), stream.batch(item(6, -1)), at)


def test_a_truncate_ends_what_waits_for_the_table(place: Place) -> None:
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1), item(2, 2)))
    deliver(target, stream.batch(t(ITEMS), item(1, 4)))
    assert target.parked() == []
    assert prices(target) == {"i1": 4}


def test_a_change_is_applied_by_the_description_it_was_written_with(place: Place) -> None:
    stream, target = ready(place, ITEMS)
    place.check("items", "price", "> 0")
    deliver(target, stream.batch(item(1, -1)))
    wider = table("items", column("name"), column("price", INT), column("colour"))
    target.prepare([wider])
    deliver(target, stream.batch(c(wider, id=2, sync_id="i2", name="n", price=1, colour="red")))
    place.uncheck("items")
    target.retry()
    found = {row["sync_id"]: (row["price"], row["colour"]) for row in held(target, wider)}
    assert found == {"i1": (-1, None), "i2": (1, "red")}


@pytest.mark.parametrize("primary_keys", ["local", "copy"])
def test_a_reference_may_be_null_until_its_parent_comes(place: Place, primary_keys: str) -> None:
    """null_then_fix: also of a row that was there, which then leads nowhere rather than elsewhere,
    and of a row of a tree.
    """
    nodes = table(
        "nodes", column("parent_id", INT), foreign_keys=(foreign_key("parent_id", "nodes"),)
    )
    target = place.target(
        parked_limit=100, primary_keys=primary_keys, missing_parents={"app.*": "null_then_fix"}
    )
    target.prepare([USERS, ORDERS, nodes])
    stream = Stream()
    deliver(target, stream.batch(user(1, "a"), order(1, 1), order(2, 7)))
    deliver(target, stream.batch(order(1, 8, "moved", make=u)))
    deliver(target, stream.batch(c(nodes, id=1, sync_id="n1", parent_id=2)))
    assert [row["user_id"] for row in held(target, ORDERS)] == [None, None]
    assert [row["parent_id"] for row in held(target, nodes)] == [None]
    assert target.parked() == []
    more = [user(7, "g"), user(8, "h"), c(nodes, id=2, sync_id="n2", parent_id=None)]
    deliver(
        place.target(
            parked_limit=100, primary_keys=primary_keys, missing_parents={"app.*": "null_then_fix"}
        ),
        stream.batch(*more),
        target.checkpoint(),
    )
    found = {row["sync_id"]: row["user_id"] for row in held(target, ORDERS)}
    assert found == (
        {"o1": key("u8"), "o2": key("u7")} if primary_keys == "local" else {"o1": 8, "o2": 7}
    )
    assert {row["sync_id"]: row["parent_id"] for row in held(target, nodes)} == (
        {"n1": key("n2"), "n2": None} if primary_keys == "local" else {"n1": 2, "n2": None}
    )


def test_what_cannot_be_null_does_not_wait(place: Place) -> None:
    strict = table(
        "strict",
        column("user_id", INT, nullable=False),
        foreign_keys=(foreign_key("user_id", "users"),),
    )
    target = place.target(missing_parents={"app.strict.user_id": "null_then_fix"})
    target.prepare([USERS])
    place.target().prepare([USERS, strict])
    with pytest.raises(SchemaConflict, match="null_then_fix"):
        target.prepare([USERS, strict])


def test_a_copied_row_waits_for_both_of_its_parents(place: Place) -> None:
    """Over a first copy: applied after the first parent has come, it is not left to its own table's
    chunk, which brought it already.
    """
    both = table(
        "both",
        column("user_id", INT, nullable=False),
        column("item_id", INT, nullable=False),
        foreign_keys=(foreign_key("user_id", "users"), foreign_key("item_id", "items")),
    )
    stream, target = ready(place, USERS, ITEMS, both)
    tables = [t.full_name for t in (USERS, ITEMS, both)]
    copying = {name: {"what": "rows", "after": None, "done": False} for name in tables}
    deliver(
        target,
        stream.batch(r(both, id=1, sync_id="b1", user_id=1, item_id=1), progress=copying),
    )
    deliver(target, stream.batch(user(1, "a", make=r), progress=copying))
    assert [change.waits_table for change in target.parked()] == ["app.items"]
    item_1 = r(ITEMS, id=1, sync_id="i1", name="n", price=1)
    deliver(target, stream.batch(item_1, progress=copying))
    assert target.parked() == []
    assert [row["sync_id"] for row in held(target, both)] == ["b1"]
