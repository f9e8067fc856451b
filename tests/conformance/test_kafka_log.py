"""What only the log in Kafka has to keep: its topics, and a broker that refuses, forgets or stalls.

Not here: what every log keeps (test_log.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from kafka.partitioner.default import murmur2

from schemas.change import Piece
from schemas.errors import LogReplaced, LogTruncated, Misconfigured, Operator, Transient
from tests.conformance.logs import USERS, Writer, batches, ids, positions, users, value
from tests.services import kafka as broker
from tests.services.server import Server, free_port
from transport.kafka import KafkaLog

STALL_S = 120.0
"""Issue 3: a broker stalled for two minutes under load."""


class Cluster:
    """A broker as its operator sees it, and logs in it under one source name."""

    def __init__(self, address: str, source: str) -> None:
        self.address, self.source = address, source
        self.client: dict[str, Any] = {"bootstrap.servers": address, "log_level": 0}
        self.admin = AdminClient(self.client)
        self.logs: list[KafkaLog] = []

    @property
    def rows(self) -> str:
        """The topic of the table that tests write."""
        return f"{self.source}.public.users"

    def connect(self, **settings: Any) -> KafkaLog:
        log = KafkaLog(self.address, self.source, **({"partitions": 3} | settings))
        self.logs.append(log)
        return log

    def alter(self, topic: str, name: str, setting: str) -> None:
        entry = ConfigEntry(name, setting, incremental_operation=AlterConfigOpType.SET)
        resource_ = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for done in self.admin.incremental_alter_configs([resource_]).values():
            done.result(30)

    def create(self, topic: str, partitions: int, config: dict[str, str] | None = None) -> None:
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config or {})
        self.admin.create_topics([new])[topic].result(30)

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

    def forget(self, topic: str, partition: int, offset: int) -> None:
        """What retention does: the partition's rows below the offset are gone."""
        place = TopicPartition(topic, partition, offset)
        for done in self.admin.delete_records([place]).values():
            done.result(30)

    def put(self, topic: str, key: bytes, data: bytes) -> None:
        """Another program's row."""
        producer = Producer(self.client | {"partitioner": "murmur2_random"})
        producer.produce(topic, data, key)
        assert producer.flush(30) == 0

    def held(self, topic: str) -> list[Message]:
        """Everything the topic holds."""
        consumer = Consumer(self.client | {"group.id": self.source, "enable.partition.eof": True})
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found, ends = [], 0
        while ends < len(partitions):
            message = consumer.poll(30)
            assert message is not None
            ends += message.error() is not None
            found += [] if message.error() is not None else [message]
        consumer.close()
        return found

    def close(self) -> None:
        for log in self.logs:
            log.close()


@pytest.fixture
def cluster(kafka: Server, kafka_prefix: str) -> Iterator[Cluster]:
    cluster = Cluster(kafka.address, kafka_prefix)
    yield cluster
    cluster.close()


def grown(writer: Writer, number: int, size_bytes: int) -> Piece:
    """A piece with three rows of which the middle one is this large, and hard to compress."""
    (piece,) = writer.pieces(users(number, number + 1, number + 2))
    values = piece.rows[0].values
    noise = os.urandom(size_bytes // 2).hex().encode()
    values[1] = values[1].replace("é".encode(), noise)
    return piece


def test_a_row_that_the_broker_refuses_stops_its_batch_and_is_named(cluster: Cluster) -> None:
    """H75: a broker that drops one row of a batch; nothing of it is read, nothing skipped."""
    writer = Writer(cluster.connect())
    writer.write("a", users(1))
    cluster.alter(cluster.rows, "max.message.bytes", "5000")
    piece = grown(writer, 10, 8_000)

    def write() -> None:
        writer.log.append(piece)
        writer.end(piece.run, "b")
        writer.log.flush()

    with pytest.raises(Operator, match=r"public\.users: 8\d\d\d bytes") as refused:
        write()
    assert "max.message.bytes" in refused.value.hint
    with pytest.raises(Operator):
        writer.log.accepted()
    assert positions(batches(cluster.connect())) == ["a"]
    cluster.alter(cluster.rows, "max.message.bytes", "9000000")
    again = Writer(writer.log)
    assert again.opened.position == "a"
    again.write("b", users(10, 11, 12))
    assert [ids(batch) for batch in batches(cluster.connect())] == [
        [("c", 1)],
        [("c", 10), ("c", 11), ("c", 12)],
    ]


def test_a_row_larger_than_configured_is_refused_before_it_is_sent(cluster: Cluster) -> None:
    """H75: the same, found by the client."""
    writer = Writer(cluster.connect(max_record_bytes=10_000))
    writer.write("a", users(1))
    with pytest.raises(Operator, match=r"public\.users: \d+ bytes"):
        writer.log.append(grown(writer, 10, 20_000))
    assert positions(batches(cluster.connect(max_record_bytes=10_000))) == ["a"]


def test_rows_that_retention_took_are_an_error_and_never_skipped(cluster: Cluster) -> None:
    """H81: retention removed rows that a commit record names."""
    writer = Writer(cluster.connect(partitions=1))
    writer.write("a", users(1, 2, 3))
    writer.write("b", users(4))
    cluster.forget(cluster.rows, 0, 2)
    first, second = batches(cluster.connect(partitions=1))
    with pytest.raises(LogTruncated):
        ids(first)
    assert ids(second) == [("c", 4)]


def test_a_table_topic_that_was_deleted_is_an_error(cluster: Cluster) -> None:
    writer = Writer(cluster.connect())
    writer.write("a", users(1))
    cluster.delete(cluster.rows)
    (batch,) = batches(cluster.connect())
    with pytest.raises((LogReplaced, LogTruncated)):
        ids(batch)


def test_a_log_without_its_commits_is_not_begun_anew(cluster: Cluster) -> None:
    """A re-created topic: a chain begun anew beside old rows would hide a gap."""
    Writer(cluster.connect()).write("a", users(1))
    cluster.delete(f"{cluster.source}.commits")
    with pytest.raises(LogReplaced, match="commits"):
        cluster.connect().open()


def test_a_capture_notices_that_its_log_was_made_anew(cluster: Cluster) -> None:
    log = cluster.connect()
    Writer(log).write("a", users(1))
    cluster.connect().drop()
    cluster.connect().open()
    with pytest.raises(LogReplaced):
        log.open()


def test_a_following_reader_notices_that_its_log_was_made_anew(cluster: Cluster) -> None:
    Writer(cluster.connect()).write("a", users(1))
    read = cluster.connect().read(None)
    assert next(read) is not None
    cluster.connect().drop()
    Writer(cluster.connect()).write("z", users(1))
    with pytest.raises((LogReplaced, LogTruncated)):
        assert all(batch is None for batch in read)


def test_rows_of_others_between_a_batchs_rows_are_ignored(cluster: Cluster) -> None:
    """A zombie's late rows and a foreign program's are not of the record's (epoch, run)."""
    zombie = Writer(cluster.connect(partitions=1))
    zombie.write("a", users(1))
    writer = Writer(cluster.connect(partitions=1))
    run = writer.begin(users(2))
    epoch = zombie.opened.stamp.epoch
    cluster.put(cluster.rows, b'{"id":8}', value(USERS, "c", 8, epoch, 7, 0))
    cluster.put(cluster.rows, b'{"id":9}', b'{"not":"ours"}')
    (late,) = writer.pieces(users(3))
    writer.log.append(Piece(run=run, rows=late.rows[:0]))
    writer.end(run, "b")
    writer.write("c", users(4))
    assert [ids(batch) for batch in batches(cluster.connect())] == [
        [("c", 1)],
        [("c", 2)],
        [("c", 4)],
    ]


def test_a_tombstone_follows_each_delete_and_is_no_row(cluster: Cluster) -> None:
    writer = Writer(cluster.connect())
    writer.write("a", [*users(1, 2), *users(1, op="d"), *users(1)])
    kept = [m.value() for m in cluster.held(cluster.rows) if m.key() == b'{"id":1}']
    assert [bool(data) for data in kept] == [True, True, False, True]
    (batch,) = batches(cluster.connect())
    assert batch.row_count == 4
    assert ids(batch) == [("c", 1), ("c", 2), ("d", 1), ("c", 1)]


def test_rows_lie_where_java_clients_would_put_them(cluster: Cluster) -> None:
    """H90: murmur2 of the key, so that everybody's rows of one identity meet."""
    writer = Writer(cluster.connect(partitions=7))
    writer.write("a", users(*range(200)))
    for message in cluster.held(cluster.rows):
        key = message.key()
        assert message.partition() == (murmur2(key) & 0x7FFFFFFF) % 7


def test_topics_are_made_as_asked(cluster: Cluster) -> None:
    writer = Writer(cluster.connect(partitions=2, retention_s=3600, max_record_bytes=100_000))
    writer.write("a", users(1))
    topics = {
        name.removeprefix(f"{cluster.source}."): len(topic.partitions)
        for name, topic in cluster.admin.list_topics(timeout=30).topics.items()
        if name.startswith(cluster.source)
    }
    assert topics == {"commits": 1, "schemas": 1, "identities": 2, "public.users": 2}
    asked = [ConfigResource(ResourceType.TOPIC, cluster.rows)]
    (found,) = [done.result(30) for done in cluster.admin.describe_configs(asked).values()]
    assert found["message.timestamp.type"].value == "LogAppendTime"
    assert found["retention.ms"].value == "3600000"
    assert found["cleanup.policy"].value == "delete"
    assert int(found["max.message.bytes"].value) >= 100_000


def test_a_topic_that_keeps_less_than_asked_is_refused_with_the_command(cluster: Cluster) -> None:
    Writer(cluster.connect(retention_s=3600)).write("a", users(1))
    with pytest.raises(Operator, match=r"retention\.ms=7200000") as refused:
        cluster.connect(retention_s=7200).open()
    assert "kafka-configs.sh" in refused.value.hint


def test_commits_in_several_partitions_are_refused(cluster: Cluster) -> None:
    cluster.create(f"{cluster.source}.commits", 2)
    with pytest.raises(Operator, match="2 partitions"):
        cluster.connect().open()


def test_a_second_log_of_the_same_name_but_for_a_dot_is_refused(cluster: Cluster) -> None:
    cluster.create(f"{cluster.source}_commits", 1)
    with pytest.raises(Operator, match="dots"):
        cluster.connect().open()
    cluster.delete(f"{cluster.source}_commits")


def test_a_broker_that_is_not_there_is_one_sentence() -> None:
    log = KafkaLog(f"127.0.0.1:{free_port()}", "shop")
    with pytest.raises(Transient, match=r"reach Kafka at 127\.0\.0\.1") as missing:
        log.open()
    assert missing.value.hint
    log.close()


def test_an_unusable_security_option_is_one_sentence(cluster: Cluster) -> None:
    options = {"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"}
    with pytest.raises(Misconfigured, match="Kafka options"):
        cluster.connect(options=options).open()


def test_a_stalled_broker_is_back_pressure_and_loses_nothing(server_dir: Path) -> None:
    """Issue 3: stalled for two minutes under load, the capture goes on where it was."""
    with broker.start(server_dir) as server:
        cluster = Cluster(server.address, "stalled")
        queue: dict[str, Any] = {"queue.buffering.max.messages": 5_000}
        writer = Writer(cluster.connect(options=queue))
        writer.write("p0", users(0))
        awake = Event()

        def end_of_stall() -> None:
            server.resume()
            awake.set()

        server.pause()
        wake = Timer(STALL_S, end_of_stall)
        wake.start()
        try:
            for number in range(1, 31):
                at = number * 1_000
                writer.end(writer.begin(users(*range(at, at + 1_000))), f"p{number}")
            assert awake.is_set(), "the queue was full: the capture waited"
            assert writer.log.flush() == "p30"
        finally:
            wake.join()
        read = batches(cluster.connect())
        assert positions(read) == [f"p{number}" for number in range(31)]
        assert {batch.epoch for batch in read} == {writer.opened.stamp.epoch}
        assert [number for b in read[1:] for _, number in ids(b)] == [*range(1_000, 31_000)]
        cluster.close()


MILLION = """
import sys
from tests.conformance.logs import Writer, batches, users
from transport.kafka import KafkaLog
log = KafkaLog(sys.argv[2], sys.argv[3])
if sys.argv[1] == "write":
    writer = Writer(log)
    stamp = writer.opened.stamp
    run = stamp.draw()
    from schemas.change import Piece, Rows
    from tests.conformance.logs import USERS, value
    for at in range(0, 1_000_000, 5_000):
        numbers = range(at, at + 5_000)
        values = [value(USERS, "c", n, stamp.epoch, run, n) for n in numbers]
        keys = [b'{"id":%d}' % n for n in numbers]
        rows = Rows(table=USERS, ops=["c"] * 5_000, ordinals=[*numbers], keys=keys, values=values)
        log.append(Piece(run=run, rows=(rows,)))
    writer.end(run, "a")
    assert log.flush() == "a"
else:
    (batch,) = batches(log)
    expected = 0
    for block in batch.blocks():
        for rows in block:
            assert rows.ordinals == [*range(expected, expected + len(rows))]
            expected += len(rows)
    assert expected == 1_000_000
log.close()
# Not getrusage: its figure begins with what the process that started us had.
with open("/proc/self/status") as file:
    status = file.read()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_a_million_rows_in_one_batch_stay_below_300_mb_on_both_sides(cluster: Cluster) -> None:
    """H141, a tenth of it: memory does not grow with the transaction."""
    for side in ("write", "read"):
        argv = [sys.executable, "-c", MILLION, side, cluster.address, cluster.source]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr
        resident_mb = int(done.stdout.split()[-1])
        print(f"{side}: {resident_mb} MB resident")
        assert resident_mb < 300
