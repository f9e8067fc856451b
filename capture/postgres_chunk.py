"""Chunks of a first copy: one short read-only transaction each, its rows byte for byte as streamed.

Paging is by the identity, not by the primary key. A row moved by an update of the paging key
between two chunks would be read twice or never; the stream repairs that only where the update
carries the whole row. An update that changes the identity always does (a delete and a full insert,
see postgres_rows.py); one that changes another key may lack its unchanged long values.
"""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from capture.postgres_rows import keyer
from capture.postgres_session import Session
from capture.postgres_session import quoted as _quote
from capture.postgres_slot import Server
from capture.source import Chunk
from schemas.codec import image_template
from schemas.errors import Poison, Transient, Unsupported
from schemas.postgres_text import fragment
from schemas.table import Column, Table

_FIRST = """
    SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_is_in_recovery(),
           (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint
"""
_KIND = """
    SELECT c.relkind::text FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s
"""
_END = """
    SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::bigint,
           (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint
"""
_NUDGE = "SELECT pg_catalog.pg_logical_emit_message(true, 'headwater', '')"
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_NULL = rb"\N"


def read(session: Session, server: Server, table: Table, after_key: Any, limit: int) -> Chunk:
    """Read up to `limit` rows after `after_key`: the identity's values as PostgreSQL prints them.

    Raises Poison for a row without identity, which no page would ever show.
    """
    keys = ", ".join(map(_quote, table.identity))
    columns = ", ".join(_quote(c.name) for c in table.columns)
    with session.snapshot():
        # The transaction's first statement: all later ones see what this snapshot lists.
        seen, in_recovery, read_at = session.query(_FIRST)[0]
        if in_recovery:
            raise Unsupported(
                "cannot copy tables from a standby, whose snapshots do not list what is running",
                hint="give the source the primary's url",
            )
        source = _from(session, table)
        where = ""
        if after_key is None:
            _refuse_null_identity(session, table, source)
        else:
            where = f" WHERE ({keys}) > ({', '.join(map(session.literal, after_key))})"
        out = session.copy(f"SELECT {columns} FROM {source}{where} ORDER BY {keys} LIMIT {limit:d}")
        high, _ = end(session)
    rows = [_fields(line) for line in out.split(b"\n")[:-1]]
    fragments = list(zip(*map(_fragments, table.columns, zip(*rows, strict=True)), strict=True))
    template, names = image_template(c.name for c in table.columns), list(table.by_name)
    last = [names.index(n) for n in table.identity]
    return Chunk(
        table=table,
        keys=list(map(keyer(table), fragments)),
        images=[template % row for row in fragments],
        source_keys=_source_keys(table, names, fragments),
        next_key=[(rows[-1][i] or b"").decode() for i in last] if len(rows) == limit else None,
        seen=seen,
        high=server.position(high),
        read_at=read_at,
    )


def end(session: Session) -> tuple[int, int]:
    """The end of the server's log, and its clock in microseconds since 1970 UTC.

    The end of what is inserted, not of what is flushed: an asynchronous commit is visible before
    it is flushed. `nudge` makes an idle server's stream pass it.
    """
    lsn, clock = session.query(_END)[0]
    return lsn, clock


def nudge(session: Session) -> None:
    """Write a message that nobody reads, whose commit flushes what was inserted before it.

    On an idle server a keepalive would otherwise pass that place only with the next record of
    running transactions, up to 15 s later; or never, where it lies just behind a page's header.
    """
    session.query(_NUDGE)


def sees(seen: str, marks: Sequence[str]) -> bool:
    """Whether the snapshot `xmin:xmax:running,…` holds all these transactions."""
    _, limit, running = seen.split(":")
    unfinished = set(running.split(","))
    return unfinished.isdisjoint(marks) and all(int(mark) < int(limit) for mark in marks)


def _from(session: Session, table: Table) -> str:
    """ONLY, because what is inherited is captured as tables of their own; not so partitions."""
    kind = session.one(_KIND, table.schema, table.name)
    if kind is None:
        raise Transient(f"found {table.full_name} gone since it was described")
    name = f"{_quote(table.schema)}.{_quote(table.name)}"
    return name if kind == "p" else f"ONLY {name}"


def _refuse_null_identity(session: Session, table: Table, source: str) -> None:
    nullable = [n for n in table.identity if table.by_name[n].nullable]
    for name in nullable:
        if session.query(f"SELECT 1 FROM {source} WHERE {_quote(name)} IS NULL LIMIT 1"):
            raise Poison(
                f"found a row of {table.full_name} whose {name} is null",
                hint="give every row a value and make the column NOT NULL, or exclude the table",
            )


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
    padded = column.native.startswith(("character(", "bpchar"))
    write = fragment(column.kind, blank_padded=padded)
    return ["null" if v is None else write(v) for v in values]


def _source_keys(table: Table, names: list[str], fragments: Sequence[tuple[str, ...]]) -> list[Any]:
    if len(table.primary_key) != 1:
        return []
    at = names.index(table.primary_key[0])
    keys: list[Any] = orjson.loads(f"[{','.join(row[at] for row in fragments)}]")
    return keys
