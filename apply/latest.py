"""A log's rows as they are at the end of one batch, as ONE batch that copies them: what a rebuild
writes.

Tables come parents first. Its place in the log is that batch's, so that an apply goes on after it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

from apply.newest import Newest
from apply.plans import ranks
from schemas.change import Batch, Offset, Position, Progress, Rows, Sweep, Truncate
from transport.batch import PLACE_BITS


@dataclass(frozen=True, kw_only=True)
class LatestBatch:
    """Implements schemas.change.Batch. end: the batch at whose end the rows are so; seen:
    told how many rows were given so far. parents: by table, those that it refers to beside its
    foreign keys.
    """

    end: Batch
    newest: Newest
    row_count: int
    seen: Callable[[int], None] = lambda rows: None
    parents: Mapping[str, Collection[str]] = field(default_factory=dict)
    truncates: Sequence[Truncate] = ()
    sweeps: Sequence[Sweep] = ()
    check: bool = False
    batches: int = 1
    seeds: bool = False
    is_empty: bool = False

    @property
    def offset(self) -> Offset:
        return self.end.offset

    @property
    def batch(self) -> int:
        return self.end.batch

    @property
    def epoch(self) -> int:
        return self.end.epoch

    @property
    def from_position(self) -> Position:
        return self.end.from_position

    @property
    def position(self) -> Position:
        return self.end.position

    @property
    def committed_at(self) -> int | None:
        return self.end.committed_at

    @property
    def transactions(self) -> int:
        return 0

    @property
    def progress(self) -> Progress:
        return self.end.progress

    @property
    def pending(self) -> frozenset[str]:
        return self.end.pending

    @cached_property
    def _places(self) -> dict[int, int]:
        return {}

    def place(self, ordinal: int) -> tuple[int, int]:
        at = self._places.get(ordinal, 0)
        return at >> PLACE_BITS, at & ((1 << PLACE_BITS) - 1)

    def blocks(self, max_rows: int = 20_000) -> Iterator[Sequence[Rows]]:
        tables = {t.full_name: t for t in self.newest.descriptions}
        order = ranks(list(tables.values()), self.parents)
        numbers = count()
        given = 0
        for name in sorted(tables, key=order.__getitem__):
            for rows in self.newest.read(name):
                for at in range(0, len(rows), max_rows):
                    end = at + max_rows
                    places = rows.ordinals[at:end]
                    # Later than every parent's: what a key meant is told by ordinals.
                    ordinals = [next(numbers) for _ in places]
                    self._places.clear()
                    self._places.update(zip(ordinals, places, strict=True))
                    yield [
                        replace(
                            rows,
                            ops=rows.ops[at:end],
                            ordinals=ordinals,
                            keys=rows.keys[at:end],
                            values=rows.values[at:end],
                        )
                    ]
                    given += len(ordinals)
                    self.seen(given)
