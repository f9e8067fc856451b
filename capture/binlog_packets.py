"""Events as they arrive on a dump connection's socket: MySQL packets, unframed in bulk.

No thread and no retry: `receive` says what has arrived within a time, which is how the stream
knows that nothing more is waiting.
"""

import socket
from struct import unpack_from
from typing import NoReturn

from schemas.errors import Transient

_CHUNK = 1 << 18
_LONGEST = 0xFFFFFF


class ServerError(Exception):
    """An error packet: the server's number and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class ConnectionLost(Transient):
    """The dump connection ended, and the server did not say why."""


class Packets:
    """The event bytes behind a dump request on `sock`, plain or TLS."""

    __slots__ = ("_buffer", "_sock", "_split")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._split: list[bytes] = []

    def receive(self, timeout_s: float) -> list[bytes]:
        """Give the whole events that arrive within the time; empty when there is none yet.

        Raises ConnectionLost when the connection ends, ServerError when the server says why.
        """
        self._sock.settimeout(timeout_s)
        try:
            data = self._sock.recv(_CHUNK)
        except TimeoutError:
            return []
        except OSError as error:
            raise ConnectionLost("lost the connection to the binlog") from error
        if not data:
            raise ConnectionLost("lost the connection to the binlog: the server closed it")
        self._buffer += data
        return self._events()

    @property
    def is_partial(self) -> bool:
        """Whether the beginning of an event has arrived, but not its end."""
        return bool(self._buffer or self._split)

    def _events(self) -> list[bytes]:
        events: list[bytes] = []
        buffer, at, size = self._buffer, 0, len(self._buffer)
        with memoryview(buffer) as view:
            while at + 4 <= size:
                length = buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16
                end = at + 4 + length
                if end > size:
                    break
                if length == _LONGEST or self._split:
                    self._join(bytes(view[at + 4 : end]), events)
                elif length and buffer[at + 4] == 0:
                    events.append(bytes(view[at + 5 : end]))
                else:
                    _refuse(bytes(view[at + 4 : end]))
                at = end
        del buffer[:at]
        return events

    def _join(self, part: bytes, events: list[bytes]) -> None:
        """Events of 16 MB and more come in several packets, the last one shorter."""
        self._split.append(part)
        if len(part) < _LONGEST:
            whole = b"".join(self._split)
            self._split = []
            if whole[0]:
                _refuse(whole)
            events.append(whole[1:])


def _refuse(packet: bytes) -> NoReturn:
    if packet[:1] == b"\xff":
        (code,) = unpack_from("<H", packet, 1)
        text = packet[3:]
        message = (text[6:] if text[:1] == b"#" else text).decode("utf-8", "replace")
        raise ServerError(code, message)
    raise ConnectionLost("lost the connection to the binlog: the server ended the dump")
