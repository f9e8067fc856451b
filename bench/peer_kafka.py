"""What stands beside the Kafka log's figures: the same keys and values by the bare client."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.envelopes import padded
from bench.measure import Clock, Sample
from transport.kafka_producer import PRODUCER

PARTITIONS = 6
AT_ONCE = 10_000


def produce(servers: str, topic: str, rows: int) -> Sample:
    """Our producer's settings, one flush at the end."""
    client: dict[str, Any] = {"bootstrap.servers": servers}
    admin = AdminClient(client)
    for done in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        done.result(30)
    pairs = list(padded(range(rows)))
    producer, clock = Producer({**PRODUCER, **client}), Clock()
    producer.produce(topic, b"", b"")
    producer.flush(30)  # the first message also asks for the topic
    with clock:
        for key, value in pairs:
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.01)
        left = producer.flush(60)
    assert left == 0
    return clock.sample(rows)


def consume(servers: str, topic: str, rows: int) -> Sample:
    """All partitions by one consumer, in blocks."""
    client: dict[str, Any] = {
        "bootstrap.servers": servers,
        "group.id": topic,
        "enable.auto.commit": False,
        # As ours: by default a full partition is left alone for a second.
        "fetch.queue.backoff.ms": 5,
    }
    clock, seen = Clock(), 0
    with closing(Consumer(client)) as consumer:
        with clock:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
            while seen <= rows:
                # A block that could not be full would wait for the whole timeout.
                wanted = min(AT_ONCE, rows + 1 - seen)
                seen += sum(not m.error() for m in consumer.consume(wanted, timeout=1))
        return clock.sample(rows)
