"""A source's stream alone: rows from the server to wire bytes, kept nowhere.

Beside it: for MySQL and MariaDB, python-mysql-replication's rows as it gives them (it decodes, and
encodes nothing); for PostgreSQL, psycopg2 receiving the same messages and not parsing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from bench import orders
from bench.measure import Clock, Figure, Sample, by_turns, compared, isolated
from bench.peer_mysql import mysql_replication, place
from bench.peer_postgres import copy_slot, psycopg2_messages
from bench.servers import database
from capture.mysql import MySQLSource
from capture.postgres import PostgresSource
from capture.source import Source
from schemas.change import Position, Stamp
from schemas.selection import Selection

ROWS = 100_000


def mysql(rows: int) -> Iterator[Figure]:
    return _binlog("mysql", rows)


def mariadb(rows: int) -> Iterator[Figure]:
    return _binlog("mariadb", rows)


def _binlog(kind: str, rows: int) -> Iterator[Figure]:
    with database(kind) as made:
        made.execute(orders.MYSQL)
        before, position = place(made.url), _position(kind, made.url, made.name)
        orders.fill(made, 1, rows)
        ours, theirs = by_turns(
            lambda _: [isolated(_stream, kind, made.url, made.name, position, rows)],
            lambda _: [isolated(mysql_replication, made.url, made.name, before, rows)],
        )
    yield compared(f"source-{kind}", "stream", ours, "python-mysql-replication", theirs)


def postgres(rows: int) -> Iterator[Figure]:
    with database("postgres") as made:
        made.execute(orders.POSTGRES)
        with closing(_source("postgres", made.url, made.name)) as source:
            source.prepare()
        orders.fill(made, 1, rows)
        slot = f"headwater_{made.name}"

        def peer(number: int) -> list[Sample]:
            own = copy_slot(made.url, slot, f"{slot}_{number}")
            return [isolated(psycopg2_messages, made.url, own, slot, rows)]

        ours, theirs = by_turns(
            lambda _: [isolated(_stream, "postgres", made.url, made.name, None, rows)], peer
        )
    yield compared("source-postgres", "stream", ours, "psycopg2 without parsing", theirs)


def _source(kind: str, url: str, name: str) -> Source:
    if kind == "postgres":
        return PostgresSource(name, url, Selection())
    return MySQLSource(name, url, Selection(include=[f"{name}.*"]))


def _position(kind: str, url: str, name: str) -> Position:
    with closing(_source(kind, url, name)) as source:
        return source.now()[0]


def _stream(kind: str, url: str, name: str, after: Position | None, rows: int) -> Sample:
    """Read until `rows` rows were given; connecting is part of it."""
    clock, seen = Clock(), 0
    with closing(_source(kind, url, name)) as source:
        pieces: Any = source.stream(after, Stamp(epoch=1))
        with closing(pieces):
            with clock:
                while seen < rows:
                    seen += sum(map(len, next(pieces).rows))
            return clock.sample(rows)
