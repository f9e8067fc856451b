"""A query's rows in MySQL's text protocol: as its bytes, or as wire rows.

pymysql sends the query and reads the columns' definitions. Rows it would take apart one packet at a
time; the compiled extension takes them as they come from the socket, and Python's lock is not held
meanwhile.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from pymysql.constants.COMMAND import COM_QUERY
from pymysql.err import raise_mysql_exception
from pymysql.protocol import MysqlPacket

from capture.mysql_native import result_encoder
from schemas.codec import Envelope, image_template
from schemas.errors import Unsupported
from schemas.mysql_text import fragment
from schemas.native import load
from schemas.table import Column, Table

_ARRIVED_BYTES = 1 << 18
_ERROR = 0xFF

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
    found = []
    while not (packet := connection._read_packet()).is_eof_packet():
        found.append(_fields(packet))
    return found


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
        fragments = [
            tuple("null" if v is None else make(v) for make, v in zip(makers, row, strict=False))
            for row in found
        ]
    except ValueError:
        raise _misfit(table) from None  # its message may hold the row's values
    keys = [(key_template % tuple(row[i] for i in places)).encode() for row in fragments]
    values = [envelope.read(template % row, i) for i, row in enumerate(fragments)]
    size_bytes = sum(map(len, keys)) + sum(map(len, values))
    return Encoded(keys, values, size_bytes, found[-1] if found else [])


def _natively(
    native: ModuleType, connection: Any, table: Table, columns: Sequence[Column], envelope: Envelope
) -> Encoded:
    encoder = result_encoder(native, columns, table.identity, envelope.tails.read)
    end = None
    while end is None:
        arrived = connection._rfile.read1(_ARRIVED_BYTES)
        if not arrived:
            raise EOFError
        try:
            end = encoder.feed(arrived)
        except ValueError:
            raise _misfit(table) from None
    if end[0] == _ERROR:
        raise_mysql_exception(end)
    (keys, values, size_bytes), last = encoder.rows()
    return Encoded(keys, values, size_bytes, _fields(MysqlPacket(last, "")) if keys else [])


def _send(connection: Any, sql: str) -> None:
    """Ask, and read what stands before the rows."""
    connection._execute_command(COM_QUERY, sql)
    connection._read_packet()
    while not connection._read_packet().is_eof_packet():
        pass  # the columns' definitions


def _fields(packet: Any) -> Fields:
    found = []
    size = len(packet.get_all_data())
    while packet._position < size:
        found.append(packet.read_length_coded_string())
    return found


def _misfit(table: Table) -> Unsupported:
    return Unsupported(
        f"found a row of {table.full_name} that does not fit its description",
        hint="copy the table anew; report it if the table was not altered",
    )
