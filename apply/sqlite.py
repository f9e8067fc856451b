"""SQLite as a target: one file, STRICT staging tables filled by executemany.

SQLite keeps what it is given, of any length, in one of four forms; a declared type is a wish
(https://sqlite.org/datatype3.html#determination_of_column_affinity). So a column's type here is
what it surely keeps, and STRICT tables refuse the rest. Not here: any statement that moves rows.
"""

import fcntl
import operator
import os
import re
import sqlite3
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from apply import ddl, fields, read_back, uuids
from apply.database import DatabaseTarget
from apply.fields import Fields, Lines
from apply.fit import family_of
from apply.server import DECLARED, DIRECT, Cause, Unstorable
from apply.target import Placement
from schemas.codec import float_fragment, quote
from schemas.errors import Misconfigured
from schemas.kinds import Kind
from schemas.table import Column, Table

OLDEST = (3, 37)
"""STRICT tables; UPDATE … FROM came in 3.33."""

BUSY_MS = 10_000
"""So long another program may write to the file; then the batch starts again later."""

UUID = (
    "DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || "
    "substr(hex(randomblob(2)), 2) || '-' || substr('89AB', 1 + (random() & 3), 1) || "
    "substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))))"
)
"""A random UUID (version 4)."""

# A lock is of the whole file, and anybody's: it says nothing of another applier.
_LOST = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_LOST |= {sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM}
_DENIED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_DENIED |= {sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_ROW = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH}
_UNIQUE = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}
_NAMING = _UNIQUE | {sqlite3.SQLITE_CONSTRAINT_NOTNULL, sqlite3.SQLITE_CONSTRAINT_CHECK}
_COLUMN = re.compile(r" column [^.]*\.(.*)$", re.DOTALL)


class Whole(sa.BigInteger):
    """Integers of 64 bits with a sign: all that SQLite has."""


@compiles(Whole, "sqlite")
def _whole(kind: Any, compiler: Any, **kw: Any) -> str:
    return "INTEGER"


class SqliteTarget(DatabaseTarget):
    """One SQLite file as a target."""

    def __init__(self, name: str, url: str, source_name: str, placement: Placement) -> None:
        if sa.make_url(url).database in (None, "", ":memory:"):
            raise Misconfigured(
                f"found no file in the url of target {name}",
                hint="end the url with its path: sqlite:///folder/file.db, or "
                "sqlite:////folder/file.db from the root",
            )
        if sqlite3.sqlite_version_info < OLDEST:
            raise Misconfigured(
                f"found SQLite {sqlite3.sqlite_version}, which cannot be a target",
                hint="run headwater with a Python whose sqlite3.sqlite_version is 3.37 or newer",
            )
        self._file = SqliteServer(url)
        super().__init__(name, self._file, source_name, placement)

    def prepare(self, tables: Sequence[Table], *, dry_run: bool = False) -> list[str]:
        """As every target's; and the file gets a write-ahead log, in which readers do not wait."""
        if not dry_run:
            with self._connected() as connection:
                self._file.run(connection, "PRAGMA journal_mode = WAL")
        return super().prepare(tables, dry_run=dry_run)

    def drop(self, *, dry_run: bool = False) -> list[str]:
        """As every target's; and the file by which appliers hold it goes too."""
        statements = super().drop(dry_run=dry_run)
        if not dry_run:
            self._file.held_by(self._source).unlink(missing_ok=True)
        return statements

    def close(self) -> None:
        super().close()
        self._file.let_go()


class SqliteServer:
    """Implements apply.server.Server."""

    is_mysql, is_sqlite = False, True

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(
            sa.make_url(url).set(drivername="sqlite+pysqlite"), poolclass=sa.pool.NullPool
        )
        self._held: int | None = None
        sa.event.listen(self.engine, "connect", _begin_session)
        # Not IMMEDIATE, so that status and verify take no write lock. Apply's first statement
        # writes: it waits for the lock before it has read anything that could be out of date.
        sa.event.listen(self.engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))

    def column_type(self, column: Column, family: str, *, key: bool) -> str:
        return ddl.sqlite_type(column.kind)

    def own_key(self, column: Column) -> tuple[str, str] | None:
        if column.kind.name == "int":
            # AUTOINCREMENT: the key of a deleted row never comes back.
            return "INTEGER", "PRIMARY KEY AUTOINCREMENT"
        return ("TEXT", UUID) if column.kind.name == "uuid" else None

    def generates(self, column: sa.Column[Any]) -> bool:
        return bool(column.server_default or column.computed or column.autoincrement is True)

    def complete(self, connection: sa.Connection, table: sa.Table) -> None:
        """Types become what columns keep; an INTEGER PRIMARY KEY without an index is the rowid,
        which SQLite generates (https://sqlite.org/lang_createtable.html#rowid).
        """
        name = {"name": table.name}
        declared = connection.execute(
            sa.text("SELECT name, type FROM pragma_table_xinfo(:name)"), name
        ).all()
        by_name = {c.name: c for c in table.c}
        for column, kind in declared:
            by_name[column].info[DECLARED] = kind.lower()
            by_name[column].type = _kept(kind.upper())
        keyed = sa.text("SELECT 1 FROM pragma_index_list(:name) WHERE origin = 'pk'")
        keys = list(table.primary_key.columns)
        if len(keys) == 1 and connection.scalar(keyed, name) is None:
            keys[0].autoincrement = True
        strict = sa.text(
            "SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = :name"
        )
        table.info[DIRECT] = bool(connection.scalar(strict, name))

    def fields(self, kind: Kind, family: str) -> Fields:
        if (uuid := fields.of_uuid(kind, family)) is not None:
            return uuid
        if kind.name == "binary":
            return fields.hexadecimal
        if kind.name == "bool":
            return fields.flag
        if kind.name == "float" and family == "float":
            # It takes -0 for 0 without a word.
            return fields.double_but_negative_zero
        return fields.text if kind.name in ("text", "json", "enum") else fields.plain

    def exactly(self, column: Any, other: Any) -> sa.ColumnElement[bool]:
        equal: sa.ColumnElement[bool] = column == other
        if isinstance(column.type, sa.String):
            # By the column's index, and then without its NOCASE or RTRIM.
            exact: sa.ColumnElement[bool] = sa.collate(column, "BINARY") == other
            return equal & exact
        return equal

    def from_text(self, text: Any, like: sa.Column[Any], kind: Kind | None = None) -> Any:
        family = family_of(like.type)
        if kind is not None and uuids.is_bytes_elsewhere(kind, family):
            return sa.func.headwater_bytes(sa.func.headwater_base64(text))
        if kind is not None and uuids.is_text_elsewhere(kind, family):
            return sa.func.headwater_uuid(text)
        if family == "binary":
            return sa.func.headwater_bytes(text)
        return sa.cast(text, like.type) if isinstance(like.type, sa.Integer | sa.Float) else text

    def make(self, connection: sa.Connection, table: sa.Table) -> None:
        quote = self.engine.dialect.identifier_preparer.quote
        columns = []
        for column in table.columns:
            default: Any = column.server_default
            columns.append(
                f"{quote(column.name)} {_STORED.get(family_of(column.type), 'TEXT')}"
                + (f" DEFAULT {default.arg}" if default is not None else "")
            )
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {table.name} ({', '.join(columns)}) STRICT"
        )

    def clear(self, connection: sa.Connection, table: sa.Table, rows: int) -> None:
        connection.exec_driver_sql(f"DELETE FROM {table.name}")

    def analyze(self, connection: sa.Connection, table: sa.Table) -> None:
        """Without statistics SQLite goes by the indexes' columns, which is right here."""

    def stage(self, connection: sa.Connection, table: sa.Table, lines: Lines) -> int:
        quoted = self.engine.dialect.identifier_preparer
        # OR ABORT: whatever ON CONFLICT a table was made with.
        sql = (
            f"INSERT OR ABORT INTO {quoted.format_table(table)} "
            f"({', '.join(quoted.quote(table.c[n].name) for n in lines.names)}) "
            f"VALUES ({', '.join('?' * len(lines.names))})"
        )
        columns = [
            _bound(name, family_of(table.c[name].type), values)
            for name, values in zip(lines.names, zip(*lines.values(), strict=True), strict=True)
        ]
        rows = iter(list(zip(*columns, strict=True)))
        try:
            return self.run(connection, sql, rows)
        except sa.exc.DBAPIError as error:
            if self.cause(error) is not Cause.ROW:
                raise
            found = _COLUMN.search(str(error.orig))
            row = lines.rows - operator.length_hint(rows) - 1
            raise Unstorable(row, found[1] if found else None) from error

    def run(
        self, connection: sa.Connection, sql: str, rows: Iterator[tuple[Any, ...]] | None = None
    ) -> int:
        """Execute past SQLAlchemy, which would begin a transaction or make lists of the rows; how
        many rows were changed.
        """
        cursor: Any = connection.connection.cursor()
        try:
            cursor.execute(sql) if rows is None else cursor.executemany(sql, rows)
            return int(cursor.rowcount)
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError.instance(
                sql, None, error, sqlite3.Error, dialect=self.engine.dialect
            ) from error
        finally:
            cursor.close()

    def advance(self, connection: sa.Connection, table: sa.Table, written: Container[str]) -> None:
        """A new rowid is past the greatest one."""

    def hold(self, connection: sa.Connection, source: str) -> bool:
        # A file of its own: SQLite's locks are of the process, and end with any descriptor of it.
        if self._held is None:
            path = self.held_by(source)
            self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.let_go()
            return False
        return True

    def held_by(self, source: str) -> Path:
        """The file that whoever applies the source's changes has locked."""
        return Path(f"{self.engine.url.database}-{source}-applies")

    def let_go(self) -> None:
        """Give back what `hold` took. The file stays: one that is unlinked could be held twice."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def check_at_once(self, connection: sa.Connection) -> None:
        pass  # no statement makes a deferred key immediate

    def cause(self, error: sa.exc.DBAPIError) -> Cause:
        code = _code(error)
        if error.connection_invalidated or code & 0xFF in _LOST:
            return Cause.LOST
        if "FOREIGN KEY constraint failed" in str(error.orig):
            # ON DELETE RESTRICT has the code of a trigger.
            return Cause.FOREIGN
        if code in _UNIQUE:
            return Cause.UNIQUE
        if code & 0xFF in _DENIED:
            return Cause.DENIED
        return Cause.ROW if code & 0xFF in _ROW else Cause.UNKNOWN

    def explain(self, error: sa.exc.DBAPIError) -> str:
        name = getattr(error.orig, "sqlite_errorname", None) or "an error of the driver"
        # What follows the colon are names; a trigger's own message may hold anything.
        names = str(error.orig).partition(": ")[2] if _code(error) in _NAMING else ""
        return f"{name}, {names}" if names else name

    def warnings(self, connection: sa.Connection) -> list[tuple[str, str, str]]:
        return []

    def read(
        self,
        columns: Sequence[tuple[Kind, str, Any]],
        statement: sa.Select[Any],
        limit: int,
        *,
        connection: sa.Connection | None = None,
    ) -> Iterator[list[list[str | None]]]:
        text = statement.compile(
            dialect=self.engine.dialect, compile_kwargs={"literal_binds": True}
        )
        make = [_fragment(kind) for kind, _, _ in columns]
        with nullcontext(connection) if connection is not None else self.engine.connect() as on:
            blocks = on.exec_driver_sql(str(text)).partitions(limit)
            yield from read_back.fragments(blocks, make)

    def field(self, kind: Kind, family: str, column: Any) -> str | None:
        """SQLite has no hash function: rows are read, which costs no network here."""
        return None

    def reference(self, column: Any, field: str, dangling: str) -> str:
        return field

    def total(self, fields: Sequence[str], key: Sequence[str]) -> str | None:
        return None


_STORED = {"int": "INTEGER", "float": "REAL", "binary": "BLOB"}
"""A staging table's types by family; all others are TEXT."""

_CLOCKS = {"DATE": sa.Date, "TIME": sa.Time, "DATETIME": sa.DateTime, "TIMESTAMP": sa.DateTime}


def _kept(declared: str) -> Any:
    """What a column of that declared type keeps exactly: SQLite's rules of affinity, in order.

    The last one, NUMERIC, turns text that looks like a number into a double: it keeps integers, and
    dates and times, which do not look like one.
    """
    if "INT" in declared:
        return Whole()
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return sa.Text()
    if not declared or "BLOB" in declared:
        return sa.LargeBinary()
    if any(word in declared for word in ("REAL", "FLOA", "DOUB")):
        return sa.Double()
    return _CLOCKS.get(declared.split("(")[0].split(" ")[0], Whole)()


def _bound(name: str, family: str, values: Sequence[str | None]) -> Sequence[Any]:
    """Texts as values to bind: SQLite itself reads text as the nearest double only nearly."""
    if family == "binary":
        return [None if v is None else bytes.fromhex(v) for v in values]
    if family != "float":
        return values
    numbers = [None if v is None else float(v) for v in values]
    for row, number in enumerate(numbers):
        if number != number:  # NaN, which SQLite stores as NULL.
            raise Unstorable(row, name)
    return numbers


def _fragment(kind: Kind) -> Callable[[Any], str]:
    """How to make a wire fragment of what the driver gives."""
    if kind.name == "int":
        return lambda value: str(int(value))
    if kind.name == "float":
        bits = kind.bits
        return lambda value: float_fragment(float(value), bits)
    if kind.name == "binary":
        return lambda value: f'"{b2a_base64(value, newline=False).decode()}"'
    return lambda value: quote(str(value))


def _code(error: sa.exc.DBAPIError) -> int:
    """SQLite's extended result code; 0 for the driver's own errors."""
    return getattr(error.orig, "sqlite_errorcode", 0)


def _of_text(function: Callable[[str], Any]) -> Callable[[str | None], Any]:
    """As an SQL function: NULL stays NULL."""
    return lambda text: None if text is None else function(text)


def _begin_session(connection: Any, record: Any) -> None:
    # The driver would begin transactions at moments of its own.
    connection.isolation_level = None
    for name, function in (
        ("headwater_bytes", a2b_base64),
        ("headwater_base64", uuids.base64_of),
        ("headwater_uuid", uuids.text_of),
    ):
        connection.create_function(name, 1, _of_text(function), deterministic=True)
    for pragma in (
        f"busy_timeout = {BUSY_MS}",
        "foreign_keys = ON",
        "defer_foreign_keys = OFF",
        "ignore_check_constraints = OFF",
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")
