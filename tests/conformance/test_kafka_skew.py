"""The reader where each batch lies in one partition: some run ahead, and memory is scarce."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka.partitioner.default import murmur2

from tests.conformance.logs import Writer, batches, ids, users
from tests.services.server import Server
from transport import kafka_rows, kafka_runs
from transport.kafka import KafkaLog

PARTITIONS = 6


@pytest.fixture
def log(kafka: Server, kafka_prefix: str) -> Iterator[KafkaLog]:
    log = KafkaLog(kafka.address, kafka_prefix, partitions=PARTITIONS)
    yield log
    log.close()


def by_partition(count: int) -> list[list[int]]:
    """So many ids for each partition."""
    found: list[list[int]] = [[] for _ in range(PARTITIONS)]
    number = 0
    while min(map(len, found)) < count:
        found[(murmur2(b'{"id":%d}' % number) & 0x7FFFFFFF) % PARTITIONS].append(number)
        number += 1
    return [numbers[:count] for numbers in found]


def test_batches_of_one_partition_each_are_read_once_and_in_order(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn, large and small, and every third with one row of all others; almost no memory."""
    monkeypatch.setattr(kafka_rows, "AHEAD_BYTES", 200_000)
    monkeypatch.setattr(kafka_runs, "RUN_BYTES", 500_000)
    monkeypatch.setattr(kafka_rows, "RUN_BYTES", 500_000)
    numbers = by_partition(5_000)
    writer = Writer(log)
    written: list[list[tuple[str, int]]] = []
    for batch in range(60):
        own = numbers[batch % PARTITIONS][: 5_000 if batch % 7 == 0 else 40]
        others = [part[batch] for part in numbers] if batch % 3 == 0 else []
        writer.end(writer.begin(users(*own, *others)), f"p{batch}")
        written.append([("c", number) for number in (*own, *others)])
    assert log.flush() == "p59"
    assert [ids(batch) for batch in batches(log)] == written
