"""The newest row of every key, from a log's rows in any order, in bounded memory.

What does not fit is split by key into files' stretches, each small enough to be looked at by
itself. Invariant: of a key the row with the greatest ordinal counts; a key whose newest row is a
delete, or stands before a truncate, has none.
"""

import marshal
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
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
Kind = tuple[str, bool]
"""A description's fingerprint, and whether its rows may lack columns."""
Columns = tuple[list[int], list[str], list[bytes], list[bytes]]
"""ordinals, ops, keys, values."""


class _Frame(NamedTuple):
    kind: Kind
    at: int
    size_bytes: int


class Newest:
    """`add` rows with ordinals that are unique and comparable over the whole log, then read."""

    def __init__(self, floors: Mapping[str, int], expected: int = 0) -> None:
        """floors: by a table's full name, the ordinal up to which its rows are gone. expected:
        about how many rows will come.
        """
        self._floors, self._expected = floors, expected
        self._parts = 1
        self._tables: dict[str, Table] = {}
        self._held: dict[str, dict[Kind, Columns]] = {}
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
        kinds = self._held.setdefault(table.full_name, {})
        held = kinds.setdefault((table.fingerprint, rows.partial), ([], [], [], []))
        _extend(held, (rows.ordinals, rows.ops, rows.keys, rows.values))
        self._bytes += rows.size_bytes
        if self._bytes > HELD_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = file = TemporaryFile(prefix="headwater-newest-")  # noqa: SIM115
            finalize(self, file.close)
            # As few parts as fit: within each, rows keep the log's order, which indexes like.
            held = sum(len(c[0]) for kinds in self._held.values() for c in kinds.values())
            self._parts = 2 + self._expected // held
        parts = self._parts
        for name, kinds in self._held.items():
            for kind, columns in kinds.items():
                by_part: list[list[int]] = [[] for _ in range(parts)]
                for i, key in enumerate(columns[2]):
                    by_part[hash(key) % parts].append(i)
                for part, at in enumerate(by_part):
                    if at:
                        data = marshal.dumps(_picked(columns, at))
                        frame = _Frame(kind, self._file.tell(), len(data))
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
            yield from self._newest(table, self._held.get(table, {}))
            return
        for part in range(self._parts):
            kinds: dict[Kind, Columns] = {}
            for frame in self._frames.get((table, part), ()):
                self._file.seek(frame.at)
                columns = kinds.setdefault(frame.kind, ([], [], [], []))
                _extend(columns, marshal.loads(self._file.read(frame.size_bytes)))
            yield from self._newest(table, kinds)

    def _newest(self, name: str, kinds: Mapping[Kind, Columns]) -> Iterator[Rows]:
        columns: Columns = ([], [], [], [])
        of: list[Kind] = []
        for kind, some in kinds.items():
            _extend(columns, some)
            of += [kind] * len(some[0])
        if "?" in columns[1]:
            _refuse_doubts(name, columns)
        # A row that does not count has the least ordinal: another one of its key stands after it.
        at = [i for i, op in enumerate(columns[1]) if op != "?"]
        at.sort(key=columns[0].__getitem__)
        if not at:
            return
        ordinals, ops, keys, values = columns = _picked(columns, at)
        of = [of[i] for i in at] if len(kinds) > 1 else of
        floor = self._floors.get(name, -1)
        rows = Rows(
            table=self._tables[of[0][0]],
            ops=ops,
            ordinals=ordinals,
            keys=keys,
            values=values,
            partial=any(is_partial for _, is_partial in kinds),
        )
        folded = fold(rows)
        by_kind: dict[Kind, list[int]] = {}
        for i in folded.upserts:
            if ordinals[i] > floor:
                by_kind.setdefault(of[i], []).append(i)
        for (fingerprint, is_partial), some_at in by_kind.items():
            some = _picked(columns, some_at)
            if folded.merged:
                images = (folded.merged.get(i) for i in some_at)
                some[3][:] = map(_image, some[3], images)
            yield Rows(
                table=self._tables[fingerprint],
                ops=["r"] * len(some_at),
                ordinals=some[0],
                keys=some[2],
                values=some[3],
                partial=is_partial,
            )


def _image(value: bytes, merged: dict[str, Any] | None) -> bytes:
    return value if merged is None else orjson.dumps({"after": merged, "op": "r"})


def _refuse_doubts(name: str, columns: Columns) -> None:
    """Raise LogTruncated for a key of which no row counts."""
    _, ops, keys, _ = columns
    counted = {key for key, op in zip(keys, ops, strict=True) if op != "?"}
    if doubts := len({*keys} - counted):
        raise LogTruncated(
            f"found {doubts} keys of {name} whose newest row does not count, in a topic that is "
            "compacted: the row that counted may be gone",
            hint="run it again in a minute, when the capture has ended its batch; if that does not "
            f"help: headwater snapshot SOURCE {name}",
        )


def _extend(columns: Sequence[list[Any]], more: Sequence[list[Any]]) -> None:
    for column, values in zip(columns, more, strict=True):
        column.extend(values)


def _picked(columns: Columns, at: Sequence[int]) -> Columns:
    if len(at) == 1:
        return tuple([column[at[0]]] for column in columns)  # type: ignore[return-value]
    pick = itemgetter(*at)
    return tuple(list(pick(column)) for column in columns)  # type: ignore[return-value]
