"""A database of its own for one test, on any of the SQL servers.

Invariant: nothing of it is left afterwards, whatever the test did: sessions are ended,
replication slots and the database dropped.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.services import mysql, postgres
from tests.services.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database; each call opens its own connection, so a server's restart disturbs none."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        return self.server.database_url(self.name)

    def connect(self) -> Any:
        """An autocommit connection (psycopg2 or PyMySQL), for sessions and transactions."""
        return _driver(self.server).connect(self.url)

    def execute(self, sql: str, *params: object) -> int:
        """Run one or more statements; return the row count of the last."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            count = cursor.rowcount
            # PyMySQL reports the error of a later statement only when asked for its result.
            while self.server.url.startswith("mysql") and cursor.nextset():
                count = cursor.rowcount
            return int(count)

    def query(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            return list(cursor.fetchall())


@contextlib.contextmanager
def fresh(server: Server) -> Iterator[Database]:
    """An empty database on `server`, dropped at the end."""
    if server.kind == "sqlite":
        from tests.services import sqlite

        with sqlite.fresh() as file:
            yield file
        return
    driver = _driver(server)
    name = f"t_{secrets.token_hex(5)}"
    with contextlib.closing(driver.connect(server.url)) as connection:
        connection.cursor().execute(f"create database {name}")
    try:
        yield Database(server=server, name=name)
    finally:
        driver.drop_database(server.url, name)


def _driver(server: Server) -> Any:
    return postgres if server.url.startswith("postgres") else mysql
