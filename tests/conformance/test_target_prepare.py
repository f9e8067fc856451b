"""Every target: what prepare creates, adopts, widens and refuses, all before anything is
written.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Poison, SchemaConflict
from schemas.kinds import Kind
from schemas.table import ForeignKey
from tests.conformance.targets import (
    INT,
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

ITEMS = table("items", column("name"), column("price", INT))
COLUMNS = "sync_id varchar(36) unique, name varchar(50), price int"


def refused(place: Place, of: Any = ITEMS, **placement: Any) -> SchemaConflict:
    """What prepare says, after which nothing may have changed."""
    before = place.tables()
    target = place.target(**placement)
    with pytest.raises(SchemaConflict) as caught:
        target.prepare([of])
    assert place.tables() == before
    assert [f for f in target.check([of]) if f.refused]
    assert caught.value.hint
    return caught.value


def test_a_dry_run_gives_the_statements_and_changes_nothing(place: Place) -> None:
    target = place.target()
    planned = target.prepare([ITEMS], dry_run=True)
    assert place.tables() == set()
    assert any("items" in statement for statement in planned)
    assert target.prepare([ITEMS]) == planned
    assert target.prepare([ITEMS]) == []
    assert target.check([ITEMS]) == []


def test_all_missing_columns_are_named_at_once(place: Place) -> None:
    place.execute(f"create table items (id {place.serial}, sync_id varchar(36) unique)")
    error = refused(place)
    assert "items.name is missing" in str(error)
    assert "items.price is missing" in str(error)


def test_an_identity_without_a_unique_index_is_refused(place: Place) -> None:
    place.execute(
        f"create table items (id {place.serial}, sync_id varchar(36), name varchar(50), price int)"
    )
    error = refused(place)
    assert "CREATE UNIQUE INDEX" in error.hint
    place.execute("create unique index items_sync_id on items (sync_id)")
    place.target().prepare([ITEMS])


def test_a_primary_key_that_nothing_generates_is_refused(place: Place) -> None:
    place.execute(f"create table items (id int primary key, {COLUMNS})")
    assert "nothing generates its values" in str(refused(place))
    place.target(primary_keys="copy").prepare([ITEMS])


def test_a_column_that_the_source_cannot_fill_is_refused(place: Place) -> None:
    place.execute(f"create table items (id {place.serial}, {COLUMNS}, owner int not null)")
    assert "items.owner is NOT NULL without a default" in str(refused(place))


NARROWER = [
    (Kind(name="decimal", precision=10, scale=2), "numeric(10,1)"),
    (Kind(name="decimal", precision=10, scale=2), "int"),
    (Kind(name="decimal", precision=12, scale=2), "numeric(11,2)"),
    (Kind(name="text", length=60), "int"),
    (Kind(name="datetime", fraction=6), "date"),
]
ENFORCED = [
    (Kind(name="int", bits=64), "int"),
    (Kind(name="int", bits=32, unsigned=True), "int"),
    (Kind(name="text", length=60), "varchar(50)"),
    (Kind(name="text"), "varchar(50)"),
    (Kind(name="time", fraction=6), "time(3)"),
    (Kind(name="timestamp", fraction=6), "timestamp(3)"),
    (Kind(name="float", bits=64), "real"),
]
"""Limits that SQLite's columns do not have, whatever they are called."""


@pytest.mark.parametrize(("kind", "native"), NARROWER + ENFORCED)
def test_a_narrower_column_is_refused(place: Place, kind: Kind, native: str) -> None:
    if place.is_mysql and native == "real":
        native = "float"
    null = " null" if native.startswith("timestamp") else ""
    place.execute(
        f"create table items (id {place.serial}, sync_id varchar(36) unique, v {native}{null})"
    )
    source = table("items", column("v", kind))
    if place.is_sqlite and (kind, native) in ENFORCED:
        place.target().prepare([source])
    else:
        assert "items.v " in str(refused(place, source))


def test_columns_of_other_types_take_what_fits(place: Place) -> None:
    """Differently typed columns of an adopted table; the row that does not fit is named."""
    uuid = "uuid" if place.kind in ("postgres", "mariadb") else "char(36)"
    place.execute(
        f"create table items (id {place.serial}, sync_id {uuid} unique, name text, "
        "price numeric(20,3))"
    )
    ids = ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"]
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    batch = stream.batch(*(c(ITEMS, id=1, sync_id=i, name="A", price=-7) for i in ids))
    deliver(target, batch)
    deliver(target, stream.batch(u(ITEMS, id=1, sync_id=ids[0], name="B", price=8)))
    assert [tuple(row.values()) for row in held(target, ITEMS)] == [
        (ids[0], "B", 8),
        (ids[1], "A", -7),
    ]
    if uuid == "uuid":
        with pytest.raises(Poison, match=r"app.items.sync_id exactly .batch 3, ordinal 0"):
            deliver(target, stream.batch(c(ITEMS, id=1, sync_id="no uuid", name="C", price=1)))


def test_mapped_and_excluded_names(place: Place) -> None:
    target = place.target(tables={"app.items": "things"}, exclude_columns=["app.*.price"])
    target.prepare([ITEMS])
    deliver(target, Stream().batch(c(ITEMS, id=1, sync_id="a", name="A", price=1)))
    assert place.query("select sync_id, name from things") == [("a", "A")]


def test_a_table_is_not_created_where_that_is_not_wanted(place: Place) -> None:
    assert "is missing" in str(refused(place, create=False))


def test_names_are_quoted(place: Place) -> None:
    odd = table('order "x" `y` 50%', column("select"), column("a b%c"), column("hw_x"))
    stream, target = Stream(), place.target()
    target.prepare([odd])
    row: dict[str, Any] = {"id": 1, "sync_id": "a", "select": "1", "a b%c": "2", "hw_x": "3"}
    deliver(target, stream.batch(c(odd, **row)))
    deliver(target, stream.batch(u(odd, **(row | {"select": "4"}))))
    assert held(target, odd) == [{"sync_id": "a", "select": "4", "a b%c": "2", "hw_x": "3"}]


def test_a_new_column_widens_a_table_that_we_made(place: Place) -> None:
    """T98, H111: found while applying; one transaction's rows may have both descriptions."""
    wider = table("items", column("name"), column("price", INT), column("added"))
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1),
            c(wider, id=2, sync_id="b", name="B", price=1, added="new"),
            u(wider, id=1, sync_id="a", name="A", price=2, added="later"),
        ),
    )
    assert [tuple(row.values()) for row in held(target, wider)] == [
        ("a", "A", 2, "later"),
        ("b", "B", 1, "new"),
    ]


def test_a_new_column_is_reported_on_a_table_that_was_there(place: Place) -> None:
    place.execute(f"create table items (id {place.serial}, {COLUMNS})")
    wider = table("items", column("name"), column("price", INT), column("added"))
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    with pytest.raises(SchemaConflict, match=r"items.added is missing"):
        deliver(target, stream.batch(c(wider, id=2, sync_id="b", name="B", price=1, added="new")))
    assert target.checkpoint() is None


def test_a_dropped_column_keeps_the_targets_values(place: Place) -> None:
    narrower = table("items", column("name"))
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1)))
    deliver(
        target,
        stream.batch(
            u(narrower, id=1, sync_id="a", name="B"), c(narrower, id=2, sync_id="b", name="C")
        ),
    )
    rows = place.query("select sync_id, name, price from items order by sync_id")
    assert rows == [("a", "B", 1), ("b", "C", None)]


def test_a_table_that_was_never_described_is_prepared_on_the_way(place: Place) -> None:
    target = place.target()
    target.prepare([])
    deliver(target, Stream().batch(c(ITEMS, id=1, sync_id="a", name="A", price=1)))
    assert held(target, ITEMS) == [{"sync_id": "a", "name": "A", "price": 1}]


def test_two_sources_may_share_a_target(place: Place) -> None:
    others = table("others", column("name"))
    first, second = place.target(), place.target("other")
    first.prepare([ITEMS])
    second.prepare([others])
    deliver(first, Stream().batch(c(ITEMS, id=1, sync_id="a", name="A", price=1)))
    deliver(second, Stream("other").batch(c(others, id=1, sync_id="a", name="A")))
    assert first.checkpoint() != second.checkpoint()
    assert len(held(second, others)) == 1


@pytest.mark.parametrize("prepared", ["before", "after"])
def test_one_batch_may_bring_a_table_before_and_after_its_alter(
    place: Place, prepared: str
) -> None:
    """H113, H115: each row is read under the description that it was written under."""
    before = table("users", column("name"))
    after = table("users", column("name"), column("mail"))
    stream, target = Stream(), place.target()
    target.prepare([before if prepared == "before" else after])
    deliver(
        target,
        stream.batch(
            c(before, id=1, sync_id="a", name="A"),
            c(before, id=2, sync_id="b", name="B"),
            c(after, id=3, sync_id="c", name="C", mail="c@x"),
            u(after, id=1, sync_id="a", name="A", mail="a@x"),
            d(after, sync_id="b"),
        ),
    )
    deliver(target, stream.batch(c(after, id=4, sync_id="d", name="D", mail="d@x")))
    found = place.query("select sync_id, name, mail from users order by sync_id")
    assert found == [("a", "A", "a@x"), ("c", "C", "c@x"), ("d", "D", "d@x")]


def test_names_that_would_collide_are_left_to_the_server(place: Place) -> None:
    """a.b_c and a_b.c; the same foreign key twice; one column with two."""
    parents = table("p")
    keys = (foreign_key("b_c", "p"), foreign_key("b_c", "p"))
    a = table("a", column("b_c", INT), foreign_keys=keys)
    a_b = table("a_b", column("c", INT), foreign_keys=(foreign_key("c", "p"),))
    target = place.target()
    target.prepare([parents, a, a_b])
    assert place.foreign_keys() == 2
    assert target.prepare([parents, a, a_b]) == []


def test_names_that_the_server_cannot_tell_apart_or_hold_are_refused(place: Place) -> None:
    long = "c" * 65
    assert f"items.{long} has a name longer than 6" in str(
        refused(place, table("items", column(long)))
    )
    assert "has a name longer than" in str(refused(place, table(long)))
    cases = table("items", column("A"), column("a"))
    if place.kind != "postgres":
        assert "items.a differs from A by case only" in str(refused(place, cases))
    else:
        place.target().prepare([cases])


def test_references_of_another_width_are_refused_where_no_foreign_key_joins_them(
    place: Place,
) -> None:
    """PostgreSQL joins an int to a bigint, SQLite has no others, MySQL and MariaDB do not."""
    codes = table("codes", column("code", Kind(name="int", bits=64)), uniques=(("code",),))
    key = ForeignKey(column="code", parent="app.codes", parent_column="code")
    uses = table("uses", column("code", INT), foreign_keys=(key,))
    if place.is_mysql:
        place.target().prepare([codes])
        target = place.target()
        with pytest.raises(SchemaConflict, match=r"uses.code would be int, .*is bigint"):
            target.prepare([codes, uses])
    else:
        place.target().prepare([codes, uses])
        assert place.foreign_keys() == 1


def test_what_the_server_refuses_is_reported_and_completed_later(place: Place) -> None:
    """The statement is named; on MySQL and MariaDB, what was begun gets its foreign key later."""
    place.execute(f"create table codes (id {place.serial}, sync_id varchar(36) unique, code text)")
    codes = table("codes", column("code"), uniques=(("code",),))
    key = ForeignKey(column="code", parent="app.codes", parent_column="code")
    uses = table("uses", column("code"), foreign_keys=(key,))
    target = place.target()
    # The parent's column has no unique key here, or no key at all: it cannot be referenced. SQLite
    # would only say so at the first row.
    says = r"ALTER TABLE .*uses.* FOREIGN KEY"
    says = r"codes.code is referenced by app.uses.code" if place.is_sqlite else says
    with pytest.raises(SchemaConflict, match=says) as caught:
        target.prepare([codes, uses])
    assert ("CREATE UNIQUE" if place.is_sqlite else "headwater prepare") in caught.value.hint
    if place.is_sqlite:
        place.target(exclude_columns=["app.uses.code"]).prepare([codes, uses], dry_run=True)
    place.execute(
        "drop table codes",
        f"create table codes (id {place.serial}, sync_id varchar(36) unique, "
        + (
            "code varchar(50) character set utf8mb4 collate "
            + ("utf8mb4_nopad_bin" if place.kind == "mariadb" else "utf8mb4_0900_bin")
            if place.is_mysql
            else "code varchar(50)"
        )
        + " unique)",
    )
    planned = target.prepare([codes, uses])
    assert any("FOREIGN KEY" in statement for statement in planned)
    assert place.foreign_keys() == 1
    assert target.prepare([codes, uses]) == []
