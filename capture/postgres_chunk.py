"""Chunks of a table: one short read-only transaction each, its rows byte for byte as streamed."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from capture import postgres_paging as paging
from capture.postgres_kinds import is_blank_padded
from capture.postgres_native import copy_encoder
from capture.postgres_rows import keyer
from capture.postgres_session import Session
from capture.postgres_session import quoted as _quote
from capture.postgres_slot import Server
from capture.source import Chunk
from schemas.change import Position
from schemas.codec import Envelope, image_template
from schemas.errors import Unsupported
from schemas.native import load
from schemas.postgres_text import fragment
from schemas.table import Column, Table

Opened = Callable[[int], Envelope]
"""The envelope of rows that were read at this time, in microseconds since 1970 UTC."""

_FIRST = """
    SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_is_in_recovery(),
           (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint
"""
_END = """
    SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::bigint,
           (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint
"""
LIMIT = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text"
"""The first transaction that has not begun."""
ENDED = """
    SELECT NOT EXISTS (
      SELECT FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) x
      WHERE x < %s::pg_catalog.xid8 AND mod(x::text::numeric, 4294967296)::text NOT IN
      (SELECT transaction::text FROM pg_catalog.pg_prepared_xacts))
"""
"""Whether every transaction before LIMIT has ended, but for those that are prepared."""
PAGE_BYTES, HEADERS = 8192, (24, 40)
"""A page of WAL, and the sizes of its header: usually, and of a segment's first page."""
_NUDGE = "SELECT pg_catalog.pg_logical_emit_message(true, 'headwater', '')"
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_NULL = rb"\N"


class _Read(NamedTuple):
    """What one transaction gave: rows in COPY's text format, and what a chunk says of them."""

    out: bytes
    seen: str
    high: Position
    read_at: int


class Encoded(NamedTuple):
    """Wire rows; size_bytes: of keys and values."""

    keys: list[bytes]
    values: list[bytes]
    size_bytes: int


def page(
    session: Session,
    server: Server,
    table: Table,
    after: Any,
    limit: int,
    until: Any,
    envelope: Opened,
) -> Chunk:
    """See Source.chunk. Raises Poison for a row without identity, which no page would ever show."""

    def selected() -> str:
        source = paging.rows_of(session, table)
        if after is None:
            paging.refuse_null_identity(session, table, source)
        where = paging.within(session, table, after, until)
        return f"{source}{where} ORDER BY {paging.order(table)} LIMIT {limit:d}"

    read = _read(session, server, table, selected)
    rows = encoded(table, read.out, envelope(read.read_at))
    last = key_of_last(table, read.out) if len(rows.keys) == limit else None
    next_key = None if last == until else last
    return _chunk(table, rows, read, after, until if next_key is None else next_key, next_key)


def listed(
    session: Session, server: Server, table: Table, identities: Sequence[bytes], envelope: Opened
) -> Chunk:
    """See Source.chunk_of."""

    def selected() -> str:
        return paging.rows_of(session, table) + paging.among(session, table, identities)

    read = _read(session, server, table, selected)
    return _chunk(table, encoded(table, read.out, envelope(read.read_at)), read, None, None, None)


def boundary(session: Session, table: Table, after: Any, rows: int, until: Any) -> Any:
    """See Source.boundary."""
    where = paging.within(session, table, after, until)
    # By COPY, so that the values are printed as a chunk's are.
    out = session.copy(
        f"SELECT {paging.order(table)} FROM {paging.rows_of(session, table)}{where} "
        f"ORDER BY {paging.order(table)} OFFSET {rows - 1:d} LIMIT 1"
    )
    return _key(table, _fields(out[:-1])) if out else None


def end(session: Session) -> tuple[int, int]:
    """The end of the server's log, and its clock in microseconds since 1970 UTC.

    The end of what is inserted, not of what is flushed: an asynchronous commit is visible before
    it is flushed. `nudge` makes an idle server's stream pass it. Just behind a page's header there
    is nothing yet, and the stream stands before it.
    """
    lsn, clock = session.query(_END)[0]
    into_page = lsn % PAGE_BYTES
    return lsn - (into_page if into_page in HEADERS else 0), clock


def nudge(session: Session) -> None:
    """Write a message that nobody reads, whose commit flushes what was inserted before it.

    On an idle server a keepalive would otherwise pass that place only with the next record of
    running transactions, up to 15 s later.
    """
    session.query(_NUDGE)


def visible(session: Session) -> str:
    """The snapshot of a read that begins now."""
    return str(session.one("SELECT pg_catalog.pg_current_snapshot()::text"))


def sees(seen: str, marks: Sequence[str]) -> bool:
    """Whether the snapshot `xmin:xmax:running,…` holds all these transactions."""
    _, limit, running = seen.split(":")
    unfinished = set(running.split(","))
    return unfinished.isdisjoint(marks) and all(int(mark) < int(limit) for mark in marks)


def _read(session: Session, server: Server, table: Table, selected: Callable[[], str]) -> _Read:
    names = ", ".join(_quote(c.name) for c in table.columns)
    with session.snapshot():
        # The transaction's first statement: all later ones see what this snapshot lists.
        seen, in_recovery, read_at = session.query(_FIRST)[0]
        if in_recovery:
            raise Unsupported(
                "cannot copy tables from a standby, whose snapshots do not list what is running",
                hint="give the source the primary's url",
            )
        out = session.copy(f"SELECT {names} FROM {selected()}")
        high, _ = end(session)
    return _Read(out, seen, server.position(high), read_at)


def _chunk(
    table: Table, rows: Encoded, read: _Read, after: Any, until: Any, next_key: Any
) -> Chunk:
    return Chunk(
        table=table,
        keys=rows.keys,
        values=rows.values,
        after=after,
        until=until,
        next_key=next_key,
        seen=read.seen,
        high=read.high,
        read_at=read.read_at,
        size_bytes=rows.size_bytes,
    )


def encoded(table: Table, out: bytes, envelope: Envelope) -> Encoded:
    """Rows in COPY's text format as wire rows; raises Poison for one without identity."""
    if native := load():
        try:
            return Encoded(*copy_encoder(native, table).encode(out, envelope.tails.read))
        except ValueError:
            pass  # What is not plain sailing: mostly an error, which is said there.
    return in_python(table, out, envelope)


def in_python(table: Table, out: bytes, envelope: Envelope) -> Encoded:
    """The same in Python: the oracle, and what runs without native/."""
    rows = [_fields(line) for line in out.split(b"\n")[:-1]]
    fragments = list(zip(*map(_fragments, table.columns, zip(*rows, strict=True)), strict=True))
    template = image_template(c.name for c in table.columns)
    try:
        keys = list(map(keyer(table), fragments))
    except LookupError:
        raise paging.null_identity(table) from None
    values = [envelope.read(template % row, i) for i, row in enumerate(fragments)]
    return Encoded(keys, values, sum(map(len, keys)) + sum(map(len, values)))


def key_of_last(table: Table, out: bytes) -> list[str]:
    """The key of the last row of COPY's text; there must be one."""
    fields = _fields(out[out.rfind(b"\n", 0, -1) + 1 : -1])
    names = list(table.by_name)
    return _key(table, [fields[names.index(n)] for n in table.identity])


def _key(table: Table, fields: Sequence[bytes | None]) -> list[str]:
    if None in fields:
        raise paging.null_identity(table)
    return [f.decode() for f in fields if f is not None]


def _fields(line: bytes) -> list[bytes | None]:
    """One line of COPY's text format; None for NULL."""
    fields = line.split(b"\t")
    if b"\\" not in line:
        return list(fields)
    return [None if f == _NULL else _unescaped(f) for f in fields]


def _unescaped(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), field)


def _fragments(column: Column, values: Sequence[bytes | None]) -> list[str]:
    write = fragment(column.kind, blank_padded=is_blank_padded(column))
    return ["null" if v is None else write(v) for v in values]
