"""PostgreSQL's replication messages: pure functions over bytes, no connection and no catalog.

Formats: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html and
protocol-replication.html. Rows are not parsed here but by generated code (postgres_rows.py), at the
offsets that `ROW_AT` gives. Every function takes the whole copy-data message, so nothing is sliced.
"""

import struct
from typing import NamedTuple

WAL_DATA, KEEPALIVE = ord("w"), ord("k")
BEGIN, COMMIT, RELATION, TRUNCATE = ord("B"), ord("C"), ord("R"), ord("T")
INSERT, UPDATE, DELETE = ord("I"), ord("U"), ord("D")
IGNORED = frozenset(b"OYM")
"""Origin, Type and logical-decoding messages change no row."""
KIND_AT = 25
"""Where the message's kind stands: after `w`, two positions and a clock."""
RELATION_AT = 26
"""Where a row's relation stands, four bytes."""
ROW_AT = 30
"""Where a row's first tuple stands: its letter (N, K or O), then the tuple."""

SIZE = struct.Struct(">I")
"""The length of a value in a tuple."""

_EPOCH_2000_US = 946_684_800_000_000
_KEY_FLAG = 1


class Begin(NamedTuple):
    """The start of a committed transaction; lsn: where its commit record starts."""

    lsn: int
    committed_at: int
    xid: int


class RelationColumn(NamedTuple):
    """One column as the log sends it; in_key: part of the replica identity."""

    name: str
    type_oid: int
    typmod: int
    in_key: bool


class Relation(NamedTuple):
    """How the rows that follow are laid out; replica_identity: d, n, f or i."""

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[RelationColumn, ...]


class Keepalive(NamedTuple):
    """Every commit that ends at or below wal_end has been sent before this message."""

    wal_end: int
    reply_requested: bool


def keepalive(message: bytes) -> Keepalive:
    """Parse a keepalive."""
    wal_end, _, reply = struct.unpack_from(">QQ?", message, 1)
    return Keepalive(wal_end, reply)


def begin(message: bytes) -> Begin:
    """Parse Begin; the commit's clock as microseconds since 1970 UTC."""
    lsn, committed_at, xid = struct.unpack_from(">QqI", message, KIND_AT + 1)
    return Begin(lsn, committed_at + _EPOCH_2000_US, xid)


def commit_end(message: bytes) -> int:
    """The position just after the commit that this message reports."""
    end: int = struct.unpack_from(">Q", message, KIND_AT + 10)[0]
    return end


def relation(message: bytes) -> Relation:
    """Parse Relation; an empty schema name stands for pg_catalog."""
    (oid,) = struct.unpack_from(">I", message, RELATION_AT)
    schema, at = _text(message, RELATION_AT + 4)
    name, at = _text(message, at)
    replica_identity, count = struct.unpack_from(">cH", message, at)
    at += 3
    columns = []
    for _ in range(count):
        flags = message[at]
        column, at = _text(message, at + 1)
        type_oid, typmod = struct.unpack_from(">Ii", message, at)
        columns.append(RelationColumn(column, type_oid, typmod, bool(flags & _KEY_FLAG)))
        at += 8
    return Relation(oid, schema or "pg_catalog", name, replica_identity.decode(), tuple(columns))


def truncated(message: bytes) -> tuple[int, ...]:
    """The oids of the relations that one TRUNCATE emptied, cascades included, in order."""
    (count,) = struct.unpack_from(">I", message, RELATION_AT)
    return struct.unpack_from(f">{count}I", message, RELATION_AT + 5)


def status_update(lsn: int, clock: int, *, reply: bool) -> bytes:
    """Tell the server that everything up to lsn may be forgotten; `reply` asks for a keepalive.

    clock: microseconds since 1970 UTC. Written, flushed and applied are the same on purpose: the
    server sends keepalives while what we say is behind what it has sent.
    """
    return struct.pack(">cQQQq?", b"r", lsn, lsn, lsn, clock - _EPOCH_2000_US, reply)


def lsn_text(lsn: int) -> str:
    """A position as PostgreSQL prints it: 0/16B3748."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """The inverse of `lsn_text`; raises ValueError."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
