"""The rows of one batch as they come in from many partitions: kept in memory, or in runs in a
temporary file.

Invariant: at most one run is in memory while rows come in; given out, they are ordered by their
first ordinals, as transport/batch.py wants them, as often as asked.
"""

import marshal
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from tempfile import TemporaryFile
from typing import IO, NamedTuple
from weakref import finalize

from schemas.change import Rows
from schemas.table import Table

RUN_BYTES = 24 << 20
"""What a batch may hold in memory before it goes to disk."""
FRAME_ROWS = 500
"""Rows are read back in frames of this size, one of each run at a time: 10 million rows are about
140 runs.
"""

Row = tuple[int, str, bytes, bytes]
"""ordinal, op, key, value."""


class _Frame(NamedTuple):
    first: int
    fingerprint: str
    at: int
    size_bytes: int


class Runs:
    """Rows by description; `add` them in bulk, then read them any number of times."""

    def __init__(self, describe: Callable[[str], Table], partial: Collection[str] = ()) -> None:
        """`partial`: fingerprints of the descriptions some of whose rows lack columns."""
        self._describe = describe
        self._partial = partial
        self._rows: dict[bytes, list[Row]] = {}
        self._file: IO[bytes] | None = None
        self._frames: list[_Frame] = []

    def table(self, fingerprint: bytes) -> list[Row]:
        """The list to append this description's rows to, in any order; valid until `spill`."""
        return self._rows.setdefault(fingerprint, [])

    def spill(self) -> None:
        """Write what is in memory as one sorted run for each description."""
        if self._file is None:
            # Closed with the last reference: a batch may be read again while somebody holds it.
            self._file = file = TemporaryFile(prefix="headwater-rows-")  # noqa: SIM115
            finalize(self, file.close)
        for fingerprint, rows in self._rows.items():
            rows.sort()
            for start in range(0, len(rows), FRAME_ROWS):
                frame = rows[start : start + FRAME_ROWS]
                data = marshal.dumps(frame)
                self._frames.append(
                    _Frame(frame[0][0], fingerprint.decode(), self._file.tell(), len(data))
                )
                self._file.write(data)
        self._rows.clear()

    def finish(self) -> None:
        """Nothing more comes: order what is there."""
        if self._file is not None:
            self.spill()
            self._file.flush()
            self._frames.sort()
        for rows in self._rows.values():
            rows.sort()

    def read(self) -> Iterator[Rows]:
        """All rows, as Rows ordered by their first ordinals."""
        if self._file is None:
            for fingerprint, rows in sorted(self._rows.items(), key=lambda table: table[1][:1]):
                if rows:
                    yield self._pack(fingerprint.decode(), rows)
            return
        held: dict[str, list[Row]] = {}
        for frame in self._frames:
            # No later frame begins before this one: what lies below it is complete.
            yield from self._below(held, frame.first)
            # Positioned reads by hand: two readings of one batch may take turns.
            self._file.seek(frame.at)
            rows = held.setdefault(frame.fingerprint, [])
            rows += marshal.loads(self._file.read(frame.size_bytes))
            rows.sort()
        yield from self._below(held, None)

    def _below(self, held: dict[str, list[Row]], ordinal: int | None) -> list[Rows]:
        """Take the rows below the ordinal (None: all) out of `held`."""
        found = []
        for fingerprint, rows in held.items():
            count = len(rows) if ordinal is None else bisect_left(rows, (ordinal,))
            if count:
                found.append(self._pack(fingerprint, rows[:count]))
                del rows[:count]
        return sorted(found, key=lambda rows: rows.ordinals[0])

    def _pack(self, fingerprint: str, rows: list[Row]) -> Rows:
        table = self._describe(fingerprint)
        ordinals, ops, keys, values = map(list, zip(*rows, strict=True))
        return Rows(
            table=table,
            ops=ops,
            ordinals=ordinals,
            keys=keys,
            values=values,
            partial=fingerprint in self._partial,
        )
