"""Chunks of a table, read so that they can stand in the stream; text-protocol bytes to wire bytes.

A commit can be in the binlog, and streamed, before any read sees it. What a read has seen is thus
noted in the server's own terms, and the log's end only after the read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pymysql.constants.COMMAND import COM_QUERY

from capture import mysql_paging as paging
from capture.mysql_flavour import Flavour
from capture.mysql_position import Files, Gtids, MariaGtids
from capture.source import Chunk
from schemas.change import Position
from schemas.codec import Envelope, image_template
from schemas.mysql_text import expression, fragment
from schemas.table import Table

Opened = Callable[[int], Envelope]
"""The envelope of rows that were read at this time, in microseconds since 1970 UTC."""

_CLOCK = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"


class _Read(NamedTuple):
    """What one transaction gave; last: the last row's paging columns."""

    keys: list[bytes]
    values: list[bytes]
    last: Sequence[bytes | None]
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
    last = paging.key_of(table, read.last) if len(read.keys) == limit else None
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
    found = _rows(
        connection,
        f"SELECT {', '.join(paging.selected_key(table))} FROM {paging.rows_of(table)}"
        f"{paging.within(table, after, until)} ORDER BY {paging.order(table)} "
        f"LIMIT 1 OFFSET {rows - 1:d}",
    )
    return paging.key_of(table, found[0]) if found else None


def _chunk(table: Table, read: _Read, after: Any, until: Any, next_key: Any) -> Chunk:
    return Chunk(
        table=table,
        keys=read.keys,
        values=read.values,
        after=after,
        until=until,
        next_key=next_key,
        seen=read.seen,
        high=read.high,
        read_at=read.read_at,
        size_bytes=sum(map(len, read.keys)) + sum(map(len, read.values)),
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
    selected += paging.selected_key(table)
    sql = f"SELECT {', '.join(selected)} FROM {paging.rows_of(table)}{tail}"
    with connection.cursor() as cursor:
        cursor.execute(_CLOCK)
        read_at = int(cursor.fetchone()[0])
        begun, suffix = _BEGUN[type(flavour)]
        with begun(flavour, cursor) as seen:
            if nulls and cursor.execute(nulls):
                nullable = [c for c in paging.paging_columns(table) if c.nullable]
                raise paging.null_key(table, nullable)
            rows = _rows(connection, sql + suffix)
        high = flavour.now(cursor)
    keys, values = _encoded(table, rows, envelope(read_at))
    last = rows[-1][len(columns) :] if rows else ()
    return _Read(keys, values, last, seen, high, read_at)


def _encoded(
    table: Table, rows: Sequence[Sequence[bytes | None]], envelope: Envelope
) -> tuple[list[bytes], list[bytes]]:
    columns = [c for c in table.columns if not c.generated]
    makers = [fragment(c.kind) for c in columns]
    fragments = [
        tuple("null" if v is None else make(v) for make, v in zip(makers, row, strict=False))
        for row in rows
    ]
    names = [c.name for c in columns]
    template, key_template = image_template(names), image_template(table.identity)
    places = [names.index(n) for n in table.identity]
    keys = [(key_template % tuple(row[i] for i in places)).encode() for row in fragments]
    return keys, [envelope.read(template % row, i) for i, row in enumerate(fragments)]


def _rows(connection: Any, sql: str) -> list[list[bytes | None]]:
    """A query's rows, as the text protocol's bytes."""
    connection._execute_command(COM_QUERY, sql)
    count = connection._read_packet().read_length_encoded_integer()
    while not connection._read_packet().is_eof_packet():
        pass  # the columns' definitions
    rows = []
    while not (packet := connection._read_packet()).is_eof_packet():
        rows.append([packet.read_length_coded_string() for _ in range(count)])
    return rows


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
