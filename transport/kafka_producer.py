"""Sends rows, descriptions and entries to Kafka, and judges what came of them.

The producer is idempotent and waits for all replicas; still librdkafka drops a row that is too
large or too late and goes on, so every row is reported for. Invariant: after one refused row this
producer sends no commit record any more.
"""

from collections.abc import Callable
from logging import getLogger
from time import monotonic

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.change import Rows
from schemas.errors import Transient
from transport.kafka_draft import Draft, Refused, Reported
from transport.kafka_errors import size_refused, translated
from transport.kafka_options import Options

PRODUCER: dict[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    # What Java's clients do with a key, so that everybody's rows of one identity meet in one
    # partition.
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 1,
    # Measured with 350-byte rows on one broker: 297,000 rows/s, against 277,000 with batches of 1
    # MB.
    "batch.size": 262_144,
    # A capture's memory; a full queue is back-pressure.
    "queue.buffering.max.kbytes": 48 * 1024,
    "queue.buffering.max.messages": 150_000,
    # A broker that stalls for minutes must not cost a batch of hours: only after this long is a row
    # given up.
    "delivery.timeout.ms": 30 * 60 * 1000,
    # A new topic is not known to every broker at once.
    "topic.metadata.refresh.fast.interval.ms": 50,
}


class RowProducer:
    """One producer session; a failed one is thrown away and made anew."""

    def __init__(self, options: Options, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        config = options.producer({**PRODUCER, "message.max.bytes": max_record_bytes + 1024})
        self._producer = Producer(config, logger=getLogger("headwater.librdkafka"))

    def close(self) -> None:
        """Throw away what was not sent; what was may still arrive, and counts for nothing without
        its record.
        """
        self._producer.purge()
        self._producer.flush(0)

    def poll(self, timeout_s: float) -> None:
        """Let callbacks run, for at most this long when there are none."""
        self._producer.poll(timeout_s)

    def send(self, draft: Draft, rows: Rows, topic: str, make_room: Callable[[], None]) -> None:
        """Queue rows, and a tombstone after each delete. `make_room` is called while the queue is
        full.
        """
        table = rows.table.full_name
        report = draft.topic(topic, table)
        # Counted first: whoever polls while this loop runs must not find the draft complete.
        draft.rows += len(rows)
        produce = self._producer.produce
        try:
            if "d" not in rows.ops:
                for key, value in zip(rows.keys, rows.values, strict=True):
                    try:
                        produce(topic, value, key, -1, report)
                    except BufferError:
                        self._wait(topic, value, key, report, make_room)
                return
            bury = draft.bury(table)
            draft.tombstones += rows.ops.count("d")
            for op, key, value in zip(rows.ops, rows.keys, rows.values, strict=True):
                self._wait(topic, value, key, report, make_room)
                if op == "d":
                    self._wait(topic, None, key, bury, make_room)
        except KafkaException as error:
            refused = Refused(table, error.args[0], len(key) + len(value))
            raise self.refusal(refused) from error

    def try_send(self, topic: str, value: bytes, report: Reported) -> bool:
        """Queue one entry of the commit topic; whether there was room."""
        try:
            self._producer.produce(topic, value, on_delivery=report)
        except BufferError:
            return False
        except KafkaException as error:
            raise self.refusal(Refused("the commit topic", error.args[0], len(value))) from error
        return True

    def store(
        self, topic: str, value: bytes, key: bytes | None, within_s: float | None = None
    ) -> int:
        """Store one value and wait until it is durable; its offset (negative: not told)."""
        results: list[tuple[KafkaError | None, int]] = []

        def report(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            results.append((error, -1 if offset is None else offset))

        self._wait(topic, value, key, report, lambda: self.poll(1.0))
        until = None if within_s is None else monotonic() + within_s
        while not results:
            self.poll(0.2)
            if until is not None and monotonic() > until and not results:
                raise Transient(
                    f"got no answer to a write to {topic}", hint="check that the brokers are up"
                )
        error, offset = results[0]
        if error is not None:
            raise self.refusal(Refused(topic, error, len(value))) from KafkaException(error)
        return offset

    def refusal(self, refused: Refused) -> Exception:
        """What a refused row means: raise it `from` the driver's error."""
        if refused.error.code() in (
            KafkaError.MSG_SIZE_TOO_LARGE,
            KafkaError.RECORD_LIST_TOO_LARGE,
        ):
            return size_refused(refused.table, refused.size_bytes, self._max_record_bytes)
        return translated(refused.error, f"write rows of {refused.table}")

    def _wait(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        report: Reported,
        make_room: Callable[[], None],
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, -1, report)
                return
            except BufferError:
                make_room()
