"""The reader where each batch lies in one partition: some run ahead, and memory is scarce."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    """In turn, large and small, and every third with one row of all others; almost no memory.

    Rows that were kept once and thrown away for want of memory came 50 times over.
    """
    received = 0
    fetch = kafka_rows.RowReader._fetch

    def counted(self: kafka_rows.RowReader, wanted: Any) -> Any:
        nonlocal received
        found = fetch(self, wanted)
        received += sum(map(len, found.values()))
        return found

    monkeypatch.setattr(kafka_rows.RowReader, "_fetch", counted)
    monkeypatch.setattr(kafka_rows, "AHEAD_BYTES", 1_600_000)
    monkeypatch.setattr(kafka_runs, "RUN_BYTES", 500_000)
    monkeypatch.setattr(kafka_rows, "RUN_BYTES", 500_000)
    numbers = by_partition(5_000)
    writer = Writer(log)
    written: list[list[tuple[str, int]]] = []
    for batch in range(600):
        own = numbers[batch % PARTITIONS][: 5_000 if batch % 100 == 0 else 100]
        others = [part[batch] for part in numbers] if batch % 3 == 0 else []
        writer.end(writer.begin(users(*own, *others)), f"p{batch}")
        written.append([("c", number) for number in (*own, *others)])
    assert log.flush() == "p599"
    assert [ids(batch) for batch in batches(log)] == written
    assert received < 3 * sum(map(len, written))
