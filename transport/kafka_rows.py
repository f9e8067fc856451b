"""The reader's rows: one consumer over the topics of all tables, assigned by hand and kept from
batch to batch.

Partitions are never paused or sought while they come in the right order (librdkafka would throw its
prefetch away): rows that are ahead of the batch are kept for the next one. Where they are too many,
their partitions are held up until what is kept of them is used: to throw rows away and ask for them
anew made small batches read everything many times. Invariant: a span gives exactly the rows it
counts, or LogTruncated.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import Transient
from transport.kafka_commits import Commits, Place, consumer, failure
from transport.kafka_descriptions import Descriptions
from transport.kafka_options import Options
from transport.kafka_partition import Part, Partition, Stretch, lost, sift
from transport.kafka_runs import RUN_BYTES, Runs
from transport.record import Record

AHEAD_BYTES = 32 << 20
"""Rows ahead of the batch, over all partitions: with more, no partition that is ahead goes on; with
twice as many, the fullest is let go.
"""
FETCH = 2_000
QUIET_S = 10.0
"""When nothing came for so long, the broker is asked whether the rows are still there."""
STALL_S = 600.0
"""A broker that stalls for minutes is waited for; a target's open transaction is worth it."""


class RowReader:
    """Gives the rows of records, in their order. Not for two threads at once."""

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
        self._places: dict[Place, Partition] = {}

    def close(self) -> None:
        """Close the consumer; idempotent."""
        self._consumer.close()

    def load(self, records: Sequence[Record]) -> Runs:
        """Every row of the spans of these records, whose stretches follow each other.

        The n-th one's ordinals have n above PLACE_BITS. Raises LogTruncated when a span lacks a
        row.
        """
        partial = {fingerprint for record in records for fingerprint in record.partial}
        runs = Runs(self._descriptions.get, partial)
        wanted: dict[Place, deque[Part]] = {}
        for number, record in enumerate(records):
            for topic, parts in record.spans.items():
                for partition, span in parts.items():
                    if span.rows:
                        part = Part(number, record, span, span.rows)
                        wanted.setdefault((topic, partition), deque()).append(part)
        for place, line in wanted.items():
            self._stand_at(place, line[0].span.first)
        held_bytes = 0
        try:
            for place, line in list(wanted.items()):
                here, last = self._places[place], line[-1].span.last
                for rows in here.take(last):
                    held_bytes += sift(place, line, rows, runs)
                if not line or here.is_ahead:
                    self._through(place, wanted, last)
                else:
                    self._go_on(place)
            while wanted:
                ahead: dict[Place, Stretch] = {}
                for place, rows in self._fetch(wanted).items():
                    if place not in wanted:
                        ahead[place] = rows
                        continue
                    line, last = wanted[place], wanted[place][-1].span.last
                    held_bytes += sift(place, line, rows, runs)
                    if not line:
                        self._through(place, wanted, last)
                        ahead[place] = rows.part(bisect_right(rows.offsets, last))
                self._keep(ahead)
                if held_bytes > RUN_BYTES:
                    runs.spill()
                    held_bytes = 0
        except BaseException:
            # Half of a span was taken: the next reading of it must begin at its first row again.
            for place in wanted:
                self._let_go(place)
            raise
        runs.finish()
        return runs

    def _through(self, place: Place, wanted: dict[Place, deque[Part]], last: int) -> None:
        """All rows came that this partition was asked for; whether they are enough is told now."""
        for part in wanted[place]:
            part.check(place)
        del wanted[place]
        self._places[place].next = last + 1

    def _stand_at(self, place: Place, first: int) -> None:
        """Let the partition's rows come from `first` on, without a seek where they already do."""
        here = self._places.get(place)
        if here is not None and here.next <= first:
            return
        if here is not None:
            self._let_go(place)
        self._consumer.incremental_assign([TopicPartition(*place, first)])
        self._places[place] = Partition(first)

    def _let_go(self, place: Place) -> None:
        here = self._places.pop(place, None)
        if here is not None and here.held_up_at is None:
            self._consumer.incremental_unassign([TopicPartition(*place)])

    def _hold_up(self, place: Place) -> None:
        here = self._places[place]
        here.held_up_at = here.ahead[-1].offsets[-1] + 1
        self._consumer.incremental_unassign([TopicPartition(*place)])

    def _go_on(self, place: Place) -> None:
        """Assign a partition again that was held up, now that nothing kept of it is left."""
        here = self._places[place]
        if here.held_up_at is not None:
            self._consumer.incremental_assign([TopicPartition(*place, here.held_up_at)])
            here.held_up_at = None

    def _keep(self, ahead: dict[Place, Stretch]) -> None:
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

    def _fetch(self, wanted: dict[Place, deque[Part]]) -> dict[Place, Stretch]:
        """What came, by partition and in order; waits for something."""
        messages = self._receive(wanted)
        if any(map(Message.error, messages)):
            for message in messages:
                if (error := message.error()) is not None:
                    self._judge(message, error, wanted)
            messages = [message for message in messages if message.error() is None]
        places = list(
            zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)
        )
        found: dict[Any, list[Message]] = {}
        at = 0
        for place, same in groupby(places):
            end = at + len(list(same))
            found.setdefault(place, []).extend(messages[at:end])
            at = end
        return {place: Stretch.of(some) for place, some in found.items()}

    def _receive(self, wanted: dict[Place, deque[Part]]) -> list[Message]:
        # No more than must come: librdkafka waits until there are so many.
        count = sum([part.left for line in wanted.values() for part in line])
        count = min(FETCH, max(1, count))
        waiting_since = asked_at = monotonic()
        while not (messages := self._consumer.consume(count, 1.0)):
            now = monotonic()
            if now - asked_at < QUIET_S:
                continue
            asked_at = now
            try:
                self._check_held(wanted)
            except Transient:
                if now - waiting_since > STALL_S:
                    raise
        return messages

    def _check_held(self, wanted: dict[Place, deque[Part]]) -> None:
        for place, line in wanted.items():
            _, newest = self._commits.held(*place)
            if newest < line[-1].span.last:
                raise lost(*place, line[-1].span.rows)

    def _judge(self, message: Message, error: KafkaError, wanted: dict[Place, deque[Part]]) -> None:
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
                mapped = lost(topic, partition or 0, 0)
            raise mapped from KafkaException(error)
        for place in gone:
            self._let_go(place)
