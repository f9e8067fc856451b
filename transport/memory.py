"""A log in memory, for tests: a `MemoryStore` outlives the logs over it, not the process."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from threading import Condition
from time import time
from typing import NamedTuple
from uuid import uuid4

from schemas.change import Rows
from schemas.table import Table
from transport.local import LocalLog
from transport.record import Entry, loads
from transport.store import span_of


class _Held(NamedTuple):
    data: bytes
    written_at: float


class MemoryStream:
    """One source's entries and rows by ascending number; implements transport.store.Store."""

    def __init__(self) -> None:
        self.incarnation = uuid4().hex
        self._entries: dict[int, _Held] = {}
        self._rows: dict[int, tuple[int, int, Rows]] = {}
        self._newest_row = 0
        self._readers: dict[str, tuple[str, float]] = {}
        self._changed = Condition()

    def writing(self, *, durable: bool) -> AbstractContextManager[object]:
        return self._changed

    def bounds(self) -> tuple[int, int]:
        with self._changed:
            return next(iter(self._entries), 1), next(reversed(self._entries), 0)

    def entries(self, after: int, limit: int) -> list[tuple[int, Entry]]:
        with self._changed:
            oldest, newest = self.bounds()
            start = max(after + 1, oldest)
            stop = min(start + limit, newest + 1)
            return [(offset, loads(self._entries[offset].data)) for offset in range(start, stop)]

    def written_at(self, after: int) -> float | None:
        with self._changed:
            later = (held.written_at for number, held in self._entries.items() if number > after)
            return next(later, None)

    def add_entry(self, entry: Entry) -> int:
        offset = self.bounds()[1] + 1
        self._entries[offset] = _Held(entry.dumps(), time())
        self._changed.notify_all()
        return offset

    def add_rows(self, epoch: int, run: int, rows: Rows) -> int:
        self._newest_row += 1
        self._rows[self._newest_row] = (epoch, run, rows)
        return self._newest_row

    def rows(self, epoch: int, run: int, first: int, last: int) -> Iterator[Rows]:
        with self._changed:
            held = [self._rows.get(number) for number in range(first, last + 1)]
        return iter([rows for e, r, rows in filter(None, held) if (e, r) == (epoch, run)])

    def reader(self, target: str) -> tuple[str, float] | None:
        return self._readers.get(target)

    def note_reader(self, target: str, session: str | None) -> None:
        self._readers.pop(target, None)
        if session is not None:
            self._readers[target] = session, time()

    def described(self) -> list[Table]:
        with self._changed:
            tables = [rows.table for _, _, rows in self._rows.values()]
        return list({table.fingerprint: table for table in tables}.values())

    def delete_orphans(self) -> None:
        with self._changed:
            spans = [span_of(loads(held.data)) for held in self._entries.values()]
            newest = max((span.last for span in spans if span), default=0)
            self._rows = {n: rows for n, rows in self._rows.items() if n <= newest}

    def delete_before(self, offset: int, age_s: float) -> None:
        with self._changed:
            for number, held in list(self._entries.items()):
                if number >= offset or held.written_at > time() - age_s:
                    break
                del self._entries[number]
                if span := span_of(loads(held.data)):
                    for row in range(span.first, span.last + 1):
                        self._rows.pop(row, None)

    def wait(self) -> None:
        with self._changed:
            self._changed.wait(0.005)

    def drop(self) -> list[str]:
        with self._changed:
            self.__dict__.update(MemoryStream().__dict__)
        return ["memory"]

    def close(self) -> None:
        """Nothing is open."""


class MemoryStore(dict[str, MemoryStream]):
    """Streams by source name, shared by the logs over it."""

    def __missing__(self, name: str) -> MemoryStream:
        return self.setdefault(name, MemoryStream())


class MemoryLog(LocalLog):
    """One source's log in a `MemoryStore`."""

    def __init__(self, source_name: str, store: MemoryStore) -> None:
        super().__init__(store[source_name])
