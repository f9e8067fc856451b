"""Events of a MySQL or MariaDB binlog: framing, checksums, and the table of event types; pure.

Every type that a server may send is listed with what becomes of it; an unlisted one is refused,
never skipped. Formats: MySQL's libbinlogevents/include, MariaDB's sql/log_event.h.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

from schemas.errors import Transient, Unsupported

HEADER_SIZE = 19
_HEADER = Struct("<IBIIIH").unpack_from
_U16 = Struct("<H").unpack_from
_U32 = Struct("<I").unpack_from
_U64 = Struct("<Q").unpack_from


class Type(IntEnum):
    """The event types that mean something to a capture."""

    QUERY = 2
    STOP = 3
    ROTATE = 4
    FORMAT_DESCRIPTION = 15
    XID = 16
    EXECUTE_LOAD_QUERY = 18
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    GTID_TAGGED = 42
    MARIADB_GTID = 162


IGNORED = {
    3: "STOP",
    5: "INTVAR",  # these four only prepare a statement, whose own event is judged
    9: "APPEND_BLOCK",
    11: "DELETE_FILE",
    13: "RAND",
    14: "USER_VAR",
    17: "BEGIN_LOAD_QUERY",
    28: "IGNORABLE",
    29: "ROWS_QUERY",
    35: "PREVIOUS_GTIDS",
    36: "TRANSACTION_CONTEXT",
    37: "VIEW_CHANGE",
    160: "ANNOTATE_ROWS",
    161: "BINLOG_CHECKPOINT",
    163: "GTID_LIST",
    164: "START_ENCRYPTION",  # the server decrypts for its replicas
}
"""Types that carry no change and no position."""

REFUSED = {
    26: ("an incident: the server lost changes", "copy the tables anew, then go on after it"),
    39: ("a partial JSON update", "run: SET GLOBAL binlog_row_value_options = ''"),
    40: (
        "a compressed transaction",
        "run: SET GLOBAL binlog_transaction_compression = OFF, also in sessions that set it",
    ),
    42: ("a tagged GTID", "use GTIDs without tags on this server"),
    165: ("a compressed statement", "run: SET GLOBAL log_bin_compress = OFF"),
    **dict.fromkeys(
        (166, 167, 168, 169, 170, 171),
        ("compressed rows", "run: SET GLOBAL log_bin_compress = OFF"),
    ),
    172: ("a partial row", "raise binlog_row_event_max_size"),
}
"""Types that cannot be carried: what was found, what to run."""


def refuse(kind: int) -> Unsupported:
    """The error for an event that would be lost if it were skipped."""
    what, fix = REFUSED.get(
        kind, (f"an event of unknown type {kind}", "upgrade Headwater, or report the type")
    )
    return Unsupported(f"found {what} in the binlog", hint=fix)


class Event(NamedTuple):
    """One event: its header's fields, and its body without header and checksum."""

    kind: int
    at: int
    """Seconds since 1970 UTC, the server's clock."""
    server_id: int
    end_pos: int
    """Where the next event begins in the file; 0 for events made up by the server."""
    body: bytes


class Framing:
    """Cuts headers and checksums off events, and follows changes of the checksum algorithm."""

    __slots__ = ("_checksummed",)

    def __init__(self) -> None:
        self._checksummed = True

    def event(self, raw: bytes) -> Event:
        """Frame one event; raises Transient when its checksum does not match."""
        at, kind, server_id, size, end_pos, _ = _HEADER(raw)
        if size != len(raw):
            raise Transient("read an event of the wrong length from the binlog")
        end = size
        if kind == Type.FORMAT_DESCRIPTION:
            # Always has the algorithm's byte and four bytes of checksum, whatever the algorithm.
            self._checksummed = raw[-5] == 1
            end -= 5
        elif kind == Type.ROTATE:
            # The server's made-up first rotate comes before any format description says whether
            # there are checksums: only the bytes themselves tell.
            end -= 4 if crc32(raw[:-4]) == _U32(raw, size - 4)[0] else 0
        elif self._checksummed:
            end -= 4
            if crc32(memoryview(raw)[:end]) != _U32(raw, end)[0]:
                raise Transient("read an event with a wrong checksum from the binlog")
        return Event(kind, at, server_id, end_pos, raw[HEADER_SIZE:end])


class Rotate(NamedTuple):
    """Where the events that follow stand."""

    file: str
    pos: int


def rotate(body: bytes) -> Rotate:
    """Parse ROTATE."""
    return Rotate(body[8:].decode(), _U64(body)[0])


def begins_after_crash(body: bytes) -> bool:
    """Whether a FORMAT_DESCRIPTION is the first of a started server: no transaction spans it."""
    return bool(_U32(body, 52)[0])


class Gtid(NamedTuple):
    """The begin of a group of events that commits as one."""

    uuid: str
    number: int
    committed_at: int | None
    """Microseconds since 1970 UTC."""


def gtid(body: bytes) -> Gtid:
    """Parse MySQL's GTID (and ANONYMOUS_GTID), whose commit time is there since 8.0.1."""
    uuid = str(UUID(bytes=body[1:17]))
    committed_at = None
    if len(body) >= 49 and body[25] == 2:
        # The top bit says that the original server's time follows: not needed here.
        committed_at = int.from_bytes(body[42:49], "little") & ~(1 << 55)
    return Gtid(uuid, _U64(body, 17)[0], committed_at)


class MariaGtid(NamedTuple):
    """MariaDB's begin of a group; `is_standalone`: one event follows, and no commit."""

    domain: int
    number: int
    is_standalone: bool


def maria_gtid(body: bytes) -> MariaGtid:
    """Parse MariaDB's GTID."""
    return MariaGtid(_U32(body, 8)[0], _U64(body)[0], bool(body[12] & 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement in the log: its default database ("" for none) and its text's bytes.

    collation: of the client that sent it (None: unknown). ansi_quotes: whether "x" is a name.
    """

    database: str
    text: bytes
    collation: int | None
    ansi_quotes: bool


_STATUS_SIZES = {0: 4, 1: 8, 3: 4, 4: 6, 7: 2, 8: 2, 9: 8, 10: 4, 13: 3}
"""Sizes of the fixed status variables that may stand before the charset (code 4)."""


def query(body: bytes, *, load: bool = False) -> Query:
    """Parse QUERY, or with `load` EXECUTE_LOAD_QUERY, which has 13 bytes more."""
    database_size, status_size = body[8], _U16(body, 11)[0]
    start = 26 if load else 13
    collation, ansi_quotes = _status(body[start : start + status_size])
    start += status_size
    return Query(
        database=body[start : start + database_size].decode("utf-8", "replace"),
        text=body[start + database_size + 1 :],
        collation=collation,
        ansi_quotes=ansi_quotes,
    )


def _status(variables: bytes) -> tuple[int | None, bool]:
    collation, ansi_quotes, at = None, False, 0
    while at < len(variables):
        code = variables[at]
        if code == 1:
            ansi_quotes = bool(_U64(variables, at + 1)[0] & 4)
        elif code == 4:
            collation = _U16(variables, at + 1)[0]
        if code == 2:  # catalog with a zero byte
            at += 3 + variables[at + 1]
        elif code in (5, 6):  # time zone, catalog
            at += 2 + variables[at + 1]
        elif code in _STATUS_SIZES:
            at += 1 + _STATUS_SIZES[code]
        else:
            break
    return collation, ansi_quotes


def xa_is_committed(body: bytes) -> bool:
    """Whether XA_PREPARE commits at once (XA COMMIT … ONE PHASE)."""
    return bool(body[0])


class RowsHead(NamedTuple):
    """What precedes the rows of a row event."""

    table_id: int
    column_count: int
    is_complete: bool
    """Whether the images have every column (binlog_row_image = FULL)."""
    start: int
    """Where in the body the first row begins."""


def rows_head(kind: int, body: bytes) -> RowsHead:
    """Parse the head of a row event of version 1 or 2."""
    table_id = int.from_bytes(body[:6], "little")
    at = 8
    if kind >= Type.WRITE_ROWS:
        at += _U16(body, 8)[0]
    count, at = packed_int(body, at)
    size = (count + 7) // 8
    images = 2 if kind in (Type.UPDATE_ROWS, Type.UPDATE_ROWS_V1) else 1
    full = (1 << count) - 1  # bits beyond the last column may be set
    present = [
        int.from_bytes(body[i : i + size], "little") & full
        for i in range(at, at + size * images, size)
    ]
    return RowsHead(table_id, count, all(p == full for p in present), at + size * images)


def packed_int(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer, and where it ends."""
    first = data[at]
    if first < 251:
        return first, at + 1
    size = {252: 2, 253: 3, 254: 8}[first]
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size
