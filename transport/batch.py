"""A batch as readers get it, from its commit record and a way to fetch its rows again and again."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from schemas.change import Offset, Position, Rows, Truncate
from schemas.errors import LogTruncated
from transport.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """Implements schemas.change.Batch; `fetch` gives its runs of rows by their first ordinals."""

    record: Record
    offset: Offset
    fetch: Callable[[], Iterator[Rows]]

    @property
    def batch(self) -> int:
        return self.record.batch

    @property
    def epoch(self) -> int:
        return self.record.epoch

    @property
    def from_position(self) -> Position:
        """Empty text for the log's first batch, which begins nowhere."""
        return self.record.from_position or Position("")

    @property
    def position(self) -> Position:
        return self.record.position

    @property
    def committed_at(self) -> int | None:
        return self.record.committed_at

    @property
    def transactions(self) -> int:
        return self.record.transactions

    @property
    def row_count(self) -> int:
        return self.record.row_count

    @property
    def truncates(self) -> Sequence[Truncate]:
        return self.record.truncates

    @property
    def is_empty(self) -> bool:
        return not self.record.truncates and not self.record.row_count

    @property
    def seeds(self) -> bool:
        return self.record.seeds

    @property
    def pending(self) -> frozenset[str]:
        return self.record.pending

    def blocks(self, max_rows: int = 20_000) -> Iterator[Sequence[Rows]]:
        if not self.record.row_count:
            return
        rows = 0
        for block in cut(self.fetch(), sorted(t.ordinal for t in self.truncates), max_rows):
            rows += sum(map(len, block))
            yield block
        if rows != self.row_count:
            raise LogTruncated(
                f"found {rows} of the {self.row_count} rows of batch {self.batch}",
                hint="rebuild the target: the log has lost rows, or retention passed this reader",
            )


def cut(runs: Iterator[Rows], truncates: Sequence[int], max_rows: int) -> Iterator[list[Rows]]:
    """Cut runs, ordered by their first ordinals, into the blocks that Batch.blocks describes.

    Holds at most `max_rows` rows and the runs that overlap them.
    """
    held: list[Rows] = []
    borders = deque(truncates)
    for run in chain(runs, [None]):
        # What lies before the newest run's first ordinal is complete: later runs begin later still.
        complete = run.ordinals[0] if run else inf
        while held:
            border = borders[0] if borders else inf
            if run and border > complete and sum(map(len, held)) < max_rows:
                break
            block, held = _split(held, min(border, complete), max_rows)
            if block:
                yield block
            elif border <= complete:
                borders.popleft()
            else:
                break
        if run:
            held.append(run)


def _split(held: list[Rows], end: float, max_rows: int) -> tuple[list[Rows], list[Rows]]:
    """The first `max_rows` rows below the ordinal `end` grouped by table, and what is left."""
    ordinals = sorted([o for run in held for o in run.ordinals])
    count = min(max_rows, bisect_left(ordinals, end))
    if count == len(ordinals):
        return _group(held), []
    if not count:
        return [], held
    taken, left = [], []
    for run in held:
        at = bisect_left(run.ordinals, ordinals[count])
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
    groups: dict[str, Rows] = {}
    for run in runs:
        group = groups.get(run.table.fingerprint)
        if group is None:
            groups[run.table.fingerprint] = run
            continue
        groups[run.table.fingerprint] = Rows(
            table=run.table,
            ops=group.ops + run.ops,
            ordinals=group.ordinals + run.ordinals,
            keys=group.keys + run.keys,
            values=group.values + run.values,
            partial=group.partial or run.partial,
        )
    return list(groups.values())


def pieces(rows: Sequence[Rows], max_rows: int, max_bytes: int) -> list[Rows]:
    """Rows in runs small enough to be stored and fetched one by one, ordered by first ordinals."""
    result: list[Rows] = []
    for run in rows:
        if run.ops:
            step = min(max_rows, max(1, max_bytes * len(run) // (run.size_bytes or 1)))
            result += [_slice(run, at, min(at + step, len(run))) for at in range(0, len(run), step)]
    return sorted(result, key=lambda run: run.ordinals[0])
