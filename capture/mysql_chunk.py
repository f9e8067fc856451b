"""Chunks of a table, read so that they can stand in the stream; text-protocol bytes to wire bytes.

A commit can be in the binlog, and streamed, before any read sees it. What a read has seen is thus
noted in the server's own terms, and the log's end only after the read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from capture import mysql_paging as paging
from capture import mysql_results as results
from capture.mysql_flavour import Flavour
from capture.mysql_position import Files, Gtids, MariaGtids
from capture.source import Chunk
from schemas.change import Position
from schemas.codec import Envelope
from schemas.mysql_text import expression
from schemas.table import Table

Opened = Callable[[int], Envelope]
"""The envelope of rows that were read at this time, in microseconds since 1970 UTC."""

_CLOCK = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"


class _Read(NamedTuple):
    """What one transaction gave; last: the last row's paging columns."""

    rows: results.Encoded
    last: results.Fields
    seen: str
    high: Position
    read_at: int


def page(
    flavour: Flavour,
    connection: Any,
    table: Table,
    after: Any,
    limit: int,
    until: Any,
    envelope: Opened,
) -> Chunk:
    """See Source.chunk. Raises Poison for a row that has no place in the paging order."""
    where = paging.within(table, after, until)
    tail = f"{where} ORDER BY {paging.order(table)} LIMIT {limit:d}"
    nulls = paging.nulls(table) if after is None else None
    read = _read(flavour, connection, table, tail, envelope, nulls)
    last = paging.key_of(table, read.last) if len(read.rows.keys) == limit else None
    next_key = None if last == until else last
    return _chunk(table, read, after, until if next_key is None else next_key, next_key)


def listed(
    flavour: Flavour,
    connection: Any,
    table: Table,
    identities: Sequence[bytes],
    envelope: Opened,
) -> Chunk:
    """See Source.chunk_of."""
    read = _read(flavour, connection, table, paging.among(table, identities), envelope, None)
    return _chunk(table, read, None, None, None)


def boundary(connection: Any, table: Table, after: Any, rows: int, until: Any) -> Any:
    """See Source.boundary."""
    found = results.rows(
        connection,
        f"SELECT {', '.join(paging.selected_key(table))} FROM {paging.rows_of(table)}"
        f"{paging.within(table, after, until)} ORDER BY {paging.order(table)} "
        f"LIMIT 1 OFFSET {rows - 1:d}",
    )
    return paging.key_of(table, found[0]) if found else None


def _chunk(table: Table, read: _Read, after: Any, until: Any, next_key: Any) -> Chunk:
    return Chunk(
        table=table,
        keys=read.rows.keys,
        values=read.rows.values,
        after=after,
        until=until,
        next_key=next_key,
        seen=read.seen,
        high=read.high,
        read_at=read.read_at,
        size_bytes=read.rows.size_bytes,
    )


def visible(flavour: Flavour, cursor: Any) -> str:
    """What a read that begins now would see."""
    begun, _ = _BEGUN[type(flavour)]
    with begun(flavour, cursor) as seen:
        return str(seen)


def _read(
    flavour: Flavour,
    connection: Any,
    table: Table,
    tail: str,
    envelope: Opened,
    nulls: str | None,
) -> _Read:
    columns = [c for c in table.columns if not c.generated]
    selected = [expression(c.kind, paging.name(c.name)) for c in columns]
    key = paging.selected_key(table)
    selected += [k for k in key if k not in selected]
    sql = f"SELECT {', '.join(selected)} FROM {paging.rows_of(table)}{tail}"
    with connection.cursor() as cursor:
        cursor.execute(_CLOCK)
        read_at = int(cursor.fetchone()[0])
        begun, suffix = _BEGUN[type(flavour)]
        with begun(flavour, cursor) as seen:
            if nulls and cursor.execute(nulls):
                nullable = [c for c in paging.paging_columns(table) if c.nullable]
                raise paging.null_key(table, nullable)
            rows = results.encoded(connection, sql + suffix, table, columns, envelope(read_at))
        paging.refuse_null(table, rows.keys)
        high = flavour.now(cursor)
    last = [rows.last[selected.index(k)] for k in key] if rows.keys else []
    return _Read(rows, last, seen, high, read_at)


@contextmanager
def _after_gtids(flavour: Flavour, cursor: Any) -> Iterator[str]:
    """What is in gtid_executed is visible to every read that begins later."""
    yield str(flavour.now(cursor))


@contextmanager
def _in_snapshot(flavour: Flavour, cursor: Any) -> Iterator[str]:
    """MariaDB says which place of the binlog a snapshot stands for, under REPEATABLE READ only."""
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    cursor.execute("SHOW STATUS LIKE 'binlog_snapshot_%'")
    status = {name.lower(): value for name, value in cursor.fetchall()}
    yield f"{status['binlog_snapshot_file']}:{status['binlog_snapshot_position']}"
    cursor.execute("COMMIT")


@contextmanager
def _shared(flavour: Flavour, cursor: Any) -> Iterator[str]:
    """A locking read waits for transactions that are in the binlog but not yet visible."""
    cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.execute("START TRANSACTION")
    yield ""
    cursor.execute("COMMIT")


_BEGUN: dict[type[Flavour], Any] = {
    Gtids: (_after_gtids, ""),
    MariaGtids: (_in_snapshot, ""),
    Files: (_shared, " FOR SHARE"),
}
"""How each flavour's read begins, and what its query ends with."""
