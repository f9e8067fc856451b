"""Every target: what the source's foreign keys did and its log did not show (T18, H20)."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from apply.target import Target
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
    moved,
    place,
    table,
    u,
)

__all__ = ["place"]

USERS = table("users", column("name"))


def child(name: str, parent: str, action: str) -> Table:
    key = foreign_key("parent_id", parent, action)
    return table(name, column("parent_id", INT), column("note"), foreign_keys=(key,))


ORDERS = child("orders", "users", "CASCADE")
LINES = child("parts", "orders", "CASCADE")
NOTES = child("notes", "users", "SET NULL")
NODES = child("nodes", "nodes", "CASCADE")
EVERY = [USERS, ORDERS, LINES, NOTES, NODES]


def user(number: int) -> Change:
    return c(USERS, id=number, sync_id=f"users{number}", name="n")


def of(of: Table, number: int, parent: int | None, make: Any = c, note: str = "") -> Change:
    made: Change = make(of, id=number, sync_id=f"{of.name}{number}", parent_id=parent, note=note)
    return made


def gone(of: Table, number: int) -> Change:
    more = {"parent_id": None, "note": ""} if of is not USERS else {"name": "n"}
    return d(of, id=number, sync_id=f"{of.name}{number}", **more)


@pytest.fixture(params=["none", "restrict", "as the source"])
def target(place: Place, request: pytest.FixtureRequest) -> Target:
    """Tables that have no foreign keys, keys that refuse, and the source's own."""
    if request.param != "as the source":
        refers = " references {}" if request.param == "restrict" else ""
        for of in EVERY:
            text = "name varchar(50)"
            if of is not USERS:
                parent = of.foreign_keys[0].parent.removeprefix("app.")
                # MySQL takes no notice of REFERENCES behind a column.
                key = f", foreign key (parent_id){refers.format(parent)} (id)" if refers else ""
                text = f"parent_id int, note varchar(50){key}"
            kind = "text" if place.is_sqlite else "varchar(36)"
            place.execute(
                f"create table {of.name} (id {place.serial}, sync_id {kind} unique, {text})"
            )
    made = place.target()
    made.prepare(EVERY)
    return made


def names(target: Target, of: Table) -> dict[str, Any]:
    return {row["sync_id"]: row.get("parent_id") for row in held(target, of)}


def started(target: Target) -> Stream:
    stream = Stream()
    rows = [user(1), user(2), of(ORDERS, 1, 1), of(ORDERS, 2, 1), of(ORDERS, 3, 2)]
    rows += [of(LINES, 1, 1), of(LINES, 2, 3), of(NOTES, 1, 1), of(NOTES, 2, 2)]
    rows += [of(NODES, 1, None), of(NODES, 2, 1), of(NODES, 3, 2), of(NODES, 4, None)]
    deliver(target, stream.batch(*rows))
    return stream


def test_children_go_with_their_parents_and_local_rows_stay(place: Place, target: Target) -> None:
    """T18: through all levels; what was moved away, or came from elsewhere, is not touched."""
    stream = started(target)
    ((other,),) = place.query("select id from users where sync_id = 'users2'")
    place.execute(f"insert into orders (sync_id, parent_id, note) values ('here', {other}, '')")
    moved = of(ORDERS, 2, 2, make=u)
    deliver(target, stream.batch(moved, gone(USERS, 1), gone(NODES, 1)))
    assert names(target, USERS).keys() == {"users2"}
    assert names(target, ORDERS).keys() == {"orders2", "orders3", "here"}
    assert names(target, LINES).keys() == {"parts2"}
    assert names(target, NOTES) == {"notes1": None, "notes2": '{"sync_id":"users2"}'}
    assert names(target, NODES).keys() == {"nodes4"}


def test_what_the_log_did_show_is_done_once(place: Place, target: Target) -> None:
    """H20: MySQL 9.6 and PostgreSQL log the children's deletes too, before or after."""
    stream = started(target)
    shown = [gone(LINES, 1), gone(ORDERS, 1), gone(ORDERS, 2), of(NOTES, 1, None, make=u)]
    deliver(target, stream.batch(*shown, gone(USERS, 1)))
    assert names(target, ORDERS).keys() == {"orders3"}
    deliver(target, stream.batch(gone(USERS, 2), gone(ORDERS, 3), gone(LINES, 2)))
    assert names(target, ORDERS) == {}
    assert names(target, NOTES) == {"notes1": None, "notes2": None}


def test_a_parent_deleted_and_inserted_again_loses_its_children(
    place: Place, target: Target
) -> None:
    """Those from before, not those that moved away before it went or came after it was back."""
    stream = started(target)
    deliver(
        target,
        stream.batch(
            of(ORDERS, 1, 1, make=u, note="touched, and lost"),
            of(ORDERS, 2, 2, make=u, note="moved"),
            gone(USERS, 1),
            user(1),
            of(ORDERS, 9, 1, note="new"),
        ),
    )
    assert names(target, USERS).keys() == {"users1", "users2"}
    parents = names(target, ORDERS)
    assert parents.keys() == {"orders2", "orders3", "orders9"}
    assert parents["orders9"] == '{"sync_id":"users1"}'
    assert names(target, LINES).keys() == {"parts2"}


@pytest.mark.parametrize("target", ["none", "as the source"], indirect=True)
def test_a_parent_that_changes_its_identity_keeps_its_children(
    place: Place, target: Target
) -> None:
    """T5: an update is no delete, also of children that were written in the same batch."""
    stream = started(target)
    deliver(
        target,
        stream.batch(
            of(ORDERS, 9, 1, note="new"),
            of(ORDERS, 1, 1, make=u, note="touched"),
            of(NOTES, 9, 1),
            moved(USERS, id=1, sync_id="users1", name="n"),
            c(USERS, id=1, sync_id="other", name="n"),
        ),
    )
    assert names(target, USERS).keys() == {"users2", "other"}
    theirs = '{"sync_id":"other"}'
    parents = names(target, ORDERS)
    assert [n for n, parent in parents.items() if parent == theirs] == [
        "orders1", "orders2", "orders9",
    ]  # fmt: skip
    assert names(target, NOTES) == {
        "notes1": theirs, "notes2": '{"sync_id":"users2"}', "notes9": theirs,
    }  # fmt: skip
    assert names(target, LINES).keys() == {"parts1", "parts2"}


@pytest.mark.parametrize("target", ["as the source"], indirect=True)
def test_a_parent_may_change_its_identity_more_than_once(place: Place, target: Target) -> None:
    """T5: in one batch, with children from before, in between, and of a parent that is new too."""
    stream = started(target)

    def moves(number: int, *ids: str) -> list[Change]:
        return [
            change
            for old, new in pairwise(ids)
            for change in (
                moved(USERS, id=number, sync_id=old, name="n"),
                c(USERS, id=number, sync_id=new, name="n"),
            )
        ]

    deliver(
        target,
        stream.batch(
            *moves(1, "users1", "b"),
            of(ORDERS, 8, 1),
            *moves(1, "b", "c"),
            user(5),
            of(ORDERS, 9, 5),
            *moves(5, "users5", "f"),
        ),
    )
    deliver(target, stream.batch(of(ORDERS, 7, 2), *moves(2, "users2", "e")))
    assert target.parked() == []
    assert names(target, USERS).keys() == {"c", "e", "f"}
    by = {order: json.loads(parent)["sync_id"] for order, parent in names(target, ORDERS).items()}
    assert by == {
        "orders1": "c", "orders2": "c", "orders3": "e", "orders7": "e", "orders8": "c",
        "orders9": "f",
    }  # fmt: skip
    # A parent without children so far.
    deliver(target, stream.batch(user(6)))
    deliver(target, stream.batch(of(ORDERS, 10, 6), *moves(6, "users6", "g")))
    assert names(target, ORDERS)["orders10"] == '{"sync_id":"g"}'


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
@pytest.mark.parametrize("target", ["as the source"], indirect=True)
def test_children_follow_where_a_block_ends_between_both_identities(
    place: Place, target: Target
) -> None:
    """T5: a block has 20,000 rows."""
    stream = started(target)
    rows = [of(NODES, n, None) for n in range(10, 20_009)]
    rows += [moved(USERS, id=1, sync_id="users1", name="n")]
    assert len(rows) == 20_000
    deliver(target, stream.batch(*rows, c(USERS, id=1, sync_id="b", name="n")))
    by = {order: json.loads(parent)["sync_id"] for order, parent in names(target, ORDERS).items()}
    assert by == {"orders1": "b", "orders2": "b", "orders3": "users2"}
    assert names(target, USERS).keys() == {"users2", "b"}


def test_a_parked_delete_takes_its_children_with_it_later(place: Place) -> None:
    """A row that only the target has prevents it; what the source's foreign key took does not."""
    target = place.target(parked_limit=10)
    target.prepare([USERS, ORDERS])
    stream = Stream()
    deliver(target, stream.batch(user(1), of(ORDERS, 1, 1)))
    ((own,),) = place.query("select id from users")
    kind = "bigint" if place.is_mysql else "int"
    key = "foreign key (user_id) references users (id)"
    place.execute(
        f"create table ours (id int primary key, user_id {kind}, {key})",
        f"insert into ours values (1, {own})",
    )
    again = place.target(parked_limit=10)
    deliver(again, stream.batch(gone(USERS, 1)))
    assert [change.reason for change in again.parked()] == ["referenced"]
    assert names(again, ORDERS).keys() == {"orders1"}
    place.execute("delete from ours")
    deliver(again, stream.batch(user(2)))
    assert again.parked() == []
    assert names(again, USERS).keys() == {"users2"}
    assert names(again, ORDERS) == {}
