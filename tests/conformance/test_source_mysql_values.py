"""H135: a value is the same bytes on the wire whether it came by the stream or by a chunk.

The chunk's bytes are the server's own text, so the stream's decoder is compared with SELECT.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from schemas.errors import Unsupported
from schemas.selection import Selection
from tests.conformance.mysql_values import Column, corner_tables, random_tables
from tests.conformance.sources import Tap, afters, mysql_source, whole
from tests.services.database import Database

KINDS = ("mysql", "mariadb")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param}_db")
    return found


def create(database: Database, name: str, columns: list[Column]) -> None:
    body = ", ".join(f"`{column}` {kind}" for column, kind, _ in columns)
    database.execute(
        f"create table {name} (id int primary key auto_increment, sync_id varchar(40) not null "
        f"unique, {body}) default charset utf8mb4"
    )


def fill(database: Database, name: str, columns: list[Column]) -> None:
    """One row for each nth value of all columns, and one of NULLs."""
    names = ", ".join(f"`{column}`" for column, _, _ in columns)
    longest = max(len(values) for _, _, values in columns)
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("set sql_mode = '', time_zone = '-07:00'")
        for n in range(longest):
            literals = ", ".join(values[n % len(values)] for _, _, values in columns)
            cursor.execute(f"insert into {name} (sync_id, {names}) values ('k{n}', {literals})")
        cursor.execute(f"insert into {name} (sync_id) values ('null')")
        cursor.execute(f"update {name} set id = id + 100000")


def assert_parity(database: Database, tables: dict[str, list[Column]]) -> None:
    for name, columns in tables.items():
        create(database, name, columns)
    with Tap(mysql_source(database)) as tap:
        for name, columns in tables.items():
            fill(database, name, columns)
        tap.drain()
        streamed: dict[str, dict[bytes, str]] = {name: {} for name in tables}
        for batch in tap.batches:
            for rows in (r for piece in batch for r in piece.rows):
                for op, key, value in zip(rows.ops, rows.keys, rows.values, strict=True):
                    text = value.decode()
                    after = text[text.rindex('"after":') + 8 : text.rindex(f',"op":"{op}"')]
                    streamed[rows.table.name][key] = after
        described = {t.name: t for t in tap.source.describe()}
        for name in tables:
            chunk = whole(tap.source, described[name])
            copied = dict(zip(chunk.keys, afters(chunk), strict=True))
            assert copied.keys() == streamed[name].keys()
            for key, image in copied.items():
                assert streamed[name][key] == image, f"{name} {key!r}"
            prints = {r.table.fingerprint for b in tap.batches for p in b for r in p.rows}
            assert described[name].fingerprint in prints


def test_every_corner_value_is_the_same_by_stream_and_by_chunk(database: Database) -> None:
    """H25, H26, H28, H30, H31, H33, H135, and MariaDB's UUIDs of every version and variant."""
    kind = "mariadb" if "MariaDB" in str(database.query("select version()")) else "mysql"
    assert_parity(database, corner_tables(kind))


@pytest.mark.parametrize("seed", [1, 2])
def test_random_values_are_the_same_by_stream_and_by_chunk(database: Database, seed: int) -> None:
    """H28, H33, H135."""
    assert_parity(database, random_tables(seed))


def test_values_are_what_the_wire_form_says(database: Database) -> None:
    """H25, H26, H28, H30: fixed expectations, so that parity alone cannot hide a common error."""
    database.execute(
        "create table t (id int primary key, sync_id varchar(9) not null, t time(6),"
        " dt datetime(6), ts timestamp(6) null, da date, d decimal(5,3), e enum('a','b'),"
        " b tinyint(1), x binary(2))"
    )
    with Tap(mysql_source(database)) as tap:
        with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set sql_mode = '', time_zone = '+02:00'")
            cursor.execute(
                "insert into t values (1, 'a', '-838:59:58.9', '2026-01-02 03:04:05.120',"
                " '2026-01-02 03:04:05', '0000-00-00', -0.5, 0, 7, x'01')"
            )
        (change,) = tap.drain()
    assert change.after == {
        "id": 1,
        "sync_id": "a",
        "t": "-838:59:58.9",
        "dt": "2026-01-02T03:04:05.12",
        "ts": "2026-01-02T01:04:05Z",
        "da": "0000-00-00",
        "d": "-0.500",
        "e": "",
        "b": 7,
        "x": "AQA=",
    }


def unsupported(kind: str) -> list[tuple[str, str]]:
    common = [("year", "2020"), ("bit(9)", "3"), ("set('a','b')", "'a'")]
    if kind == "mysql":
        return [*common, ("point", "point(1,2)"), ("vector(2)", "string_to_vector('[1,2]')")]
    return [*common, ("point", "point(1,2)"), ("inet6", "'::1'"), ("inet4", "'1.2.3.4'")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_that_is_not_carried_is_refused_by_name_or_excluded(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """H23, H35: nothing is guessed; excluding the column lets the table through."""
    database: Database = request.getfixturevalue(f"{kind}_db")
    for n, (column, _) in enumerate(unsupported(kind)):
        database.execute(
            f"create table t{n} (id int primary key, sync_id varchar(9) not null unique,"
            f" odd {column}, last int unsigned)"
        )
    source = mysql_source(database)
    found = {f.where for f in source.check()}
    assert found == {f"{database.name}.t{n}.odd" for n in range(len(unsupported(kind)))}
    with pytest.raises(Unsupported, match=r"column .*\.t0\.odd of type"):
        source.describe()
    without = Selection(include=[f"{database.name}.*"], exclude_columns=["*.odd"])
    with Tap(mysql_source(database, selection=without)) as tap:
        for n, (_, value) in enumerate(unsupported(kind)):
            database.execute(f"insert into t{n} values (1, 'a', {value}, 4294967295)")
        expected: dict[str, Any] = {"id": 1, "sync_id": "a", "last": 4294967295}
        assert [c.after for c in tap.drain()] == [expected] * len(unsupported(kind))
    for n, (_, value) in enumerate(unsupported(kind)):
        only = Selection(include=[f"{database.name}.t{n}"])
        with Tap(mysql_source(database, selection=only)) as tap:
            database.execute(f"insert into t{n} values (2, 'b', {value}, 1)")
            with pytest.raises(Unsupported, match=rf"column .*\.t{n}\.odd of a type"):
                tap.drain()
