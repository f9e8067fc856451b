"""The table descriptions of one log: what `<source>.schemas` holds, read once and then added to.

Invariant: a description is looked up by its fingerprint, so that one that changed is another one.
"""

from time import monotonic

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import LogTruncated, Transient
from schemas.table import Table
from transport.kafka_commits import ANSWER_WITHIN_S, consumer, failure
from transport.kafka_options import Options
from transport.kafka_topics import Names


class Descriptions:
    """Descriptions by fingerprint; the topic is read to its end at the first need and again for one
    unknown.
    """

    def __init__(self, options: Options, names: Names) -> None:
        self._options = options
        self._names = names
        self._tables: dict[str, Table] = {}
        self._next = 0
        self._read_once = False

    def add(self, table: Table) -> None:
        """Know a description that is durable."""
        self._tables[table.fingerprint] = table

    def has(self, fingerprint: str) -> bool:
        """Whether the description is durable."""
        self._ensure_read()
        return fingerprint in self._tables

    def get(self, fingerprint: str) -> Table:
        """The description; raises LogTruncated when the log does not hold it."""
        if fingerprint not in self._tables:
            self._read()
        if fingerprint not in self._tables:
            raise LogTruncated(
                f"found rows whose description {fingerprint} is not in {self._names.schemas}",
                hint="restore that topic, or drop the log and copy anew",
            )
        return self._tables[fingerprint]

    def tables(self) -> list[Table]:
        """Every description, in the order in which the log got them."""
        self._ensure_read()
        return list(self._tables.values())

    def topics(self) -> list[str]:
        """The topics of every table that was ever described."""
        self._ensure_read()
        return sorted({self._names.topic(table) for table in self._tables.values()})

    def _ensure_read(self) -> None:
        if not self._read_once:
            self._read()

    def _read(self) -> None:
        """Read from where the last read ended to the end that the broker states."""
        reader = consumer(
            self._options,
            self._names.source,
            **{"enable.partition.eof": True, "fetch.wait.max.ms": 1},
        )
        try:
            # The topic is compacted, never cut at its head: offset 0 is always a place to begin.
            reader.assign([TopicPartition(self._names.schemas, 0, self._next)])
            waiting_since = monotonic()
            while True:
                message = reader.poll(1.0)
                if message is None:
                    if monotonic() - waiting_since > ANSWER_WITHIN_S:
                        raise Transient(
                            f"could not read {self._names.schemas}",
                            hint="check that the brokers are up",
                        )
                    continue
                error = message.error()
                if error is None:
                    self.add(Table.loads((message.value() or b"").decode()))
                    self._next = (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._read_once = True
                    return
                elif (mapped := failure(error, f"read {self._names.schemas}")) is not None:
                    raise mapped from KafkaException(error)
        finally:
            reader.close()
