"""What a topic holds: how far it has grown, and its rows, compared one by one with the source's."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from bench import orders

PARTITIONS = 6
AT_ONCE = 20_000
WITHIN_S = 120.0
BEING_MADE = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
LATEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EPOCH = datetime(1970, 1, 1)

Row = tuple[Any, ...]


class Different(Exception):
    """A side did not deliver what the source holds: its speed means nothing."""


def create(servers: str, *names: str, partitions: int = PARTITIONS) -> None:
    """Topics that are stamped by the broker, as Headwater's own are."""
    stamped = {"message.timestamp.type": "LogAppendTime"}
    client = AdminClient({"bootstrap.servers": servers})
    made = client.create_topics([NewTopic(name, partitions, 1, config=stamped) for name in names])
    for creation in made.values():
        creation.result()


class Ends:
    """The end offsets of topics, asked for again and again."""

    def __init__(self, servers: str, *topics: str) -> None:
        self._client = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self._topics = topics
        self._asked: dict[TopicPartition, Any] = {}

    def places(self) -> dict[tuple[str, int], int]:
        """The end of each partition; of a topic that is being made, nothing yet."""
        asked = self._asked or self._partitions()
        if not asked:
            return {}
        try:
            found = [(at, told.result()) for at, told in self._client.list_offsets(asked).items()]
        except KafkaException as error:
            # The broker lists a partition before it has made it.
            if error.args[0].code() not in BEING_MADE:
                raise
            return {}
        return {(at.topic, at.partition): told.offset for at, told in found}

    def total(self) -> int:
        """Messages ever written."""
        return sum(self.places().values())

    def settled(self) -> int:
        """Messages ever written, once no more have come for a second."""
        total, before = self.total(), -1
        while total != before:
            sleep(1)
            total, before = self.total(), total
        return total

    def _partitions(self) -> dict[TopicPartition, Any]:
        listed = self._client.list_topics(timeout=30).topics
        there = [name for name in self._topics if name in listed and listed[name].partitions]
        found = {
            TopicPartition(topic, partition): LATEST
            for topic in there
            for partition in listed[topic].partitions
        }
        if len(there) == len(self._topics):
            self._asked = found
        return found


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows that the broker received after the first stamp, and how long after it the last came."""

    rows: int
    wall_s: float


def compare(
    servers: str,
    begins: Mapping[tuple[str, int], int],
    numbers: range,
    row: Callable[[dict[str, Any]], Row],
    expected: Callable[[int], Row],
) -> Arrival:
    """Read on from `begins`; every row of `numbers` must be there once, and equal, and no other.

    row: the image in the form in which `expected` gives the row of that number. Raises Different.
    """
    seen = bytearray(len(numbers))
    stamps: Counter[int] = Counter()
    client = {"bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False}
    deadline = monotonic() + WITHIN_S
    with closing(Consumer(client)) as consumer:
        consumer.assign([TopicPartition(*place, offset) for place, offset in begins.items()])
        while sum(stamps.values()) < len(numbers):
            if monotonic() > deadline:
                raise Different(f"{sum(stamps.values()):,} of {len(numbers):,} rows are there")
            for message in consumer.consume(AT_ONCE, timeout=0.2):
                if message.error():
                    raise Different(str(message.error()))
                value = message.value()
                if value is None:
                    continue
                image = orjson.loads(value)
                image = image.get("payload", image)["after"]
                at = image["id"] - numbers.start
                if not 0 <= at < len(seen):
                    # A beat that came late.
                    continue
                if seen[at]:
                    raise Different(f"row {image['id']} came twice")
                if row(image) != expected(image["id"]):
                    raise Different(f"row {image['id']} is not as it was written")
                seen[at] = 1
                stamps[message.timestamp()[1]] += 1
    first, last = min(stamps), max(stamps)
    return Arrival(sum(stamps.values()) - stamps[first], (last - first) / 1000)


def schemas(servers: str, topic: str) -> tuple[str, str]:
    """The schemas inside the first message's key and value, as JSON."""
    client = {"bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False}
    with closing(Consumer(client)) as consumer:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        deadline = monotonic() + WITHIN_S
        while monotonic() < deadline:
            message = consumer.poll(1)
            if message is not None and not message.error():
                key, value = message.key(), message.value()
                assert isinstance(key, bytes)
                assert value is not None
                return (
                    orjson.dumps(orjson.loads(key)["schema"]).decode(),
                    orjson.dumps(orjson.loads(value)["schema"]).decode(),
                )
    raise Different(f"{topic} is empty")


def headwater_row(image: dict[str, Any]) -> Row:
    """Headwater's image as `orders.row` writes it."""
    return (
        *(image[name] for name in orders.NAMES[:7]),
        _whole(image["created_at"]),
        _whole(image["updated_at"].removesuffix("Z")),
        image["paid"],
    )


def _whole(instant: str) -> str:
    """With a space, and all six digits of the second's fraction."""
    second, _, fraction = instant.partition(".")
    return f"{second.replace('T', ' ')}.{fraction:0<6}"


def debezium_row(image: dict[str, Any]) -> Row:
    """Debezium's image, in its default modes, as `orders.row` writes it."""
    cents = int.from_bytes(base64.b64decode(image["total"]), signed=True)
    created = _EPOCH + timedelta(microseconds=image["created_at"])
    updated = datetime.fromisoformat(image["updated_at"]).astimezone(UTC)
    return (
        *(image[name] for name in orders.NAMES[:4]),
        f"{cents // 100}.{cents % 100:02d}",
        image["note"],
        image["quantity"],
        f"{created:%Y-%m-%d %H:%M:%S.%f}",
        f"{updated:%Y-%m-%d %H:%M:%S.%f}",
        image["paid"],
    )
