"""Connections for whoever reads next: taken by one thread at a time, opened when none is idle."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Any number of connections, as many as threads hold at once; callable from every thread."""

    def __init__(self, connect: Callable[[], T], disconnect: Callable[[T], None]) -> None:
        self._connect, self._disconnect = connect, disconnect
        self._idle: list[T] = []
        self._closings = 0
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[T]:
        """A connection of one's own. It is closed, and the idle ones with it, when anything is
        raised: one that broke off in the middle is of no more use, and the others may be as dead.
        """
        with self._lock:
            closings = self._closings
            idle = self._idle.pop() if self._idle else None
        one = self._connect() if idle is None else idle
        try:
            yield one
        except BaseException:
            self._disconnect(one)
            self.close()
            raise
        with self._lock:
            is_kept = closings == self._closings
            if is_kept:
                self._idle.append(one)
        if not is_kept:
            self._disconnect(one)

    def close(self) -> None:
        """Close those that are idle now, and those that are taken when they are given back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closings += 1
        for one in idle:
            self._disconnect(one)
