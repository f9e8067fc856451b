"""A PyMySQL connection whose LOAD DATA LOCAL sends one given stream, whatever file the server asks
for.

The protocol lets the *server* name the file to send: a hostile one could ask for any file of this
machine (https://dev.mysql.com/doc/refman/8.4/en/load-data-local-security.html). So no path is ever
opened here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymysql.connections import Connection, MySQLResult

PACKET_BYTES = 1 << 20


class StreamConnection(Connection):
    """Set `outgoing` before a LOAD DATA LOCAL; without it, nothing is sent."""

    outgoing: bytes = b""

    def _read_query_result(self, unbuffered: bool = False) -> int:
        if unbuffered:
            return int(super()._read_query_result(unbuffered))  # type: ignore[misc]
        self._result: Any = None
        result = _Result(self)
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows or 0


class _Result(MySQLResult):
    connection: StreamConnection

    def _read_load_local_packet(self, first_packet: Any) -> None:
        connection: Any = self.connection
        data, connection.outgoing = memoryview(connection.outgoing), b""
        size = min(PACKET_BYTES, connection.max_allowed_packet)
        for at in range(0, len(data), size):
            connection.write_packet(bytes(data[at : at + size]))
        connection.write_packet(b"")
        self._read_ok_packet(connection._read_packet())  # type: ignore[attr-defined]


@contextmanager
def undecoded(connection: "Connection[Any]") -> Iterator[None]:
    """Give results of this connection as the bytes that the server sent."""
    decoders, use_unicode = connection.decoders, connection.use_unicode
    connection.decoders, connection.use_unicode = {}, False
    try:
        yield
    finally:
        connection.decoders, connection.use_unicode = decoders, use_unicode
