"""Every source: identities that are derived of a natural key, which no database holds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid5

import orjson
import pytest

from capture.derived import deriving
from capture.source import Chunk, Source
from schemas.derived import NAMESPACE
from schemas.errors import Misconfigured, Poison
from schemas.selection import Derived, Selection
from tests.conformance.sources import MAKERS, Change, Tap, whole
from tests.services.database import Database

# The same values on each server, in types of its own.
TABLES = {
    "mysql": "create table prices (id int primary key, country char(4) not null, article"
    " decimal(9,2) not null, day date not null, price int, unique (country, article, day))",
    "postgres": "create table prices (id bigint primary key, country char(4) not null, article"
    " int not null, day date not null, price int, unique (country, article, day))",
}
TABLES["mariadb"] = TABLES["mysql"]


@pytest.fixture(params=MAKERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> Database:
    made: Database = request.getfixturevalue(f"{server}_db")
    made.execute(TABLES[server])
    return made


def derived(server: str, database: Database, of: str | Sequence[str], **more: object) -> Source:
    schema = "public" if server == "postgres" else database.name
    selection = Selection(include=[f"{schema}.*"], identity={"*": Derived(of)})
    return deriving(MAKERS[server](database, selection=selection, **more))


KEY = ("country", "article", "day")


def named(country: str, article: str, day: str = "2026-11-22") -> str:
    parts = "".join(f"{len(p.encode())}:{p}" for p in ("prices", country, article, day))
    return str(uuid5(NAMESPACE, parts))


def test_a_row_has_one_identity_however_it_is_read(server: str, database: Database) -> None:
    """T1: in chunks, in the stream, and asked for; the same of every server. T5: a changed key is
    another row.
    """
    database.execute("insert into prices values (1, 'äß', 7, '2026-11-22', 10)")
    database.execute("insert into prices values (2, 'de', 8, '2026-11-22', 10)")
    source = derived(server, database, KEY)
    source.prepare()
    first, second = named("äß", "7"), named("de", "8")
    with Tap(source) as tap:
        (table,) = source.describe()
        assert (table.identity, table.derived_from) == (("sync_id",), KEY)
        chunk = whole(source, table)
        keys = {orjson.dumps({"sync_id": one}) for one in (first, second)}
        assert {*chunk.keys} == keys
        assert chunk.table == table
        # What seeds are made of.
        pairs = dict(zip(chunk.source_keys(), chunk.keys, strict=True))
        assert pairs[1] == orjson.dumps({"sync_id": first})

        other = named("no", "7")
        asked = [orjson.dumps({"sync_id": one}) for one in (second, other)]
        found = source.chunk_of(table, asked, epoch=1, run=1)
        assert found.keys == asked[:1]
        assert orjson.loads(found.values[0])["after"]["sync_id"] == second

        database.execute("update prices set price = 11 where id = 2")
        database.execute("update prices set id = 3 where id = 2")
        database.execute("update prices set article = 9 where id = 3")
        database.execute("delete from prices where id = 3")
        database.execute("insert into prices values (4, 'de', 8, '2026-11-22', 10)")
        changes = tap.drain()
        third = named("de", "9")
        assert [(c.op, c.key["sync_id"]) for c in changes] == [
            ("u", second), ("u", second), ("d", second), ("c", third), ("d", third), ("c", second),
        ]  # fmt: skip
        for change in changes:
            for row in (change.before, change.after):
                assert row is None or row["sync_id"] == change.key["sync_id"]
        for batch in tap.batches:
            for piece in batch:
                assert all(rows.table.identity == ("sync_id",) for rows in piece.rows)


def test_an_update_of_an_identity_says_that_it_was_one(server: str, database: Database) -> None:
    """T5, T6: a row that moved to another identity is told from one that was deleted."""
    database.execute("insert into prices values (1, 'de', 7, '2026-11-22', 10)")
    source = derived(server, database, KEY)
    source.prepare()
    with Tap(source) as tap:
        database.execute("update prices set article = 8")
        database.execute("delete from prices")
        tap.drain()
        rows = [r for batch in tap.batches for piece in batch for r in piece.rows]
        values = [v for r in rows for v in r.values]
        assert [b'"moved":true' in v for v in values] == [True, False, False]


def test_rows_that_are_asked_for_are_seen_no_later_than_their_keys_were_looked_for(
    server: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T60: a row that comes between the look and the read is not taken for one that is gone."""
    schema = "public" if server == "postgres" else database.name
    selection = Selection(include=[f"{schema}.*"], identity={"*": Derived(KEY)})
    inner = MAKERS[server](database, selection=selection)
    source, read = deriving(inner), inner.chunk_of
    source.prepare()

    def late(*given: Any, **more: Any) -> Chunk:
        database.execute("insert into prices values (1, 'de', 7, '2026-11-22', 10)")
        return read(*given, **more)

    monkeypatch.setattr(inner, "chunk_of", late)
    with Tap(source) as tap:
        (table,) = source.describe()
        asked = [orjson.dumps({"sync_id": named("de", "7")})]
        chunk = source.chunk_of(table, asked, epoch=1, run=1)
        assert chunk.keys == []
        (change,) = tap.drain()
        assert change.op == "c"
        marks = [m for b in tap.batches for piece in b if piece.commit for m in piece.commit.marks]
        assert marks
        assert not source.sees(chunk.seen, marks)
        assert source.sees(read(table.at_source, [], epoch=1, run=1).seen, marks)


def test_the_primary_key_identifies_too(server: str, database: Database) -> None:
    database.execute("insert into prices values (1, 'de', 7, '2026-11-22', 10)")
    with contextlib.closing(derived(server, database, "primary_key")) as source:
        source.prepare()
        assert source.check() == []
        (table,) = source.describe()
        assert table.derived_from == ("id",)
        assert len(whole(source, table).keys) == 1


def test_what_cannot_identify_is_refused(server: str, database: Database) -> None:
    """H106: duplicates, NULL, kinds that have no one text, a column that is there already."""

    def problems(*of: str) -> str:
        with contextlib.closing(derived(server, database, of)) as source:
            return " ".join(f.problem for f in source.check() if f.refused).lower()

    assert "uni" in problems("country")
    assert "null" in problems("country", "article", "day", "price")
    database.execute("create table ratios (id int primary key, r float not null unique)")
    with (
        contextlib.closing(derived(server, database, "r")) as source,
        pytest.raises(Misconfigured),
    ):
        source.describe()
    database.execute("drop table prices")
    with (
        contextlib.closing(derived(server, database, "r")) as source,
        pytest.raises(Misconfigured, match="of type float"),
    ):
        source.describe()
    database.execute("alter table ratios add column sync_id int")
    with (
        contextlib.closing(derived(server, database, "id")) as source,
        pytest.raises(Misconfigured, match="found a column sync_id"),
    ):
        source.describe()


def test_a_row_without_its_natural_key_stops_the_capture(server: str, database: Database) -> None:
    """H106: as with every identity, before anything of its batch is in the log."""
    database.execute("create table t (id int primary key, code varchar(9) unique)")
    if server == "postgres":
        database.execute("alter table t replica identity full")
    database.execute("drop table prices")
    source = derived(server, database, "code")
    source.prepare()
    with Tap(source) as tap:
        database.execute("insert into t values (1, 'a')")
        (change,) = tap.drain()
        assert isinstance(change, Change)
        database.execute("insert into t values (2, null)")
        with pytest.raises(Poison, match="t whose code is null"):
            tap.drain()
        (table,) = tap.source.describe()
        with pytest.raises(Poison, match="t whose code is null"):
            tap.source.chunk(table, None, 10, epoch=1, run=1)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_the_pages_sql_gives_the_same(server: str, database: Database) -> None:
    """docs/identity.md shows how a server computes it."""
    page = Path("docs/identity.md").read_text()
    sql = page.split("-- MariaDB, and MySQL where it has SHA1()\n")[1].split("```")[0]
    database.execute("create table users (id int primary key, email varchar(80) not null unique)")
    database.execute("insert into users values (1, 'ann@example.org'), (2, 'bjørn@example.org')")
    selection = Selection(include=[f"{database.name}.users"], identity={"*": Derived("email")})
    with contextlib.closing(deriving(MAKERS[server](database, selection=selection))) as source:
        (table,) = source.describe()
        keys = whole(source, table).keys
    found = {row[-1] for row in database.query(sql)}
    assert found == {orjson.loads(key)["sync_id"] for key in keys}
