"""A batch as readers get it: commit records, and a way to fetch their rows again and again."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from schemas.change import Offset, Position, Progress, Rows, Sweep, Truncate
from schemas.errors import LogTruncated
from transport.record import Record

PLACE_BITS = 40
"""Where several batches are given as one, the n-th one's ordinals have n above these bits."""
BLOCK_BYTES = 16 << 20
"""A block is cut when it holds so much, whatever the number of its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """Implements schemas.change.Batch; `fetch` gives its runs of rows by their first ordinals.

    records: one, or several that follow each other and are given as one (transport/joined.py).
    target: whose reader this is (None: nobody's).
    """

    records: tuple[Record, ...]
    offset: Offset
    fetch: Callable[[], Iterator[Rows]]
    target: str | None

    @property
    def record(self) -> Record:
        """The newest."""
        return self.records[-1]

    @property
    def batch(self) -> int:
        return self.record.batch

    @property
    def batches(self) -> int:
        return len(self.records)

    @property
    def epoch(self) -> int:
        return self.record.epoch

    @property
    def from_position(self) -> Position:
        """Empty text for the log's first batch, which begins nowhere."""
        return self.records[0].from_position or Position("")

    @property
    def position(self) -> Position:
        return self.record.position

    @property
    def committed_at(self) -> int | None:
        return max((r.committed_at for r in self.records if r.committed_at), default=None)

    @property
    def transactions(self) -> int:
        return sum(record.transactions for record in self.records)

    @property
    def row_count(self) -> int:
        return sum(record.row_count for record in self.records)

    @property
    def truncates(self) -> Sequence[Truncate]:
        return self.record.truncates

    @property
    def is_empty(self) -> bool:
        return not (self.truncates or self.sweeps or self.row_count)

    @property
    def seeds(self) -> bool:
        return self.record.seeds

    @property
    def progress(self) -> Progress:
        return self.record.progress

    @property
    def pending(self) -> frozenset[str]:
        return self.record.pending(self.target)

    @property
    def check(self) -> bool:
        return self.record.check

    @property
    def sweeps(self) -> Sequence[Sweep]:
        return self.record.sweeps

    def place(self, ordinal: int) -> tuple[int, int]:
        number = ordinal >> PLACE_BITS
        return self.records[number].batch, ordinal - (number << PLACE_BITS)

    def blocks(self, max_rows: int = 20_000) -> Iterator[Sequence[Rows]]:
        wanted = self.row_count
        if not wanted:
            return
        rows = 0
        for block in cut(self.fetch(), sorted(t.ordinal for t in self.truncates), max_rows):
            rows += sum(map(len, block))
            yield block
        if rows != wanted:
            raise LogTruncated(
                f"found {rows} of the {wanted} rows up to batch {self.batch}"
                if self.batches > 1
                else f"found {rows} of the {wanted} rows of batch {self.batch}",
                hint="rebuild the target: the log has lost rows, or retention passed this reader",
            )


def cut(runs: Iterator[Rows], truncates: Sequence[int], max_rows: int) -> Iterator[list[Rows]]:
    """Cut runs, ordered by their first ordinals, into the blocks that Batch.blocks describes.

    Holds at most `max_rows` rows, or BLOCK_BYTES, and the runs that overlap them.
    """
    held: list[Rows] = []
    rows = size_bytes = 0
    borders = deque(truncates)
    for run in chain(runs, [None]):
        # What lies before the newest run's first ordinal is complete: later runs begin later still.
        complete = run.ordinals[0] if run else inf
        while held:
            border = borders[0] if borders else inf
            is_full = rows >= max_rows or (
                # Not row by row, where many tables' runs overlap: what is held stays held.
                size_bytes >= BLOCK_BYTES and 2 * _count(held, complete) >= rows
            )
            if run and border > complete and not is_full:
                break
            block, held = _split(held, min(border, complete, _switch(held)), max_rows)
            if block:
                rows = sum(map(len, held))
                size_bytes = sum([left.size_bytes for left in held])
                yield block
            elif border <= complete:
                borders.popleft()
            else:
                break
        if run:
            held.append(run)
            rows += len(run)
            size_bytes += run.size_bytes


def _count(held: list[Rows], end: float) -> int:
    """How many rows lie below the ordinal `end`."""
    return sum([bisect_left(run.ordinals, end) for run in held])


def _switch(held: list[Rows]) -> float:
    """The first ordinal at which a table has another description than before."""
    first: dict[tuple[str, str], int] = {}
    for run in held:
        of = run.table.full_name, run.table.fingerprint
        first[of] = min(first.get(of, run.ordinals[0]), run.ordinals[0])
    begins: dict[str, int] = {}
    switch = inf
    for (name, _), ordinal in sorted(first.items(), key=lambda found: found[1]):
        if begins.setdefault(name, ordinal) != ordinal:
            switch = min(switch, ordinal)
    return switch


def _split(held: list[Rows], end: float, max_rows: int) -> tuple[list[Rows], list[Rows]]:
    """The first `max_rows` rows below the ordinal `end` grouped by table, and what is left."""
    count = _count(held, end)
    if count > max_rows:
        end = sorted(chain.from_iterable(run.ordinals for run in held))[max_rows]
    elif count == sum(map(len, held)):
        return _group(held), []
    elif not count:
        return [], held
    taken, left = [], []
    for run in held:
        at = bisect_left(run.ordinals, end)
        if at:
            taken.append(_slice(run, 0, at))
        if at < len(run):
            left.append(_slice(run, at, len(run)))
    return _group(taken), left


def _slice(rows: Rows, start: int, stop: int) -> Rows:
    if start == 0 and stop == len(rows):
        return rows
    return Rows(
        table=rows.table,
        ops=rows.ops[start:stop],
        ordinals=rows.ordinals[start:stop],
        keys=rows.keys[start:stop],
        values=rows.values[start:stop],
        partial=rows.partial,
    )


def _group(runs: list[Rows]) -> list[Rows]:
    """One Rows for each description, in the order of their first ordinals."""
    groups: dict[str, list[Rows]] = {}
    for run in runs:
        groups.setdefault(run.table.fingerprint, []).append(run)
    return [_joined(group) for group in groups.values()]


def _joined(runs: list[Rows]) -> Rows:
    if len(runs) == 1:
        return runs[0]
    return Rows(
        table=runs[0].table,
        ops=list(chain.from_iterable([run.ops for run in runs])),
        ordinals=list(chain.from_iterable([run.ordinals for run in runs])),
        keys=list(chain.from_iterable([run.keys for run in runs])),
        values=list(chain.from_iterable([run.values for run in runs])),
        partial=any(run.partial for run in runs),
    )


def pieces(rows: Sequence[Rows], max_rows: int, max_bytes: int) -> list[Rows]:
    """Rows in runs small enough to be stored and fetched one by one, ordered by first ordinals."""
    result: list[Rows] = []
    for run in rows:
        if run.ops:
            step = min(max_rows, max(1, max_bytes * len(run) // (run.size_bytes or 1)))
            result += [_slice(run, at, min(at + step, len(run))) for at in range(0, len(run), step)]
    return sorted(result, key=lambda run: run.ordinals[0])
