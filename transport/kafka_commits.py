"""The commit topic as its entries: one consumer, assigned by hand, and the walks that a capture and
a reader begin with.

Not here: which entries count (transport/chain.py). Invariant: entries come in order and without
gaps; what retention took is LogTruncated, never stepped over.
"""

from collections.abc import Iterable, Iterator
from logging import getLogger
from time import monotonic

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from schemas.errors import LogTruncated, Transient
from transport.asked import unread_after
from transport.chain import Chain, Verdict, trusted_start
from transport.kafka_errors import translated
from transport.kafka_options import Options, Value
from transport.record import Entry, Record, loads

Place = tuple[str, int]
"""A topic's partition."""

ANSWER_WITHIN_S = 8.0
"""How long a broker that is up may take for a small answer."""

CONSUMER: dict[str, Value] = {
    # No group is ever joined and no offset stored: the place in the log lives in the target.
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    # There are no transactions here; a foreign hanging one must not hold our rows back.
    "isolation.level": "read_uncommitted",
    "check.crcs": True,
    # The broker answers a connection's requests in order: while a fetch waits for rows to come,
    # nothing else is answered. New rows end the wait at once, whatever it is.
    "fetch.wait.max.ms": 50,
}


def consumer(options: Options, source: str, **settings: str | int) -> Consumer:
    """A consumer that is assigned by hand; librdkafka demands a group name, which nobody joins."""
    config = options.consumer({**CONSUMER, "group.id": f"headwater.{source}", **settings})
    return Consumer(config, logger=getLogger("headwater.librdkafka"))


def failure(error: KafkaError, doing: str) -> Exception | None:
    """What a consumer's error means; None for those that librdkafka mends by itself."""
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        return LogTruncated(
            f"found that the log no longer holds what comes next (to {doing})",
            hint="headwater rebuild TARGET --on-top, and keep the log longer than it pauses",
        )
    mapped = translated(error, doing)
    # It reconnects for ever; whoever waits too long for an answer gives up (see Commits.bounds).
    return None if isinstance(mapped, Transient) and not error.fatal() else mapped


class Commits:
    """A place in the commit topic. Not for two threads at once."""

    def __init__(self, options: Options, source: str, topic: str) -> None:
        # Commit records are small: a deep prefetch would only hold memory.
        settings: dict[str, str | int] = {"queued.max.messages.kbytes": 1024}
        self._consumer = consumer(options, source, **settings)
        self._topic = topic
        self.stored_at_ms = -1
        """When the broker stored the entry that `next` gave last."""

    def close(self) -> None:
        """Close the consumer; idempotent."""
        self._consumer.close()

    def bounds(self) -> tuple[int, int]:
        """The oldest and the newest offset held, asked of the broker; newest = oldest - 1: none."""
        return self.held(self._topic, 0)

    def held(self, topic: str, partition: int) -> tuple[int, int]:
        """The same for any partition. Raises Transient when the broker does not answer."""
        place = TopicPartition(topic, partition)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=ANSWER_WITHIN_S)
        except KafkaException as error:
            raise translated(error.args[0], f"ask for the end of {topic}") from error
        return low, high - 1

    def partitions(self, topics: Iterable[str]) -> list[Place]:
        """The partitions of those topics that are there."""
        try:
            known = self._consumer.list_topics(timeout=ANSWER_WITHIN_S).topics
        except KafkaException as error:
            raise translated(error.args[0], "list topics") from error
        return [(topic, p) for topic in topics if topic in known for p in known[topic].partitions]

    def offsets_at(self, place: Place, times_ms: Iterable[int]) -> list[int]:
        """The offset of what was stored first at each time or later, by the broker's clock."""
        end = self.held(*place)[1] + 1
        offsets = []
        for at_ms in times_ms:
            asked = TopicPartition(*place, at_ms)
            try:
                (found,) = self._consumer.offsets_for_times([asked], timeout=ANSWER_WITHIN_S)
            except KafkaException as error:
                raise translated(error.args[0], f"look through {place[0]}") from error
            if found.error is not None:
                raise translated(found.error, f"look through {place[0]}")
            offsets.append(found.offset if found.offset >= 0 else end)
        return offsets

    def seek(self, offset: int) -> None:
        """Give this offset's entry next."""
        self._consumer.assign([TopicPartition(self._topic, 0, offset)])

    def next(self, timeout_s: float) -> tuple[int, Entry] | None:
        """The next entry and its offset; None when none came in time."""
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        if error is not None:
            mapped = failure(error, f"read {self._topic}")
            if mapped is not None:
                raise mapped from KafkaException(error)
            return None
        _, self.stored_at_ms = message.timestamp()
        return _offset(message), loads(message.value() or b"")

    def between(self, first: int, last: int) -> Iterator[tuple[int, Entry]]:
        """The entries from `first` to `last`, which are held. Raises Transient when they do not
        come.
        """
        if first > last:
            return
        self.seek(first)
        waiting_since = monotonic()
        while True:
            found = self.next(1.0)
            if found is not None:
                yield found
                waiting_since = monotonic()
                if found[0] >= last:
                    return
            elif monotonic() - waiting_since > ANSWER_WITHIN_S:
                self.bounds()  # raises what hinders us; a broker that still answers is waited for

    def newest(self) -> tuple[Chain, int, list[int]]:
        """The chain at the topic's end, the offset up to which it was walked, and when the claims
        that took effect after its newest record were stored.

        Walks from a true start near the end: a week of commit records is not read for its last one.
        """
        oldest, newest = self.bounds()
        size = 1_000
        while True:
            first = max(oldest, newest + 1 - size)
            chain = self._start(first, newest)
            if chain is not None:
                break
            if first == oldest:
                raise LogTruncated(
                    "found no commit record that is known to count",
                    hint="retention took them: drop the log, copy anew, and keep the log longer",
                )
            size *= 8
        after = -1 if chain.offset is None else chain.offset
        claimed_at_ms: list[int] = []
        for offset, entry in self.between(after + 1, newest):
            verdict = chain.take(offset, entry)
            if verdict is Verdict.ACCEPTED:
                claimed_at_ms.clear()
            elif verdict is Verdict.CLAIMED:
                claimed_at_ms.append(self.stored_at_ms)
        return chain, newest, claimed_at_ms

    def held_after(self, chain: Chain) -> int:
        """The first offset held at which a request may stand that the chain has not taken in."""
        return max(self.bounds()[0], unread_after(chain.record) + 1)

    def oldest(self) -> Chain | None:
        """Where a reader without checkpoint begins; None while nothing is known to count."""
        return self._start(*self.bounds())

    def _start(self, first: int, last: int) -> Chain | None:
        """A true start among these entries: the log's very first, or one that a later one names."""
        if first == 0:
            return Chain()
        trusted = trusted_start(self.between(first, last))
        if trusted is None:
            return None
        offset, record = next(self.between(trusted, trusted))
        assert isinstance(record, Record), "only records are named"
        return Chain.at(offset, record)


def _offset(message: Message) -> int:
    offset = message.offset()
    return OFFSET_INVALID if offset is None else int(offset)
