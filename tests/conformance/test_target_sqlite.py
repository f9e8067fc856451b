"""SQLite as a target: what only SQLite does, and would do to a row without a word."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apply.sqlite import SqliteServer, SqliteTarget
from apply.target import Placement
from schemas.errors import Misconfigured, Poison, SchemaConflict
from schemas.kinds import Kind
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
from tests.conformance.test_target_values import everything, rows

__all__ = ["place"]

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)

ITEMS = table("items", column("name"), column("price", INT))
MAILS = table("mails", column("email"), uniques=(("email",),))
USERS = table("users", column("name"))
ORDERS = table("orders", column("user_id", INT), foreign_keys=(foreign_key("user_id", "users"),))
DECIMAL = Kind(name="decimal", precision=10, scale=2)
UNSIGNED = Kind(name="int", bits=64, unsigned=True)
DOUBLE = Kind(name="float", bits=64)


def test_each_kind_is_stored_in_a_form_that_keeps_it(place: Place) -> None:
    """A number beyond 64 bits with a sign never becomes a float."""
    source, stream, target = everything("postgres"), Stream(), place.target()
    target.prepare([source])
    deliver(target, stream.batch(*(c(source, **row) for row in rows())))
    assert place.query("select strict from pragma_table_list where name = 'everything'") == [(1,)]
    forms = {"u64": "text", "i64": "integer", "money": "text", "f64": "real", "flag": "integer"}
    forms |= {"bytes": "blob", "clock": "text", "document": "text", "uuid": "text"}
    for name, form in forms.items():
        found = place.query(f'select distinct typeof("{name}") from everything')
        assert set(found) == {(form,), ("null",)}, name
    assert (str(2**64 - 1),) in place.query("select u64 from everything")


@pytest.mark.parametrize(
    ("kind", "native"),
    [
        (DECIMAL, "decimal(10,2)"),
        (Kind(name="text"), "string"),
        (Kind(name="json"), "json"),
        (Kind(name="text"), "datetime"),
        (Kind(name="int", bits=64), "double"),
        (UNSIGNED, "integer"),
        (Kind(name="binary"), "text"),
    ],
)
def test_a_declared_type_that_would_change_a_value_is_refused(
    place: Place, kind: Kind, native: str
) -> None:
    place.execute(f"create table items (id integer primary key, sync_id text unique, v {native})")
    with pytest.raises(SchemaConflict, match=re.escape(native)) as caught:
        place.target().prepare([table("items", column("v", kind))])
    assert "items.v" in str(caught.value)
    # What it would do.
    place.execute("insert into items (v) values ('1.50')")
    if native in ("decimal(10,2)", "string", "json", "datetime"):
        assert place.query("select v from items") == [(1.5,)]


def test_dates_and_times_are_kept_in_columns_of_their_names(place: Place) -> None:
    place.execute(
        "create table items (id integer primary key, sync_id char(36) unique, day date, hour time,"
        " clock datetime, instant timestamp(6), flag boolean)"
    )
    kinds = {"day": "date", "hour": "time", "clock": "datetime", "instant": "timestamp"}
    columns = [column(name, Kind(name=kind)) for name, kind in kinds.items()]  # type: ignore[arg-type]
    source = table("items", *columns, column("flag", Kind(name="bool")))
    row = {"day": "infinity", "hour": "24:00:00", "clock": "0044-03-15T12:00:00 BC"}
    row |= {"instant": "2026-11-22T12:34:56.789Z"}
    target, stream = place.target(), Stream()
    target.prepare([source])
    deliver(target, stream.batch(c(source, id=1, sync_id="a", flag=True, **row)))
    assert held(target, source) == [{"sync_id": "a", "flag": 1, **row}]


@pytest.mark.parametrize(("collation", "other"), [("nocase", "A"), ("rtrim", "a ")])
def test_what_only_a_collation_takes_for_one_is_another_row(
    place: Place, collation: str, other: str
) -> None:
    place.execute(
        f"create table items (id integer primary key, sync_id text collate {collation} unique, "
        "name text, price int)",
        f"insert into items (sync_id, name) values ('{other}', 'mine')",
    )
    target, stream = place.target(), Stream()
    target.prepare([ITEMS])
    deliver(target, stream.batch(d(ITEMS, id=1, sync_id="a")))
    with pytest.raises(Poison, match="UNIQUE"):
        deliver(target, stream.batch(u(ITEMS, id=1, sync_id="a", name="theirs", price=1)))
    assert place.query("select sync_id, name from items") == [(other, "mine")]


def test_a_tables_own_on_conflict_takes_no_row(place: Place) -> None:
    """T3: REPLACE would delete the local row, IGNORE would leave out the source's."""
    place.execute(
        "create table mails (id integer primary key, sync_id text unique on conflict ignore, "
        "email text unique on conflict replace)",
        "insert into mails (email) values ('taken')",
    )
    target, stream = place.target(), Stream()
    target.prepare([MAILS])
    for email in ("a", "b"):
        deliver(target, stream.batch(c(MAILS, id=1, sync_id="x", email=email)))
    for change in (
        c(MAILS, id=2, sync_id="y", email="taken"),
        u(MAILS, sync_id="x", email="taken"),
    ):
        with pytest.raises(Poison, match="ordinal 0"):
            deliver(target, stream.batch(change))
    found = place.query("select sync_id, email from mails order by id")
    assert found == [(None, "taken"), ("x", "b")]


@pytest.mark.parametrize(
    "key", ["id int primary key", "id integer primary key desc", "id integer primary key"]
)
def test_a_primary_key_that_is_not_the_rowid_is_generated_by_nothing(
    place: Place, key: str
) -> None:
    """SQLite would put NULL into some of them."""
    body = "sync_id text unique, name text, price int"
    ending = "" if key != "id integer primary key" else " without rowid"
    place.execute(f"create table items ({key}, {body}){ending}")
    with pytest.raises(SchemaConflict, match="nothing generates its values"):
        place.target().prepare([ITEMS])
    stream, target = Stream(), place.target(primary_keys="copy")
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=7, sync_id="a", name="A", price=1)))
    deliver(target, stream.batch(d(ITEMS, id=7, sync_id="a")))
    assert held(target, ITEMS) == []


def test_primary_keys_of_our_own_may_be_uuids(place: Place) -> None:
    uuid = column("id", Kind(name="uuid"), nullable=False)
    things = replace(ITEMS, name="things", columns=(uuid, *ITEMS.columns[1:3]))
    stream, target = Stream(), place.target()
    target.prepare([things])
    deliver(target, stream.batch(*(c(things, id="x", sync_id=n, name=n) for n in "ab")))
    keys = [key for (key,) in place.query("select id from things")]
    assert len(set(keys)) == 2
    form = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(form, key) for key in keys)


def test_tables_that_differ_by_case_only_are_refused(place: Place) -> None:
    with pytest.raises(SchemaConflict, match=r"would receive both app\..sers and app\..sers"):
        place.target().prepare([USERS, table("Users", column("name"))])


def test_a_foreign_key_in_other_letters_is_one(place: Place) -> None:
    """A cascade never takes a row that moved, whatever the reference is spelled like."""
    place.execute(
        "create table Users (id integer primary key, sync_id text unique, name text)",
        "create table Orders (id integer primary key, sync_id text unique, "
        "user_id int references USERS (ID) on delete cascade)",
    )
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(
        target,
        stream.batch(
            *(c(USERS, id=n, sync_id=name, name=name) for n, name in enumerate("ab")),
            c(ORDERS, id=1, sync_id="o", user_id=0),
        ),
    )
    deliver(
        target,
        stream.batch(u(ORDERS, id=1, sync_id="o", user_id=1), d(USERS, id=0, sync_id="a")),
    )
    assert [row["user_id"] for row in held(target, ORDERS)] == ['{"sync_id":"b"}']


def test_a_deferred_foreign_key_that_fails_at_commit_is_poison(place: Place) -> None:
    place.execute(
        "create table users (id integer primary key, sync_id text unique, name text)",
        "create table orders (id integer primary key, sync_id text unique, "
        "user_id int references users (id) deferrable initially deferred)",
    )
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(c(USERS, id=1, sync_id="a", name="A")))
    place.execute("insert into orders (user_id) select id from users")
    with pytest.raises(Poison):
        deliver(target, stream.batch(d(USERS, id=1, sync_id="a")))
    assert len(held(target, USERS)) == 1


def test_foreign_keys_of_tables_that_we_make_are_enforced_and_indexed(place: Place) -> None:
    target = place.target()
    target.prepare([ORDERS, USERS])
    assert place.foreign_keys() == 1
    assert place.query("select name from pragma_index_info('orders.user_id')") == [("user_id",)]


@pytest.mark.parametrize("value", ["NaN", -0.0])
def test_floats_that_sqlite_changes_are_refused_by_the_columns_name(
    place: Place, value: Any
) -> None:
    """It stores NULL for what is not a number, and 0 for -0."""
    source = table("items", column("ratio", DOUBLE))
    stream, target = Stream(), place.target()
    target.prepare([source])
    with pytest.raises(Poison, match=r"app.items.ratio exactly .batch 1, ordinal 1"):
        deliver(
            target,
            stream.batch(
                c(source, id=1, sync_id="a", ratio=0.1), c(source, id=2, sync_id="b", ratio=value)
            ),
        )
    for number in (0.1, 1e22, 5e-324):
        deliver(target, stream.batch(c(source, id=1, sync_id=str(number), ratio=number)))
    assert {row["ratio"] for row in held(target, source)} == {"0.1", "1e+22", "5e-324"}


def test_readers_and_a_writer_do_not_wait_for_each_other(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    batch = stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1))
    with closing(place.database.connect()) as other:
        other.execute("begin")
        assert other.execute("select count(*) from items").fetchone() == (0,)
        deliver(target, batch)
        assert other.execute("select count(*) from items").fetchone() == (0,)
        other.execute("commit")
        other.execute("begin immediate")
        assert place.target().checkpoint() == batch.offset
        assert len(held(place.target(), ITEMS)) == 1


def test_what_looks_changes_nothing_and_commits_are_durable(place: Place) -> None:
    place.execute(f"create table items (id {place.serial})")
    with pytest.raises(SchemaConflict):
        place.target().prepare([ITEMS], dry_run=True)
    assert place.target().check([ITEMS])
    assert place.query("pragma journal_mode") == [("delete",)]
    place.target().prepare([])
    assert place.query("pragma journal_mode") == [("wal",)]
    with SqliteServer(place.database.url).engine.connect() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
        assert connection.exec_driver_sql("pragma foreign_keys").scalar() == 1


def test_a_file_that_cannot_be_a_target_says_so(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def target(url: str) -> SqliteTarget:
        return SqliteTarget("t", url, "shop", Placement())

    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(Misconfigured, match="no file"):
            target(url)
    with pytest.raises(Misconfigured, match="CANTOPEN"):
        target(f"sqlite:///{tmp_path}/missing/file.db").prepare([ITEMS])
    other = tmp_path / "other.txt"
    other.write_text("no database " * 200)
    with pytest.raises(Misconfigured, match="NOTADB"):
        target(f"sqlite:///{other}").prepare([ITEMS])
    monkeypatch.setattr("apply.sqlite.OLDEST", (99, 0))
    with pytest.raises(Misconfigured, match="cannot be a target") as caught:
        target(place.database.url)
    assert "sqlite3.sqlite_version" in caught.value.hint
