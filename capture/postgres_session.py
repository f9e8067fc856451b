"""An ordinary connection to a PostgreSQL source: how it is opened, and what its errors mean here.

Opened at the first statement and again after it broke. It never writes a row of the user's.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg import sql
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import make_url

from capture.postgres_errors import connection_error, first_line
from schemas.errors import HeadwaterError, Misconfigured, Transient
from schemas.postgres_text import SESSION

_SETTINGS = {
    "search_path": "",  # type names are then printed with their schema
    "row_security": "off",  # a policy that hides rows becomes an error
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "local",  # for postgres_chunk.nudge: flushed, no standby waited for
    "enable_sort": "off",  # a page comes by the index, never by a sort of the whole table
    "jit": "off",  # which would compile for longer than a page takes
}
_WAL_SETTINGS = {
    # A log that takes no rows for hours must hold the server's sender back, not end it. That a
    # dead capture still frees the slot is left to TCP keepalives, which the kernel answers. Not 0:
    # without a timeout the sender looks for replies after every single row (walsender.c,
    # WalSndWriteData).
    "wal_sender_timeout": "1d",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}
_TRANSIENT_CLASSES = ("08", "53", "57")
_SETTING_STATES = ("55000", "53400")
"""wal_level too low, no free replication slot."""
_TRANSIENT_STATES = ("40001", "40P01", "55P03")


def quoted(name: str) -> str:
    """A name as SQL text."""
    return sql.Identifier(name).as_string()


def conninfo(url: str, name: str, *, replication: bool = False, read_only: bool = False) -> str:
    """A libpq connection string for `url`, with the settings that every session of ours needs."""
    parsed = make_url(url)
    given: dict[str, Any] = parsed.translate_connect_args(username="user", database="dbname")
    given |= {k: v for k, v in parsed.query.items() if isinstance(v, str)}
    settings = {k: v for k, v in SESSION.items() if k != "client_encoding"}
    settings |= _WAL_SETTINGS if replication else _SETTINGS
    if read_only:
        settings |= {"default_transaction_read_only": "on"}
    options = " ".join(f"-c {k}={v.replace(' ', chr(92) + ' ')}" for k, v in settings.items())
    given["options"] = f"{given.get('options', '')} {options}".strip()
    given.setdefault("connect_timeout", "10")
    given |= {"client_encoding": "UTF8", "application_name": f"headwater {name}"}
    if replication:
        given["replication"] = "database"
    return str(make_dsn(**given))


class Session:
    """One autocommit connection; every method raises schemas.errors for what drivers report."""

    def __init__(self, url: str, name: str, *, read_only: bool = False) -> None:
        self._conninfo = conninfo(url, name, read_only=read_only)
        self._connection: Any = None

    def query(self, statement: str, *params: object) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with self._cursor() as cursor:
            cursor.execute(statement, params or None)
            return list(cursor.fetchall()) if cursor.description else []

    def one(self, statement: str, *params: object) -> Any:
        """The first column of the first row; None where there is no row."""
        rows = self.query(statement, *params)
        return rows[0][0] if rows else None

    def copy(self, statement: str) -> bytes:
        """The output of COPY (statement) TO STDOUT, in COPY's text format."""
        out = io.BytesIO()
        with self._cursor() as cursor:
            cursor.copy_expert(f"COPY ({statement}) TO STDOUT", out)
        return out.getvalue()

    def literal(self, text: str | None) -> str:
        """The text, or NULL, as an SQL literal, for statements that take no parameters."""
        with self._cursor() as cursor:
            return str(cursor.mogrify("%s", (text,)).decode())

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """A read-only transaction whose statements all see what its first one saw."""
        self.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
            self.query("COMMIT")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; idempotent, and the next statement opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._conninfo)
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            mapped = _mapped(error, connected=self._connection is not None)
            if mapped is None:
                raise
            self.close()
            raise mapped from error


def _mapped(error: psycopg2.Error, *, connected: bool) -> HeadwaterError | None:
    state = error.pgcode or ""
    if not connected:
        return connection_error(str(error))
    text = first_line(str(error))
    if state in _SETTING_STATES:
        return Misconfigured(
            f"was refused by PostgreSQL: {text}", hint="run headwater preflight for this source"
        )
    lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) and not state
    if lost or state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES:
        return Transient(f"lost the connection to PostgreSQL: {text}")
    if state in ("42501", "25006"):  # denied; or a transaction that may only read
        return Misconfigured(
            f"was not allowed by PostgreSQL: {text}", hint="grant it to the source's user"
        )
    if state in ("42P01", "42703"):
        return Transient(f"found a table changed since it was described: {text}")
    return None
