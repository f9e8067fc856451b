"""One partition's rows on their way into a batch: what came, what is ahead, and what a record
counts.

Not here: when rows are asked for (kafka_rows). Invariant: of a record's span exactly the rows that
it counts are given on, or LogTruncated is raised.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from confluent_kafka import Message

from schemas.codec import stamped
from schemas.errors import LogTruncated
from transport.batch import PLACE_BITS
from transport.kafka_commits import Place
from transport.kafka_runs import Runs
from transport.record import Record, Span


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one partition in order: parallel lists. A tombstone's value is None."""

    offsets: list[int]
    keys: list[bytes]
    values: list[bytes]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Self:
        """Of one partition's messages: a few calls for all rows, none for each."""
        # Any: the stubs allow None for what a row always has.
        fields: list[Any] = [Message.offset, Message.key, Message.value]
        return cls(*(list(map(field, messages)) for field in fields))

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, stop: int | None = None) -> "Stretch":
        """The rows from an index to another."""
        return Stretch(self.offsets[start:stop], self.keys[start:stop], self.values[start:stop])

    def picked(self, at: Sequence[int]) -> "Stretch":
        """The rows at these indexes."""
        return Stretch(
            [self.offsets[i] for i in at],
            [self.keys[i] for i in at],
            [self.values[i] for i in at],
        )

    @property
    def size_bytes(self) -> int:
        return sum(map(len, filter(None, self.keys))) + sum(map(len, filter(None, self.values)))


@dataclass(slots=True)
class Partition:
    """A partition: the offset from which rows come, and those that came too early.

    held_up_at: where to go on with a partition that is not assigned for now.
    """

    next: int
    held_up_at: int | None = None
    ahead: deque[Stretch] = field(default_factory=deque)
    ahead_bytes: int = 0

    def keep(self, rows: Stretch) -> None:
        """Add rows that are ahead."""
        if rows:
            self.ahead.append(rows)
            self.ahead_bytes += rows.size_bytes

    def take(self, last: int) -> list[Stretch]:
        """Give out what was kept up to this offset."""
        taken = []
        while self.ahead and self.ahead[0].offsets[0] <= last:
            rows = self.ahead.popleft()
            if rows.offsets[-1] > last:
                at = bisect_right(rows.offsets, last)
                self.ahead.appendleft(rows.part(at))
                rows = rows.part(0, at)
            self.ahead_bytes -= rows.size_bytes
            taken.append(rows)
        return taken

    @property
    def is_ahead(self) -> bool:
        """Whether rows are kept: then all before them have come."""
        return bool(self.ahead)


@dataclass(slots=True)
class Part:
    """What one record counts in one partition, and how many of its rows did not come yet."""

    number: int
    record: Record
    span: Span
    left: int

    def check(self, place: Place) -> None:
        """Raise LogTruncated unless the broker gave exactly the rows that were counted."""
        if self.left:
            raise lost(*place, self.left)

    def take(self, rows: Stretch, runs: Runs) -> int:
        """Give the record's rows among these to `runs`; their bytes."""
        if not all(rows.values):
            real = [i for i, value in enumerate(rows.values) if value]
            rows = rows.picked(real)
        size_bytes = 0
        for found in stamped(rows.values, self.record.epoch, self.record.run):
            mine = rows if len(found.at) == len(rows) else rows.picked(found.at)
            base = self.number << PLACE_BITS
            ordinals = [base + o for o in found.ordinals] if base else found.ordinals
            runs.add(found.fingerprint, ordinals, found.ops, mine.keys, mine.values)
            self.left -= len(mine)
            size_bytes += mine.size_bytes
        return size_bytes


def sift(place: Place, line: deque[Part], rows: Stretch, runs: Runs) -> int:
    """Give the rows that the parts of a partition's line count to `runs`; their bytes.

    Parts leave the line when rows up to their last have come.
    """
    size_bytes = 0
    while line and rows:
        span = line[0].span
        start, stop = bisect_left(rows.offsets, span.first), bisect_right(rows.offsets, span.last)
        if start < stop:
            whole = stop - start == len(rows)
            size_bytes += line[0].take(rows if whole else rows.part(start, stop), runs)
        if rows.offsets[-1] < span.last:
            break
        line.popleft().check(place)
    return size_bytes


def lost(topic: str, partition: int, rows: int) -> LogTruncated:
    count = f"{rows} rows" if rows else "rows"
    return LogTruncated(
        f"found {count} of a committed batch gone from {topic}, partition {partition}",
        hint="headwater rebuild TARGET --on-top, and keep the log longer than it pauses",
    )
