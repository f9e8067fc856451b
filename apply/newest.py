"""The newest row of every key, from a log's rows in any order, in bounded memory.

What does not fit is split by key into files' stretches, each small enough to be looked at by
itself. Invariant: of a key the row with the greatest ordinal counts; a key whose newest row is a
delete, or stands before a truncate, has none.
"""

import marshal
from collections.abc import Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple
from weakref import finalize

import orjson

from apply.fold import fold
from schemas.change import Rows
from schemas.errors import LogTruncated
from schemas.table import Table

HELD_BYTES = 48 << 20
"""Rows in memory before they go to disk."""
PARTS = 256
"""Keys are split into so many: one is looked at in memory, a terabyte's would be 4 GB."""

_Columns = tuple[list[str], list[bool], list[int], list[str], list[bytes], list[bytes]]
"""fingerprints, whether partial, ordinals, ops, keys, values."""


class _Frame(NamedTuple):
    at: int
    size_bytes: int


class Newest:
    """`add` rows with ordinals that are unique and comparable over the whole log, then read."""

    def __init__(self, floors: Mapping[str, int]) -> None:
        """floors: by a table's full name, the ordinal up to which its rows are gone."""
        self._floors = floors
        self._tables: dict[str, Table] = {}
        self._held: dict[str, _Columns] = {}
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._frames: dict[tuple[str, int], list[_Frame]] = {}

    @property
    def descriptions(self) -> list[Table]:
        """Of the rows that came."""
        return list(self._tables.values())

    def add(self, rows: Rows) -> None:
        """Take rows in."""
        table = rows.table
        self._tables.setdefault(table.fingerprint, table)
        held = self._held.setdefault(table.full_name, ([], [], [], [], [], []))
        _extend(held, rows.ordinals, rows.ops, rows.keys, rows.values)
        held[0].extend([table.fingerprint] * len(rows))
        held[1].extend([rows.partial] * len(rows))
        self._bytes += rows.size_bytes
        if self._bytes > HELD_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = file = TemporaryFile(prefix="headwater-newest-")  # noqa: SIM115
            finalize(self, file.close)
        for name, columns in self._held.items():
            by_part: list[list[int]] = [[] for _ in range(PARTS)]
            for i, key in enumerate(columns[4]):
                by_part[hash(key) % PARTS].append(i)
            for part, at in enumerate(by_part):
                if at:
                    data = marshal.dumps([[column[i] for i in at] for column in columns])
                    frame = _Frame(self._file.tell(), len(data))
                    self._frames.setdefault((name, part), []).append(frame)
                    self._file.write(data)
        self._held.clear()
        self._bytes = 0

    def finish(self) -> None:
        """Nothing more comes."""
        if self._file is not None:
            self._spill()
            self._file.flush()

    def read(self, table: str) -> Iterator[Rows]:
        """The table's rows that are there at the end, as rows of a first copy; their ordinals are
        the log's. As often as asked. Raises LogTruncated where a key's newest row may be gone.
        """
        if self._file is None:
            if table in self._held:
                yield from self._newest(table, self._held[table])
            return
        for part in range(PARTS):
            columns: _Columns = ([], [], [], [], [], [])
            for frame in self._frames.get((table, part), ()):
                self._file.seek(frame.at)
                _extend(columns, *marshal.loads(self._file.read(frame.size_bytes)))
            if columns[0]:
                yield from self._newest(table, columns)

    def _newest(self, name: str, columns: _Columns) -> Iterator[Rows]:
        if "?" in columns[3]:
            columns = _without_doubts(name, columns)
        if not columns[0]:
            return
        columns = _sorted(columns)
        fingerprints, are_partial, ordinals, ops, keys, values = columns
        floor = self._floors.get(name, -1)
        rows = Rows(
            table=self._tables[fingerprints[0]],
            ops=ops,
            ordinals=ordinals,
            keys=keys,
            values=values,
            partial=any(are_partial),
        )
        folded = fold(rows)
        at = [i for i in folded.upserts if ordinals[i] > floor]
        by_kind: dict[tuple[str, bool], list[int]] = {}
        for i in at:
            by_kind.setdefault((fingerprints[i], are_partial[i]), []).append(i)
        for (fingerprint, is_partial), some in by_kind.items():
            yield Rows(
                table=self._tables[fingerprint],
                ops=["r"] * len(some),
                ordinals=[ordinals[i] for i in some],
                keys=[keys[i] for i in some],
                values=[_image(values[i], folded.merged.get(i)) for i in some]
                if folded.merged
                else [values[i] for i in some],
                partial=is_partial,
            )


def _image(value: bytes, merged: dict[str, Any] | None) -> bytes:
    return value if merged is None else orjson.dumps({"after": merged, "op": "r"})


def _extend(columns: Sequence[list[Any]], *more: Sequence[Any]) -> None:
    """Add to the last columns."""
    for column, values in zip(columns[-len(more) :], more, strict=True):
        column.extend(values)


def _without_doubts(name: str, columns: _Columns) -> _Columns:
    """Without the rows that do not count; raises LogTruncated for a key that has no other."""
    ops, keys = columns[3], columns[4]
    counted = {key for key, op in zip(keys, ops, strict=True) if op != "?"}
    if doubts := len({*keys} - counted):
        raise LogTruncated(
            f"found {doubts} keys of {name} whose newest row does not count, in a topic that is "
            "compacted: the row that counted may be gone",
            hint="run it again in a minute, when the capture has ended its batch; if that does not "
            f"help: headwater snapshot SOURCE {name}",
        )
    at = [i for i, op in enumerate(ops) if op != "?"]
    return _picked(columns, at)


def _sorted(columns: _Columns) -> _Columns:
    """By ordinal; rows with the same one in the order in which they came."""
    ordinals = columns[2]
    return _picked(columns, sorted(range(len(ordinals)), key=ordinals.__getitem__))


def _picked(columns: _Columns, at: Sequence[int]) -> _Columns:
    fingerprints, are_partial, ordinals, ops, keys, values = columns
    return (
        [fingerprints[i] for i in at],
        [are_partial[i] for i in at],
        [ordinals[i] for i in at],
        [ops[i] for i in at],
        [keys[i] for i in at],
        [values[i] for i in at],
    )
