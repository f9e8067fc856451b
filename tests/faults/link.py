"""A way to a server that breaks after so many bytes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Link:
    """Passes bytes on, at `port`; each connection is cut once `left` bytes went through it."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.left: int | None = None
        self.cuts = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._open += near, far
                room = [self.left]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(*pair, room), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket, room: list[int | None]) -> None:
        with suppress(OSError):
            while data := here.recv(1 << 16):
                if room[0] is not None:
                    data, room[0] = data[: room[0]], max(0, room[0] - len(data))
                there.sendall(data)
                if room[0] == 0:
                    self.cuts += 1
                    break
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut everything."""
        for end in (self._listener, *self._open):
            with suppress(OSError):
                end.close()


@contextmanager
def link(host: str, port: int) -> Iterator[Link]:
    """A link that stands until the end."""
    made = Link(host, port)
    try:
        yield made
    finally:
        made.close()
