"""SQLite files as test databases, with connections like the servers' drivers give."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.services.database import Database
from tests.services.server import Server

SQLITE = Server(kind="sqlite", url="sqlite:")
"""No server at all: what `fresh` makes a database for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFile(Database):
    """One file; its server's url is the whole url."""

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self) -> Any:
        path = self.url.removeprefix("sqlite:///")
        return sqlite3.connect(path, isolation_level=None, factory=_Connection)


class _Cursor(sqlite3.Cursor):
    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, sql: str, params: Any = None) -> _Cursor:
        super().execute(sql, params or ())
        return self


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


@contextlib.contextmanager
def fresh() -> Iterator[Database]:
    """A file that is not there yet, in a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="headwater-sqlite-") as folder:
        server = Server(kind="sqlite", url=f"sqlite:///{folder}/target.db")
        yield SqliteFile(server=server, name="main")
