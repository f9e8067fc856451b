"""The rows of a batch as they come in from many partitions: kept in memory, or in runs in a
temporary file.

Invariant: at most one run is in memory while rows come in; given out, they are ordered by their
first ordinals, as transport/batch.py wants them, as often as asked.
"""

import marshal
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
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

Columns = tuple[list[int], list[str], list[bytes], list[bytes]]
"""ordinals, ops, keys, values."""


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
        self._rows: dict[str, Columns] = {}
        self._file: IO[bytes] | None = None
        self._frames: list[_Frame] = []

    def add(
        self,
        fingerprint: str,
        ordinals: Sequence[int],
        ops: Sequence[str],
        keys: Sequence[bytes],
        values: Sequence[bytes],
    ) -> None:
        """Add a description's rows, in any order."""
        rows = self._rows.setdefault(fingerprint, ([], [], [], []))
        _extend(rows, ordinals, ops, keys, values)

    def spill(self) -> None:
        """Write what is in memory as one sorted run for each description."""
        if self._file is None:
            # Closed with the last reference: a batch may be read again while somebody holds it.
            self._file = file = TemporaryFile(prefix="headwater-rows-")  # noqa: SIM115
            finalize(self, file.close)
        for fingerprint, rows in self._rows.items():
            columns = _sorted(rows)
            for start in range(0, len(columns[0]), FRAME_ROWS):
                frame = [column[start : start + FRAME_ROWS] for column in columns]
                data = marshal.dumps(frame)
                self._frames.append(
                    _Frame(columns[0][start], fingerprint, self._file.tell(), len(data))
                )
                self._file.write(data)
        self._rows.clear()

    def finish(self) -> None:
        """Nothing more comes: order what is there."""
        if self._file is not None:
            self.spill()
            self._file.flush()
            self._frames.sort()
        self._rows = {fingerprint: _sorted(rows) for fingerprint, rows in self._rows.items()}

    def read(self) -> Iterator[Rows]:
        """All rows, as Rows ordered by their first ordinals."""
        if self._file is None:
            for fingerprint, rows in sorted(self._rows.items(), key=lambda table: table[1][0][:1]):
                if rows[0]:
                    yield self._pack(fingerprint, rows)
            return
        held: dict[str, Columns] = {}
        for frame in self._frames:
            # No later frame begins before this one: what lies below it is complete.
            yield from self._below(held, frame.first)
            # Positioned reads by hand: two readings of one batch may take turns.
            self._file.seek(frame.at)
            rows = held.setdefault(frame.fingerprint, ([], [], [], []))
            _extend(rows, *marshal.loads(self._file.read(frame.size_bytes)))
            held[frame.fingerprint] = _sorted(rows)
        yield from self._below(held, None)

    def _below(self, held: dict[str, Columns], ordinal: int | None) -> list[Rows]:
        """Take the rows below the ordinal (None: all) out of `held`."""
        found = []
        for fingerprint, rows in held.items():
            count = len(rows[0]) if ordinal is None else bisect_left(rows[0], ordinal)
            if count:
                ordinals, ops, keys, values = rows
                taken = ordinals[:count], ops[:count], keys[:count], values[:count]
                found.append(self._pack(fingerprint, taken))
                held[fingerprint] = ordinals[count:], ops[count:], keys[count:], values[count:]
        return sorted(found, key=lambda rows: rows.ordinals[0])

    def _pack(self, fingerprint: str, rows: Columns) -> Rows:
        table = self._describe(fingerprint)
        ordinals, ops, keys, values = rows
        return Rows(
            table=table,
            ops=ops,
            ordinals=ordinals,
            keys=keys,
            values=values,
            partial=fingerprint in self._partial,
        )


def _extend(
    rows: Columns,
    ordinals: Sequence[int],
    ops: Sequence[str],
    keys: Sequence[bytes],
    values: Sequence[bytes],
) -> None:
    rows[0].extend(ordinals)
    rows[1].extend(ops)
    rows[2].extend(keys)
    rows[3].extend(values)


def _sorted(rows: Columns) -> Columns:
    """The rows by their ordinals; a few ascending stretches, one a partition, are merged."""
    ordinals, ops, keys, values = rows
    order = sorted(range(len(ordinals)), key=ordinals.__getitem__)
    return (
        [ordinals[i] for i in order],
        [ops[i] for i in order],
        [keys[i] for i in order],
        [values[i] for i in order],
    )
