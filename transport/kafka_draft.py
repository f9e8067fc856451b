"""One batch on its way into Kafka: what was sent of it, and where the broker put its rows.

Invariant: a span is made of offsets that the broker gave; a row that the broker refused is never
forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message

from schemas.change import Commit, Truncate
from schemas.errors import Transient
from transport.record import Span

Reported = Callable[[KafkaError | None, Message], None]
"""A delivery callback: librdkafka calls it once for each row, from the thread that polls the
producer.
"""

_UNKNOWN_LOW = 1 << 62
COUNTED_AFTER_S = 0.1


class Refused(NamedTuple):
    """The first row that was not stored."""

    table: str
    error: KafkaError
    size_bytes: int


class Delivered:
    """What the broker reported of one topic: by partition [lowest offset, highest offset, rows,
    unknown offsets].
    """

    __slots__ = ("report", "spans")

    def __init__(self, refuse: Callable[[KafkaError, Message], None]) -> None:
        self.spans: dict[int, list[int]] = {}
        self.report = _reporter(self.spans, refuse)


def _reporter(
    spans: dict[int, list[int]], refuse: Callable[[KafkaError, Message], None]
) -> Reported:
    """The callback: a closure with as little work as possible, for it runs once a row."""

    # Any: the stubs allow None for the partition, which a delivered row always has.
    def report(error: KafkaError | None, message: Any) -> None:
        if error is not None:
            refuse(error, message)
            return
        partition = message.partition()
        try:
            span = spans[partition]
        except KeyError:
            span = spans[partition] = [_UNKNOWN_LOW, -1, 0, 0]
        span[2] += 1
        offset = message.offset()
        if offset is None:
            # A retry that the broker had stored already may be reported without its offset.
            span[3] += 1
            return
        if offset > span[1]:
            span[1] = offset
        if offset < span[0]:
            span[0] = offset

    return report


@dataclass(slots=True, eq=False)
class Draft:
    """What was appended of one run so far; `commit` is set once it is whole."""

    run: int
    rows: int = 0
    tombstones: int = 0
    buried: int = 0
    topics: dict[str, Delivered] = field(default_factory=dict)
    truncates: list[Truncate] = field(default_factory=list)
    schemas: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    seeds: bool = False
    commit: Commit | None = None
    refused: Refused | None = None
    started_at: float = field(default_factory=monotonic)

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.truncates

    @property
    def is_acknowledged(self) -> bool:
        """Whether the broker holds every row and every tombstone."""
        stored = sum(span[2] for topic in self.topics.values() for span in topic.spans.values())
        return stored == self.rows and self.buried == self.tombstones

    def topic(self, topic: str, table: str) -> Reported:
        """The callback for this table's rows."""
        found = self.topics.get(topic)
        if found is None:
            found = self.topics[topic] = Delivered(
                lambda error, row: self._refuse(table, error, row)
            )
        return found.report

    def bury(self, table: str) -> Reported:
        """The callback for this table's tombstones, which no span counts."""

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refuse(table, error, message)
            else:
                self.buried += 1

        return report

    def spans(self, held: Callable[[str, int], tuple[int, int]]) -> dict[str, dict[int, Span]]:
        """Where the rows lie. `held` gives the offsets that a partition holds; asked only where it
        is needed.
        """
        return {
            topic: {
                partition: _span(span, lambda t=topic, p=partition: held(t, p))  # type: ignore[misc]
                for partition, span in sorted(delivered.spans.items())
            }
            for topic, delivered in sorted(self.topics.items())
        }

    def _refuse(self, table: str, error: KafkaError, message: Message) -> None:
        # A row that is too large takes down those it travels with: the largest is the culprit.
        size_bytes = len(message.key() or b"") + len(message.value() or b"")
        if self.refused is None or size_bytes > self.refused.size_bytes:
            self.refused = Refused(table, error, size_bytes)


def _span(span: list[int], held: Callable[[], tuple[int, int]]) -> Span:
    """The span of real offsets; where one was not told, everything the partition holds.

    A reader picks the batch's rows by their stamp, so a span may be too wide, never too narrow:
    raises Transient where it cannot hold the batch's rows.
    """
    first, last, count, unknown = span
    if unknown or last - first + 1 < count:
        # A retry of rows that the broker holds already is answered at once, and may be answered
        # before it tells that it holds them.
        sleep(COUNTED_AFTER_S)
        first, last = held()
    if last - first + 1 < count:
        raise Transient(
            f"was told of {count} rows in a partition that holds {last - first + 1}",
            hint="the batch is written again",
        )
    return Span(first, last, count)
