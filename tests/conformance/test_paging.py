"""Chunks over keys of every kind: each row once, in the order in which the source pages."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from capture import mysql_paging
from capture.source import Chunk, Source
from schemas.errors import Poison
from schemas.selection import Selection
from schemas.table import Table
from tests.conformance.sources import MAKERS, afters, whole
from tests.services.database import Database

TEXTS = ["'b'", "'B '", "'a'", "'Ä'", "'ä'", "''", "'z''\\\\'", "'ß'", "'ss'", "'🦊'", "'\t'"]
FOLDED = ["'b'", "'C'", "'a'", "'ö'", "'zz'", "'_'", "'Z'", "'e''\\\\'", "'😀'"]
MOMENTS = ["'2026-11-22 12:34:56.5'", "'2026-11-22 12:34:56.000001'", "'1970-01-02 00:00:01'"]
TIMES = ["'00:00:00'", "'12:34:56.789'", "'12:34:56.7'", "'23:59:59.999999'"]
DECIMALS = ["12345678901234567890.0001", "12345678901234567890.0002", "-1.5", "0", "-1.4999"]
FLOATS = ["1.1", "-0.1", "3e30", "1.10001", "0.1", "0", "16777216", "-3e-30"]
WHOLE = ["-9223372036854775808", "9223372036854775807", "0", "-1", "9007199254740993"]
UUIDS = [
    f"'{start}-9c0b-4ef8-bb6d-{end}'"
    for start in ("a0eebc99", "00000000", "a0eebc98")
    for end in ("6bb9bd380a11", "6bb9bd380a10")
]
KEYS = {
    "postgres": {
        "bigint": WHOLE,
        "text": TEXTS,
        'text COLLATE "C"': TEXTS,
        "text COLLATE ucs_basic": TEXTS,
        "character(5)": FOLDED,
        "uuid": UUIDS,
        "bytea": ["''", "'\\x00'", "'\\xff00'", "'\\x5c5c'", "'\\x7f'"],
        "public.mood": ["'sad'", "'it''s'", "'ok'"],
        "date": ["'2026-11-22'", "'0044-03-15 BC'", "'-infinity'", "'infinity'"],
        "time": [*TIMES, "'24:00:00'"],
        "timestamp": [*MOMENTS, "'0044-03-15 12:00 BC'", "'infinity'"],
        "timestamptz": [*MOMENTS, "'0044-03-15 12:00+00 BC'", "'-infinity'"],
        "numeric": [*DECIMALS, "'NaN'", "'Infinity'"],
        "real": [*FLOATS, "'NaN'", "'-Infinity'"],
        "double precision": [*FLOATS, "'NaN'", "'Infinity'"],
        "boolean": ["true", "false"],
    },
    "mysql": {
        "bigint": WHOLE,
        "bigint unsigned": ["18446744073709551615", "18446744073709551614", "0", "5"],
        "tinyint(1)": ["0", "1", "-7", "100"],
        "varchar(9) collate utf8mb4_bin": TEXTS,
        "varchar(9) collate utf8mb4_unicode_ci": FOLDED,
        "varchar(9) collate utf8mb4_general_ci": FOLDED[:-1],
        "varchar(9) character set latin1 collate latin1_swedish_ci": ["'b'", "'C'", "'ö'", "'z'"],
        "char(9) character set utf8mb3": ["'b'", "'C'", "'ö'", "'z\\\\'"],
        "binary(3)": ["x'00'", "x'ff00'", "x'5c27'", "x'7f'"],
        "varbinary(3)": ["x''", "x'00'", "x'0000'", "x'ff00'", "x'5c27'", "x'7f'"],
        "enum('z','a','m')": ["'a'", "'m'", "'z'", "'?'"],
        "date": ["'2026-11-22'", "'0000-00-00'", "'9999-12-31'"],
        "time(6)": [*TIMES, "'-838:59:59'", "'-00:00:00.1'", "'838:59:59'"],
        "datetime(6)": [*MOMENTS, "'0000-00-00 00:00:00'"],
        "timestamp(6)": [*MOMENTS, "'2038-01-19 03:14:07'"],
        "decimal(30,4)": DECIMALS,
        "float": FLOATS,
        "double": FLOATS,
    },
}
KEYS["mariadb"] = KEYS["mysql"] | {"uuid": UUIDS}
MOOD = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s')"


@pytest.fixture(params=MAKERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{server}_db")
    if server == "postgres":
        found.execute(MOOD)
    return found


@contextlib.contextmanager
def opened(server: str, database: Database) -> Iterator[Source]:
    include = ["public.*"] if server == "postgres" else [f"{database.name}.*"]
    selection = Selection(include=include, identity={"*": "primary_key"})
    with contextlib.closing(MAKERS[server](database, selection=selection)) as source:
        yield source


def tables(source: Source) -> dict[str, Table]:
    return {t.name: t for t in source.describe()}


def paged(
    source: Source, table: Table, rows: int, after: Any = None, until: Any = None
) -> list[Chunk]:
    """All chunks of a range. Each key goes through JSON, as it does in a commit record."""
    chunks = []
    while True:
        chunk = source.chunk(table, after, rows, until=until, epoch=1, run=2)
        assert chunk.after == after
        chunks.append(chunk)
        if chunk.next_key is None:
            assert chunk.until == until
            return chunks
        assert len(chunk.keys) == rows
        assert source.boundary(table, after, rows, until=until) == chunk.next_key == chunk.until
        after = json.loads(json.dumps(chunk.next_key))


def keys(chunks: list[Chunk]) -> list[bytes]:
    return [key for chunk in chunks for key in chunk.keys]


def assert_pages(source: Source, table: Table, count: int) -> None:
    full = whole(source, table)
    assert len(set(full.keys)) == count
    by_key = dict(zip(full.keys, afters(full), strict=True))
    for rows in (1, 2, 3):
        chunks = paged(source, table, rows)
        assert keys(chunks) == full.keys
        assert [a for chunk in chunks for a in afters(chunk)] == afters(full)
        assert source.boundary(table, chunks[-1].after, rows) in (None, chunks[-1].next_key)
    middle = source.boundary(table, None, count // 2)
    parts = [paged(source, table, 2, until=middle), paged(source, table, 2, after=middle)]
    assert list(map(keys, parts)) == [full.keys[: count // 2], full.keys[count // 2 :]]
    assert source.boundary(table, None, count, until=middle) is None
    asked = [*full.keys[1:], full.keys[-1]]
    listed = source.chunk_of(table, asked, epoch=1, run=2)
    assert (listed.after, listed.until, listed.next_key) == (None, None, None)
    assert sorted(listed.keys) == sorted(full.keys[1:])
    assert all(by_key[k] == a for k, a in zip(listed.keys, afters(listed), strict=True))


def test_a_table_is_paged_by_a_key_of_any_kind(server: str, database: Database) -> None:
    """T61: also by ranges and by listed rows, and where the key's order is not that of its text."""
    kinds = KEYS[server]
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        if server != "postgres":
            cursor.execute("set sql_mode = '', time_zone = '+00:00'")
        for n, (kind, values) in enumerate(kinds.items()):
            cursor.execute(f"create table t{n} (k {kind} not null primary key, v int)")
            for value in values:
                cursor.execute(f"insert into t{n} values ({value}, 1)")
        connection.commit()
    with opened(server, database) as source:
        described = tables(source)
        for n, (kind, values) in enumerate(kinds.items()):
            print(kind)
            assert_pages(source, described[f"t{n}"], len(values))


def test_a_table_is_paged_by_a_key_of_several_columns(server: str, database: Database) -> None:
    if server == "postgres":
        columns = "a text, b mood, c numeric"
    else:
        columns = (
            "a varchar(9) collate utf8mb4_unicode_ci, b enum('sad','ok','it''s'), c decimal(9,3)"
        )
    database.execute(f"create table t ({columns}, v int, primary key (b, a, c))")
    values = [(a, b, c) for a in ("b", "C", "Ä") for b in ("ok", "it''s", "sad") for c in (2, -10)]
    listed = ", ".join(f"('{a}', '{b}', {c}, 1)" for a, b, c in values)
    database.execute(f"insert into t values {listed}")
    with opened(server, database) as source:
        assert_pages(source, tables(source)["t"], len(values))


def test_a_listed_key_without_a_row_is_not_in_the_chunk(server: str, database: Database) -> None:
    database.execute("create table t (k varchar(9) not null primary key)")
    database.execute("insert into t values ('a'), ('b')")
    with opened(server, database) as source:
        table = tables(source)["t"]
        chunk = source.chunk_of(table, [b'{"k":"b"}', b'{"k":"c\'\\\\"}'], epoch=3, run=4)
        assert (chunk.keys, afters(chunk)) == ([b'{"k":"b"}'], ['{"k":"b"}'])
        assert source.chunk_of(table, [], epoch=3, run=4).keys == []
        assert source.reached(chunk.high, source.now()[0])


def test_an_empty_table_is_one_chunk(server: str, database: Database) -> None:
    """H131."""
    database.execute("create table t (k int not null primary key)")
    with opened(server, database) as source:
        table = tables(source)["t"]
        (chunk,) = paged(source, table, 2)
        assert (chunk.keys, chunk.values, chunk.size_bytes) == ([], [], 0)
        assert source.boundary(table, None, 1) is None


def test_a_row_that_no_page_would_show_is_refused(server: str, database: Database) -> None:
    """H106: a key that may be null, and is; not even the last range passes over it."""
    database.execute("create table t (sync_id varchar(9) unique, v int)")
    with contextlib.closing(MAKERS[server](database)) as source:
        table = tables(source)["t"]
        database.execute("insert into t values ('a', 1), ('b', 2)")
        assert len(keys(paged(source, table, 1))) == 2
        database.execute("insert into t values (null, 3)")
        with pytest.raises(Poison, match="t whose sync_id is null"):
            source.chunk(table, None, 9, until=["b"], epoch=1, run=1)


def test_the_servers_estimate_is_near_what_is_there(server: str, database: Database) -> None:
    database.execute("create table nothing (k int primary key)")
    database.execute("create table t (k int primary key, v text)")
    rows = ", ".join(f"({n}, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')" for n in range(5000))
    database.execute(f"insert into t values {rows}")
    database.execute("analyze t" if server == "postgres" else "analyze table t")
    with opened(server, database) as source:
        by_name = {t.name: source.estimate()[t.full_name] for t in tables(source).values()}
        assert by_name["nothing"] == 0
        assert 2500 <= by_name["t"] <= 10000


def test_threads_read_one_table_at_once(server: str, database: Database) -> None:
    """Each range is read whole, whoever reads beside it; a reader's error hurts no other."""
    database.execute("create table t (k int primary key, v text)")
    rows = ", ".join(f"({n}, 'v{n}')" for n in range(400))
    database.execute(f"insert into t values {rows}")
    database.execute("create table gone (k int primary key)")
    with opened(server, database) as source:
        described = tables(source)
        database.execute("drop table gone")
        ends = [None, *(source.boundary(described["t"], None, n) for n in (100, 200, 300)), None]
        found: list[list[bytes]] = [[] for _ in ends[1:]]
        failed: list[BaseException] = []

        def read(place: int) -> None:
            with contextlib.suppress(Exception):
                source.chunk(described["gone"], None, 1, epoch=1, run=1)
                failed.append(AssertionError("a table that is gone was read"))
            try:
                found[place] = keys(paged(source, described["t"], 7, ends[place], ends[place + 1]))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert [key for part in found for key in part] == whole(source, described["t"]).keys


def held(server: str, database: Database, source: Any) -> int:
    """How many of the source's connections have a transaction or a snapshot."""
    if server == "postgres":
        name = f"headwater {database.name}"
        sql = "select count(*) from pg_stat_activity where application_name = %s"
        return count(
            database, sql + " and (backend_xmin is not null or xact_start is not null)", name
        )
    ids = [connection.thread_id() for connection in source._connections._idle]
    assert ids
    sql = "select count(*) from information_schema.innodb_trx where trx_mysql_thread_id in %s"
    return count(database, sql, ids)


def count(database: Database, sql: str, *params: object) -> int:
    return int(database.query(sql, *params)[0][0])


def test_no_snapshot_is_held_between_two_chunks(server: str, database: Database) -> None:
    """H133: a copy of any length keeps the server from cleaning up for a chunk's read only."""
    database.execute("create table t (k int primary key)")
    database.execute("insert into t values (1), (2), (3)")
    with opened(server, database) as source:
        table = tables(source)["t"]
        for read in (
            lambda: source.chunk(table, None, 2, epoch=1, run=1),
            lambda: source.chunk_of(table, [b'{"k":2}'], epoch=1, run=1),
            lambda: source.boundary(table, None, 2),
            source.estimate,
        ):
            read()
            assert held(server, database, source) == 0


PLANS = {
    "postgres": "explain select * from t where (a, b) > ('x', 5000) order by a, b limit 100",
    "mysql": "explain format=traditional select * from t{} order by a, b limit 100",
    "mariadb": "explain select * from t{} order by a, b limit 100",
}


def test_a_page_begins_in_the_index_where_the_last_one_ended(
    server: str, database: Database
) -> None:
    """Or each page of a key of several columns would read all those before it again."""
    firsts = {"varchar(9)": "x"} | ({} if server == "postgres" else {"enum('x')": "1"})
    for kind, first in firsts.items():
        database.execute(f"create table t (a {kind}, b bigint, primary key (a, b))")
        rows = ", ".join(f"('x', {n})" for n in range(10_000))
        database.execute(f"insert into t values {rows}")
        database.execute("analyze t" if server == "postgres" else "analyze table t")
        with opened(server, database) as source:
            where = mysql_paging.within(tables(source)["t"], [first, "5000"], None)
        plan = str(database.query(PLANS[server].format(where)))
        if server == "postgres":
            assert "Index Cond: (ROW(a, b) > ROW(" in plan
        else:
            assert re.search(r"'range', 'PRIMARY', 'PRIMARY', '(46|9)',", plan), plan
        database.execute("drop table t")
