"""The embedded log: one SQLite file, written by one process at a time and read by any number.

Rows are appended in short transactions without waiting for the disk; the commit record's own waits,
and what it syncs is the one write-ahead log in which the rows stand before it
(https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous). Runs of rows are
stored packed (transport/sqlite_rows.py). Readers fetch a few runs at a time and hold no transaction
in between, so that checkpoints can reset the write-ahead log.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from time import sleep, time
from typing import Any
from uuid import uuid4

from schemas.change import Rows
from schemas.table import Table
from transport.local import LocalLog
from transport.record import Entry, Record, loads
from transport.sqlite_file import connect, dropped, mapped
from transport.sqlite_rows import pack, unpack
from transport.store import span_of

POLL_S = 0.002
"""One look for new entries takes about 10 microseconds, so this costs 0.5 % of a core."""
FETCH = 4
"""Runs of rows in one read: at most about 4 MB, a few milliseconds."""
DELETE = 200
"""Runs of rows deleted in one transaction, so that the write-ahead log stays below some 100 MB."""


FIND = "SELECT incarnation FROM headwater_streams WHERE source = ?"
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS {e} (id INTEGER PRIMARY KEY, written_at REAL NOT NULL,"
    " last INTEGER, entry BLOB NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS {l} ON {e} (last) WHERE last IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS {r} (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,"
    " run INTEGER NOT NULL, schema INTEGER NOT NULL, partial INTEGER NOT NULL,"
    " ops TEXT NOT NULL, ordinals BLOB NOT NULL, key_sizes BLOB NOT NULL, keys BLOB NOT NULL,"
    ' value_sizes BLOB NOT NULL, "values" BLOB NOT NULL) STRICT',
    "CREATE TABLE IF NOT EXISTS {t} (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE,"
    " description TEXT NOT NULL) STRICT",
)
"""One source's tables, named like a Kafka log's topics."""


class SqliteStream:
    """One source's tables in a log file; implements transport.store.Store."""

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source
        self._open: sqlite3.Connection | None = None
        self._tables: dict[int, Table] = {}
        self._table_ids: dict[str, int] = {}
        entries, rows, tables = (f"{source}.{part}" for part in ("commits", "rows", "schemas"))
        self._names = [entries, rows, tables]
        self._e, self._r, self._t = (_quoted(name) for name in self._names)
        self._l = _quoted(f"{entries}.last")
        self._readers = f"{source}.readers"

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection, made at first use, in which this source's tables exist."""
        if self._open is None:
            db = connect(self._path)
            with mapped(self._path):
                self._register(db)
            self._open = db
        return self._open

    @property
    def incarnation(self) -> str:
        found = self._all(FIND, self._source)
        if not found:
            raise dropped(self._path)
        return str(found[0][0])

    def _register(self, db: sqlite3.Connection) -> None:
        """Make this source's tables unless they are there."""
        if db.execute(FIND, [self._source]).fetchone() is None:
            db.execute("BEGIN IMMEDIATE")
            with db:
                db.execute(
                    "INSERT INTO headwater_streams VALUES (?, ?) ON CONFLICT DO NOTHING",
                    [self._source, uuid4().hex],
                )
                for statement in SCHEMA:
                    db.execute(statement.format(e=self._e, r=self._r, t=self._t, l=self._l))

    @contextmanager
    def writing(self, *, durable: bool) -> Iterator[None]:
        with mapped(self._path):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.commit()
            except BaseException:
                self._db.rollback()
                self._table_ids.clear()
                raise

    def bounds(self) -> tuple[int, int]:
        ((oldest, newest),) = self._all(f"SELECT min(id), max(id) FROM {self._e}")
        return (1, 0) if oldest is None else (oldest, newest)

    def entries(self, after: int, limit: int) -> list[tuple[int, Entry]]:
        found = self._all(
            f"SELECT id, entry FROM {self._e} WHERE id > ? ORDER BY id LIMIT ?", after, limit
        )
        return [(offset, loads(entry)) for offset, entry in found]

    def written_at(self, after: int) -> float | None:
        found = self._all(
            f"SELECT written_at FROM {self._e} WHERE id > ? ORDER BY id LIMIT 1", after
        )
        return float(found[0][0]) if found else None

    def add_entry(self, entry: Entry) -> int:
        span = span_of(entry)
        return self._add(self._e, time(), span and span.last, entry.dumps())

    def add_rows(self, epoch: int, run: int, rows: Rows) -> int:
        table = self._table_id(rows.table)
        return self._add(self._r, epoch, run, table, rows.partial, *pack(rows))

    def rows(self, epoch: int, run: int, first: int, last: int) -> Iterator[Rows]:
        while first <= last:
            page = self._all(
                f"SELECT * FROM {self._r} WHERE id BETWEEN ? AND ? AND epoch = ? AND run = ?"
                f" ORDER BY id LIMIT {FETCH}",
                *(first, last, epoch, run),
            )
            if not page:
                return
            first = page[-1][0] + 1
            page.reverse()
            while page:
                _, _, _, table, partial, *packed = page.pop()
                yield unpack(self._table(table), packed, partial=bool(partial))

    def described(self) -> list[Table]:
        found = self._all(f"SELECT description FROM {self._t} ORDER BY id")
        return [Table.loads(text) for (text,) in found]

    def reader(self, target: str) -> tuple[str, float] | None:
        if not self._all("SELECT 1 FROM sqlite_master WHERE name = ?", self._readers):
            return None  # nobody noted anything yet
        of = f"SELECT session, noted_at FROM {_quoted(self._readers)} WHERE target = ?"
        found = self._all(of, target)
        return (str(found[0][0]), float(found[0][1])) if found else None

    def note_reader(self, target: str, session: str | None) -> None:
        table = _quoted(self._readers)
        self._all(
            f"CREATE TABLE IF NOT EXISTS {table} (target TEXT PRIMARY KEY, session TEXT NOT NULL,"
            " noted_at REAL NOT NULL) STRICT"
        )
        self._all(f"DELETE FROM {table} WHERE target = ?", target)
        if session is not None:
            self._all(f"INSERT INTO {table} VALUES (?, ?, ?)", target, session, time())

    def delete_orphans(self) -> None:
        ((newest,),) = self._all(
            f"SELECT coalesce(max(last), 0) FROM {self._e} WHERE last IS NOT NULL"
        )
        some = f"SELECT id FROM {self._r} WHERE id > ? ORDER BY id LIMIT {DELETE}"
        while self._all(some, newest):
            with self.writing(durable=False):
                self._all(f"DELETE FROM {self._r} WHERE id IN ({some})", newest)

    def delete_before(self, offset: int, age_s: float) -> None:
        while self._delete_some(offset, time() - age_s):
            pass

    def _delete_some(self, offset: int, written_before: float) -> bool:
        with self.writing(durable=False):
            found = self._all(
                f"SELECT id, written_at, entry FROM {self._e} WHERE id < ? ORDER BY id LIMIT 100",
                offset,
            )
            old = list(takewhile(lambda row: row[1] <= written_before, found))
            for number, _, data in old:
                record = loads(data)
                self._all(f"DELETE FROM {self._e} WHERE id = ?", number)
                if isinstance(record, Record) and (span := span_of(record)):
                    self._all(
                        f"DELETE FROM {self._r} WHERE id BETWEEN ? AND ? AND epoch = ? AND run = ?",
                        *(span.first, span.last, record.epoch, record.run),
                    )
        return bool(old)

    def wait(self) -> None:
        sleep(POLL_S)

    def drop(self) -> list[str]:
        with self.writing(durable=True):
            for name in (self._e, self._r, self._t):
                self._db.execute(f"DROP TABLE {name}")
            self._db.execute(f"DROP TABLE IF EXISTS {_quoted(self._readers)}")
            self._db.execute("DELETE FROM headwater_streams WHERE source = ?", [self._source])
        self.close()
        return list(self._names)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        self._tables.clear()
        self._table_ids.clear()

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with mapped(self._path):
            return self._db.execute(statement, values).fetchall()

    def _add(self, table: str, *values: Any) -> int:
        marks = ", ?" * len(values)
        added = self._db.execute(f"INSERT INTO {table} VALUES (NULL{marks})", values).lastrowid
        assert added is not None, "an insert into a table with numbered rows gives the number"
        return added

    def _table_id(self, table: Table) -> int:
        """The number of a description, stored first if it is new. In `writing` only."""
        number = self._table_ids.get(table.fingerprint)
        if number is None:
            find = f"SELECT id FROM {self._t} WHERE fingerprint = ?"
            found = self._all(find, table.fingerprint)
            number = found[0][0] if found else self._add(self._t, table.fingerprint, table.dumps())
            self._table_ids[table.fingerprint] = number
        return number

    def _table(self, number: int) -> Table:
        table = self._tables.get(number)
        if table is None:
            find = f"SELECT description FROM {self._t} WHERE id = ?"
            table = self._tables[number] = Table.loads(self._all(find, number)[0][0])
        return table


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SqliteLog(LocalLog):
    """One source's log in a file, which may hold several sources' logs.

    retention_s: batches older than this are deleted, read or not; None keeps them until `trim`.
    """

    def __init__(
        self, path: str | Path, source_name: str, *, retention_s: float | None = None
    ) -> None:
        super().__init__(SqliteStream(Path(path), source_name), retention_s=retention_s)
