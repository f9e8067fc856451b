"""Chunks while they are read by threads of their own, and what the stream does meanwhile.

A chunk must include every commit that was streamed before its read began; rows that the stream
touched from then on, until the chunk is placed, are left to the stream.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from capture.copies import Copy, Range
from capture.source import Chunk, Source
from schemas.change import Rows
from schemas.table import Table

PRUNE_AT = 5_000


class Marks:
    """Streamed commits of which no read is known to see them yet (Commit.marks), in order."""

    def __init__(self) -> None:
        self._marks: list[str] = []
        self._before = 0

    @property
    def end(self) -> int:
        """How many there were in all."""
        return self._before + len(self._marks)

    def add(self, marks: Iterable[str]) -> None:
        """The newest."""
        self._marks.extend(marks)

    @property
    def unseen(self) -> Sequence[str]:
        """Those that are not known to be seen."""
        return tuple(self._marks)

    def forget(self, end: int) -> None:
        """The first `end` are seen by every later read."""
        known = max(0, end - self._before)
        del self._marks[:known]
        self._before += known

    def prune(self, source: Source) -> None:
        """Ask the server what is seen by now, where they have become many."""
        if len(self._marks) > PRUNE_AT:
            end = self.end
            if source.sees(source.visible(), self._marks):
                self.forget(end)


@dataclass(slots=True, eq=False)
class Reading:
    """One chunk, being read or waiting for its place.

    must_see: the marks that its read must include, all up to `marks_end`.
    """

    copy: Copy
    range: Range
    run: int
    must_see: Sequence[str]
    marks_end: int
    future: "Future[tuple[Chunk, float]]"
    touched: set[bytes] = field(default_factory=set)
    _partial: set[bytes] = field(default_factory=set)
    _is_unlike: bool = False

    def note(self, rows: Rows) -> None:
        """The stream gave rows of some table."""
        if rows.table.full_name != self.copy.table.full_name:
            return
        self.touched.update(rows.keys)
        if rows.partial:
            self._partial.update(rows.keys)
        self._is_unlike |= not _is_alike(rows.table, self.copy.table)

    @property
    def chunk(self) -> Chunk:
        """What was read; raises what the reader raised."""
        return self.future.result()[0]

    @property
    def took_s(self) -> float:
        """How long it took."""
        return self.future.result()[1]

    @property
    def is_stale(self) -> bool:
        """Whether it must be read again: a change without its TOAST values cannot stand for the
        chunk's row, nor the chunk's row for the change.
        """
        return self._is_unlike or not self._partial.isdisjoint(self.chunk.keys)


class Readers:
    """The threads that read, and look for borders."""

    def __init__(self, source: Source, count: int) -> None:
        self._source, self._pool = source, ThreadPoolExecutor(count, "headwater-reader")
        self._scouts: list[Future[Any]] = []

    def find(self, table: Table, after: Any, rows: int, until: Any) -> "Future[Any]":
        """See copies.Find."""
        found = self._pool.submit(self._source.boundary, table, after, rows, until=until)
        self._scouts = [s for s in self._scouts if not s.done()] + [found]
        return found

    def read(self, copy: Copy, of: Range, *, epoch: int, run: int, marks: Marks) -> Reading:
        """Begin to read a range."""
        source, keys, table = self._source, copy.keys, copy.table

        def chunk() -> Chunk:
            if keys is not None:
                return source.chunk_of(table, keys, epoch=epoch, run=run)
            # Rows may have come into the range since its end was found; what is too much is left.
            return source.chunk(
                table, of.after, 2 * copy.rows, until=of.until, epoch=epoch, run=run
            )

        must_see, end = marks.unseen, marks.end
        return Reading(copy, of, run, must_see, end, self._pool.submit(_timed, chunk))

    def wait(self, readings: Sequence[Reading]) -> bool:
        """Wait until something is found or read; False when nothing is on its way."""
        due = [f for f in (*(r.future for r in readings), *self._scouts) if not f.done()]
        if due:
            wait(due, return_when=FIRST_COMPLETED)
        return bool(due)

    def close(self) -> None:
        """Begin nothing more; what is being read ends with the source's connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _timed(read: Callable[[], Chunk]) -> tuple[Chunk, float]:
    begun = monotonic()
    return read(), monotonic() - begun


def _is_alike(one: Table, other: Table) -> bool:
    """Whether a chunk may stand beside the stream's rows. Labels of an ENUM may differ: MySQL's
    catalog shows a question mark where they have a character outside the BMP, at every read.
    """
    return one.fingerprint == other.fingerprint or _shape(one) == _shape(other)


def _shape(table: Table) -> Table:
    columns = [replace(c, kind=replace(c.kind, labels=()), native="") for c in table.columns]
    return replace(table, columns=tuple(columns))
