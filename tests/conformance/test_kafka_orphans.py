"""Batches that die after their rows were sent, seen from the next claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.errors import Operator
from tests.conformance.logs import Writer, batches, positions, users
from tests.services.server import Server
from transport.kafka import KafkaLog
from transport.kafka_orphans import ORPHAN_ROWS

Attempt = Callable[[int], None]


@pytest.fixture
def connect(kafka: Server, kafka_prefix: str) -> Iterator[Callable[[], KafkaLog]]:
    made: list[KafkaLog] = []

    def connect() -> KafkaLog:
        made.append(KafkaLog(kafka.address, kafka_prefix, partitions=2))
        return made[-1]

    yield connect
    for log in made:
        log.close()


@pytest.fixture
def attempt(kafka: Server, kafka_prefix: str, connect: Callable[[], KafkaLog]) -> Iterator[Attempt]:
    """Claims the log, as a new process would, leaves so many rows there and dies."""
    client: dict[str, Any] = {"bootstrap.servers": kafka.address, "log_level": 0}
    asking = Consumer(client | {"group.id": kafka_prefix})

    def stored() -> int:
        places = [TopicPartition(f"{kafka_prefix}.public.users", part) for part in range(2)]
        return sum(asking.get_watermark_offsets(place, timeout=30)[1] for place in places)

    def attempt(rows: int) -> None:
        log = connect()
        writer = Writer(log)
        if rows:
            wanted = stored() + rows
            writer.begin(users(*range(rows)))
            while stored() < wanted:
                assert log.accepted() is None
        log.close()

    yield attempt
    asking.close()


def test_a_large_batch_that_dies_three_times_is_told_to_a_person(
    connect: Callable[[], KafkaLog], attempt: Attempt
) -> None:
    """Whether it was one process each time or another; who starts again afterwards may."""
    Writer(connect()).write("a", users(1))
    for _ in range(3):
        attempt(ORPHAN_ROWS)
    with pytest.raises(Operator, match=f"3 times to write the batch after a: {3 * ORPHAN_ROWS}"):
        connect().open()
    Writer(connect()).write("b", users(2))
    assert positions(batches(connect())) == ["a", "b"]


def test_claims_without_rows_and_small_batches_may_die_for_ever(
    connect: Callable[[], KafkaLog], attempt: Attempt
) -> None:
    """What an outage of the brokers or of the source leaves in the log."""
    Writer(connect()).write("a", users(1))
    for rows in (ORPHAN_ROWS, ORPHAN_ROWS, 0, 5, 5, 5):
        attempt(rows)
    Writer(connect()).write("b", users(2))
