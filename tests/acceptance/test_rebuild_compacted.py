"""A target rebuilt from topics that Kafka has compacted: rows were removed, tombstones too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.acceptance.test_import import writing
from tests.acceptance.test_operator_errors import OPERATOR, NewDatabase, assert_says
from tests.acceptance.test_rebuild import at_work, empty, rebuild, settle
from tests.faults.pipeline import Pipeline, until
from tests.faults.workload import GONE, TABLES, Workload
from tests.services import kafka as vendor
from tests.services.server import Server

DAY_MS, HOUR_MS = "86400000", "3600000"
EAGER = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0",
    "delete.retention.ms": "100",
}
"""The cleaner removes what it can, tombstones included."""
CALM = {"min.compaction.lag.ms": HOUR_MS, "delete.retention.ms": DAY_MS}
"""What an operator sets (docs/operating-kafka.md)."""


@pytest.fixture
def broker(server_dir: Path) -> Iterator[Server]:
    """One whose cleaner never rests."""
    with vendor.start(server_dir, ["log.cleaner.backoff.ms=50"]) as server:
        yield server


def alter(broker: Server, topics: list[str], settings: dict[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    entries = [
        ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in settings.items()
    ]
    wanted = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries) for topic in topics
    ]
    for altered in admin.incremental_alter_configs(wanted).values():
        altered.result(30)


def messages(broker: Server, topic: str) -> list[Message]:
    """All that the topic holds now."""
    reader = Consumer(
        {"bootstrap.servers": broker.address, "group.id": "look", "enable.partition.eof": True}
    )
    partitions = reader.list_topics(topic).topics[topic].partitions
    reader.assign([TopicPartition(topic, p, 0) for p in partitions])
    found: list[Message] = []
    left = len(partitions)
    while left:
        message = reader.poll(30)
        assert message is not None
        error = message.error()
        if error is None:
            found.append(message)
        else:
            assert error.code() == KafkaError._PARTITION_EOF
            left -= 1
    reader.close()
    return found


def clean(flow: Pipeline, workload: Workload, broker: Server, topics: list[str]) -> None:
    """Write until the cleaner has removed all that is older than now but each key's newest row,
    and every tombstone.
    """
    marks = {t: {(m.partition(), m.offset()) for m in messages(broker, t)} for t in topics}

    def is_clean(topic: str) -> bool:
        held = [m for m in messages(broker, topic) if (m.partition(), m.offset()) in marks[topic]]
        return len({m.key() for m in held}) == len(held) and all(m.value() for m in held)

    def is_done() -> bool:
        workload.fill(4)
        for _ in range(10):
            workload.step(only=("hot", "cold", "insert", "pet", "large"))
        return all(map(is_clean, topics))

    until(is_done, "the cleaner")


def test_it_is_rebuilt_by_the_newest_rows_and_deleted_rows_stay_deleted(
    postgres: Server, broker: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """H80, H83 and the two ways in which it must be refused instead."""
    source, target = new_database(postgres), new_database(postgres)
    # Whole rows in every change: a row without its large value would stand alone.
    with at_work(source, target, broker, tmp_path, full_identity=True) as (flow, workload, capture):
        topics = [f"{flow.name}.public.{table}" for table in TABLES]
        applying = flow.apply("branch")
        for _ in range(200):
            workload.step()
        workload.fill(20)
        key = workload.beat()
        there = f"select 1 from ledger where sync_id = '{key}'"
        until(lambda: bool(target.query(there)), "the last row in the target")
        assert applying.stop() == 0
        alter(broker, topics, EAGER)
        clean(flow, workload, broker, topics)
        alter(broker, topics, CALM)
        assert any(states[-1] == GONE for states in workload.history["people"].values())
        worker = flow.start("rebuild", "branch", "--on-top", "--at", "7")
        assert_says(worker, OPERATOR, "--at")
        empty(flow)
        worker = flow.start("rebuild", "branch", "--at", "7")
        assert_says(worker, OPERATOR, "compacted", "--at")
        with writing(workload, ("hot", "cold", "insert", "pet", "delete", "return", "several")):
            assert rebuild(flow)["way"] == "latest"
            applying = flow.apply("branch")
        settle(flow, workload, [applying])
        assert rebuild(flow, "--on-top")["written"] == 0
        alter(broker, topics, {"delete.retention.ms": "0"})
        worker = flow.start("rebuild", "branch", "--on-top")
        assert_says(worker, OPERATOR, "tombstone", "delete.retention.ms")
        alter(broker, topics, {"delete.retention.ms": DAY_MS, "min.compaction.lag.ms": "0"})
        # A row of nobody's batch comes late, and the cleaner takes it for the newest of its key.
        stranger = next(m for m in messages(broker, topics[0]) if m.value())
        value = stranger.value() or b""
        at = value.rindex(b'"epoch":') + 8
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce(
            topics[0], value[:at] + b"9" + value[at:], stranger.key(), stranger.partition() or 0
        )
        assert producer.flush(30) == 0
        assert capture.stop() == 0

        def is_alone() -> bool:
            # Whatever is new lets the segment roll.
            producer.produce(topics[0], b"", b"another", stranger.partition() or 0)
            producer.flush(30)
            return [m.key() for m in messages(broker, topics[0])].count(stranger.key()) == 1

        until(is_alone, "the cleaner")
        worker = flow.start("rebuild", "branch", "--on-top")
        assert_says(worker, OPERATOR, "1 keys of public.people", "headwater snapshot")
