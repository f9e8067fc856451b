"""Who last read the log as which target: kept by Kafka as a consumer group's offset with a note.

Nobody joins the group. Its offset is where the reader's next entry is, so that Kafka's own tools
show how far each target is behind.
"""

from time import time_ns

from confluent_kafka import KafkaException, TopicPartition

from schemas.change import Offset
from schemas.errors import Misconfigured
from transport.kafka_commits import ANSWER_WITHIN_S, consumer
from transport.kafka_errors import GONE, translated
from transport.kafka_options import Options
from transport.log import Reader
from transport.record import Checkpoint


class Readers:
    """The readers of one source's log."""

    def __init__(self, options: Options, source: str, topic: str) -> None:
        self._options, self._source, self._topic = options, source, topic

    def find(self, target: str) -> Reader | None:
        """See transport.log.Log.reader."""
        place = self._ask(target, None)
        if place is None or not place.metadata:
            return None
        session, at = place.metadata.split()
        return Reader(session, int(at))

    def note(self, target: str, session: str | None, at: Offset | None) -> None:
        """See transport.log.Log.read_by."""
        offset = 0 if at is None else Checkpoint.loads(at).offset + 1
        text = "" if session is None else f"{session} {time_ns() // 1000}"
        self._ask(target, TopicPartition(self._topic, 0, offset, metadata=text))

    def _ask(self, target: str, new: TopicPartition | None) -> TopicPartition | None:
        group = {"group.id": f"headwater.{self._source}.{target}"}
        client = consumer(self._options, self._source, **group)
        try:
            if new is not None:
                (found,) = client.commit(offsets=[new], asynchronous=False) or [new]
            else:
                place = TopicPartition(self._topic, 0)
                (found,) = client.committed([place], timeout=ANSWER_WITHIN_S)
            if found.error is not None:
                raise KafkaException(found.error)
        except KafkaException as error:
            if error.args[0].code() in GONE:
                return None
            ours = translated(error.args[0], f"note who reads {self._topic}")
            if isinstance(ours, KafkaException):
                # Of a code that nobody listed: who reads is not worth an end of reading.
                ours = Misconfigured(
                    f"could not note who reads {self._topic} ({error.args[0].name()})",
                    hint="report it; a clone of this target would not be seen",
                )
            raise ours from error
        finally:
            client.close()
        return found
