"""A query's rows in MySQL's text protocol: as its bytes, or as wire rows.

pymysql sends the query and reads the columns' definitions. Rows it would read one packet at a time;
here they are taken as they come from the socket, by the compiled extension without Python's lock.

Formats: MySQL's manual of the client/server protocol, "Text Resultset" and "MySQL Packets".
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pymysql.constants.COMMAND import COM_QUERY
from pymysql.err import raise_mysql_exception

from capture.mysql_native import result_encoder
from schemas.codec import Envelope, image_template
from schemas.errors import Unsupported
from schemas.mysql_text import fragment
from schemas.native import load
from schemas.table import Column, Table

_ARRIVED_BYTES = 1 << 18
_HEAD_BYTES, _LONGEST = 4, 0xFFFFFF
"""Before each payload, and a payload that goes on in the next packet."""
_NULL, _EOF, _ERROR = 0xFB, 0xFE, 0xFF
_WIDTHS = {0xFC: 2, 0xFD: 3, 0xFE: 8}
"""By what stands instead of a length: how many bytes it takes."""
_EOF_BELOW_BYTES = 9
"""A longer payload that begins so is a row, whose first column is of 16 MB or more."""

Fields = list[bytes | None]
"""One row's columns, as the text protocol prints them."""


class Encoded(NamedTuple):
    """Wire rows of a result; size_bytes: of keys and values; last: the last row as it came."""

    keys: list[bytes]
    values: list[bytes]
    size_bytes: int
    last: Fields


def rows(connection: Any, sql: str) -> list[Fields]:
    """A query's rows as they come."""
    _send(connection, sql)
    return list(map(fields, _payloads(connection)))


def encoded(
    connection: Any, sql: str, table: Table, columns: Sequence[Column], envelope: Envelope
) -> Encoded:
    """A query's rows of `table`, of which these columns are the first that it selects.

    Raises Unsupported for a row that the description does not fit.
    """
    native = load()
    if native is None:
        return in_python(rows(connection, sql), table, columns, envelope)
    _send(connection, sql)
    return _natively(native, connection, table, columns, envelope)


def in_python(
    found: Sequence[Fields], table: Table, columns: Sequence[Column], envelope: Envelope
) -> Encoded:
    """The same in Python: the oracle, and what runs without native/."""
    makers = [fragment(c.kind) for c in columns]
    names = [c.name for c in columns]
    template, key_template = image_template(names), image_template(table.identity)
    places = [names.index(n) for n in table.identity]
    try:
        by_column = zip(makers, zip(*found, strict=True), strict=False)
        made = [["null" if v is None else make(v) for v in values] for make, values in by_column]
        fragments = list(zip(*made, strict=True))
    except ValueError:
        raise _misfit(table) from None  # its message may hold the row's values
    keys = [(key_template % tuple(row[i] for i in places)).encode() for row in fragments]
    values = [envelope.read(template % row, i) for i, row in enumerate(fragments)]
    size_bytes = sum(map(len, keys)) + sum(map(len, values))
    return Encoded(keys, values, size_bytes, found[-1] if found else [])


def fields(payload: bytes) -> Fields:
    """A row's columns."""
    found: Fields = []
    at, end = 0, len(payload)
    while at < end:
        size = payload[at]
        at += 1
        if size == _NULL:
            found.append(None)
            continue
        if width := _WIDTHS.get(size):
            size = int.from_bytes(payload[at : at + width], "little")
            at += width
        found.append(payload[at : at + size])
        at += size
    return found


def _natively(
    native: ModuleType, connection: Any, table: Table, columns: Sequence[Column], envelope: Envelope
) -> Encoded:
    encoder = result_encoder(native, columns, table.identity, envelope.tails.read)
    end = None
    while end is None:
        arrived = _arrived(connection)
        try:
            end = encoder.feed(arrived)
        except ValueError:
            raise _misfit(table) from None
    _check(end)
    (keys, values, size_bytes), last = encoder.rows()
    return Encoded(keys, values, size_bytes, fields(last))


def _payloads(connection: Any) -> list[bytes]:
    """Every row's payload, up to the packet that ends them."""
    found: list[bytes] = []
    buffer, split = bytearray(), b""
    while True:
        buffer += _arrived(connection)
        at, size = 0, len(buffer)
        with memoryview(buffer) as view:
            while size - at >= _HEAD_BYTES:
                length = int.from_bytes(view[at : at + 3], "little")
                end = at + _HEAD_BYTES + length
                if end > size:
                    break
                payload = split + bytes(view[at + _HEAD_BYTES : end])
                at, split = end, b""
                if length == _LONGEST:
                    split = payload
                elif payload[0] == _ERROR or (payload[0] == _EOF and length < _EOF_BELOW_BYTES):
                    _check(payload)
                    return found
                else:
                    found.append(payload)
        del buffer[:at]


def _arrived(connection: Any) -> bytes:
    """What the server has sent, as far as it is here; raises EOFError when it is gone."""
    arrived: bytes = connection._rfile.read1(_ARRIVED_BYTES)
    if not arrived:
        raise EOFError
    return arrived


def _check(end: bytes) -> None:
    """Raise the driver's error for a payload that ends the rows by one."""
    if end[0] == _ERROR:
        raise_mysql_exception(end)


def _send(connection: Any, sql: str) -> None:
    """Ask, and read what stands before the rows."""
    connection._execute_command(COM_QUERY, sql)
    connection._read_packet()
    while not connection._read_packet().is_eof_packet():
        pass  # the columns' definitions


def _misfit(table: Table) -> Unsupported:
    return Unsupported(
        f"found a row of {table.full_name} that does not fit its description",
        hint="copy the table anew; report it if the table was not altered",
    )
