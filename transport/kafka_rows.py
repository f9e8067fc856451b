"""The reader's rows: one consumer over the topics of all tables, assigned by hand and kept from
batch to batch.

Partitions are never paused or sought while they come in the right order (librdkafka would throw its
prefetch away): rows that are ahead of the batch are kept for the next one. Where they are too many,
their partitions are held up until what is kept of them is used: to throw rows away and ask for them
anew made small batches read everything many times. Invariant: a span gives exactly the rows it
counts, or LogTruncated.
"""

from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from schemas.codec import STAMP_BYTES, op_of, stamps_of
from schemas.errors import LogTruncated, Transient
from transport.kafka_commits import Commits, Place, consumer, failure
from transport.kafka_descriptions import Descriptions
from transport.kafka_options import Options
from transport.kafka_runs import RUN_BYTES, Runs
from transport.record import Record, Span

AHEAD_BYTES = 32 << 20
"""Rows ahead of the batch, over all partitions: with more, no partition that is ahead goes on; with
twice as many, the fullest is let go.
"""
FETCH = 2_000
QUIET_S = 10.0
"""When nothing came for so long, the broker is asked whether the rows are still there."""
STALL_S = 600.0
"""A broker that stalls for minutes is waited for; a target's open transaction is worth it."""

Row = tuple[int, bytes, bytes]
"""offset, key, value (empty: a tombstone)."""


@dataclass(slots=True)
class _Place:
    """A partition: the offset from which rows come, and those that came too early.

    held_up_at: where to go on with a partition that is not assigned for now.
    """

    next: int
    held_up_at: int | None = None
    ahead: deque[Row] = field(default_factory=deque)
    ahead_bytes: int = 0

    def keep(self, rows: list[Row]) -> None:
        """Add rows that are ahead."""
        self.ahead.extend(rows)
        self.ahead_bytes += sum([len(key) + len(value) for _, key, value in rows])

    def take(self, last: int) -> list[Row]:
        """Give out what was kept up to this offset."""
        rows = []
        while self.ahead and self.ahead[0][0] <= last:
            rows.append(self.ahead.popleft())
        self.ahead_bytes -= sum([len(key) + len(value) for _, key, value in rows])
        return rows

    @property
    def is_ahead(self) -> bool:
        """Whether rows are kept: then all before them have come."""
        return bool(self.ahead)


class RowReader:
    """Gives the rows of one record at a time. Not for two threads at once."""

    def __init__(
        self, options: Options, source: str, commits: Commits, descriptions: Descriptions
    ) -> None:
        # The queue is for each partition: many tables times this is what a reader's prefetch may
        # take.
        settings: dict[str, str | int] = {
            "queued.max.messages.kbytes": 2048,
            # Compressed: small, so that every partition has its share in each answer. Measured with
            # six partitions: with 512 kB, the rows of two came 100,000 rows before the others'.
            "max.partition.fetch.bytes": 256 << 10,
            # The default, a second, would hold one full partition back while the others starve.
            "fetch.queue.backoff.ms": 5,
            "fetch.max.bytes": 16 << 20,
        }
        self._consumer = consumer(options, source, **settings)
        self._commits = commits
        self._descriptions = descriptions
        self._places: dict[Place, _Place] = {}

    def close(self) -> None:
        """Close the consumer; idempotent."""
        self._consumer.close()

    def load(self, record: Record) -> Runs:
        """Every row of the record's spans. Raises LogTruncated when a span lacks a row."""
        runs = Runs(self._descriptions.get, record.partial)
        wanted: dict[Place, Span] = {
            (topic, partition): span
            for topic, parts in record.spans.items()
            for partition, span in parts.items()
            if span.rows
        }
        left = {place: span.rows for place, span in wanted.items()}
        for place, span in wanted.items():
            self._stand_at(place, span.first)
        search = stamps_of(record.epoch, record.run).search
        held_bytes = 0
        ahead: dict[Place, list[Row]] = {}

        def sift(place: Place, rows: list[Row]) -> None:
            """Take the batch's rows out of a partition's; keep what lies ahead of its span."""
            nonlocal held_bytes
            first, last, _ = wanted[place]
            count = 0
            for at, (offset, key, value) in enumerate(rows):
                if offset > last:
                    ahead[place] = rows[at:]
                    break
                if (
                    value
                    and offset >= first
                    and (found := search(value, max(0, len(value) - STAMP_BYTES)))
                ):
                    runs.table(found[1]).append((int(found[2]), op_of(value), key, value))
                    held_bytes += len(value) + len(key)
                    count += 1
            left[place] -= count
            if (rows and rows[-1][0] >= last) or self._places[place].is_ahead:
                del wanted[place]
                self._places[place].next = last + 1

        try:
            for place, span in list(wanted.items()):
                sift(place, self._places[place].take(span.last))
                if place in wanted:
                    self._go_on(place)
            while wanted:
                for place, rows in self._fetch(wanted).items():
                    if place in wanted:
                        sift(place, rows)
                    else:
                        ahead[place] = rows
                self._keep(ahead)
                ahead.clear()
                if held_bytes > RUN_BYTES:
                    runs.spill()
                    held_bytes = 0
        except BaseException:
            # Half of a span was taken: the next reading of it must begin at its first row again.
            for place in wanted:
                self._let_go(place)
            raise
        for (topic, partition), missing in left.items():
            if missing:
                raise _lost(topic, partition, missing)
        runs.finish()
        return runs

    def _stand_at(self, place: Place, first: int) -> None:
        """Let the partition's rows come from `first` on, without a seek where they already do."""
        here = self._places.get(place)
        if here is not None and here.next <= first:
            return
        if here is not None:
            self._let_go(place)
        self._consumer.incremental_assign([TopicPartition(*place, first)])
        self._places[place] = _Place(first)

    def _let_go(self, place: Place) -> None:
        here = self._places.pop(place, None)
        if here is not None and here.held_up_at is None:
            self._consumer.incremental_unassign([TopicPartition(*place)])

    def _hold_up(self, place: Place) -> None:
        here = self._places[place]
        here.held_up_at = here.ahead[-1][0] + 1
        self._consumer.incremental_unassign([TopicPartition(*place)])

    def _go_on(self, place: Place) -> None:
        """Assign a partition again that was held up, now that nothing kept of it is left."""
        here = self._places[place]
        if here.held_up_at is not None:
            self._consumer.incremental_assign([TopicPartition(*place, here.held_up_at)])
            here.held_up_at = None

    def _keep(self, ahead: dict[Place, list[Row]]) -> None:
        """Keep rows for a later batch; what is ahead is held up where they are too many."""
        if not ahead:
            return
        for place, rows in ahead.items():
            if place in self._places and self._places[place].held_up_at is None:
                self._places[place].keep(rows)
        kept_bytes = sum(here.ahead_bytes for here in self._places.values())
        if kept_bytes <= AHEAD_BYTES:
            return
        # The batch's own partitions keep nothing before they are through: they go on.
        for place, here in self._places.items():
            if here.is_ahead and here.held_up_at is None:
                self._hold_up(place)
        while kept_bytes > 2 * AHEAD_BYTES:
            fullest = max(self._places, key=lambda place: self._places[place].ahead_bytes)
            kept_bytes -= self._places[fullest].ahead_bytes
            self._let_go(fullest)

    def _fetch(self, wanted: dict[Place, Span]) -> dict[Place, list[Row]]:
        """What came, by partition and in order; waits for something."""
        messages = self._consumer.consume(FETCH, 0) or self._wait(wanted)
        found: dict[Place, list[Row]] = {}
        message: Any  # the stubs allow None for what a row always has; a check costs every row
        for message in messages:
            error = message.error()
            if error is not None:
                self._judge(message, error, wanted)
                continue
            place = (message.topic(), message.partition())
            row = (message.offset(), message.key() or b"", message.value() or b"")
            try:
                found[place].append(row)
            except KeyError:
                found[place] = [row]
        return found

    def _wait(self, wanted: dict[Place, Span]) -> list[Message]:
        waiting_since = asked_at = monotonic()
        while True:
            message = self._consumer.poll(1.0)
            if message is not None:
                return [message]
            now = monotonic()
            if now - asked_at < QUIET_S:
                continue
            asked_at = now
            try:
                self._check_held(wanted)
            except Transient:
                if now - waiting_since > STALL_S:
                    raise

    def _check_held(self, wanted: dict[Place, Span]) -> None:
        for (topic, partition), span in wanted.items():
            _, newest = self._commits.held(topic, partition)
            if newest < span.last:
                raise _lost(topic, partition, span.rows)

    def _judge(self, message: Message, error: KafkaError, wanted: dict[Place, Span]) -> None:
        """Raise what an error means for this batch; a partition it does not need is let go."""
        topic, partition = message.topic(), message.partition()
        mapped = failure(error, f"read {topic or 'rows'}")
        if mapped is None:
            return
        if topic is None or partition is None or partition < 0:
            gone = [place for place in self._places if place[0] == topic]
        else:
            gone = [(topic, partition)]
        if not gone or any(place in wanted for place in gone):
            for place in gone:
                self._let_go(place)
            if error.code() == KafkaError._AUTO_OFFSET_RESET and topic is not None:
                mapped = _lost(topic, partition or 0, 0)
            raise mapped from KafkaException(error)
        for place in gone:
            self._let_go(place)


def _lost(topic: str, partition: int, rows: int) -> LogTruncated:
    count = f"{rows} rows" if rows else "rows"
    return LogTruncated(
        f"found {count} of a committed batch gone from {topic}, partition {partition}",
        hint="rebuild the target, and keep the log longer than a target may be paused",
    )
