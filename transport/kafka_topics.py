"""The topics of one source: their names, their creation and inspection, through kafka-python's
admin client.

Names are the log's contract with other readers (docs/wire.md): `<source>.<schema>.<table>`. What
Kafka refuses in a name becomes `_`. Invariant: a topic is used only if it keeps what was asked;
nothing here alters a topic that exists.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

import kafka.errors as admin_errors
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from schemas.errors import LogReplaced, Misconfigured, Operator, Transient
from schemas.table import Table
from transport.kafka_errors import LOGIN, translated, translated_admin
from transport.kafka_options import Options

CONNECT_WITHIN_MS = 8_000
ASK_AGAIN_S = 1.0
TOPIC_EXISTS = 36
TOPIC_COLLIDES = 17
LONGEST_NAME = 249
_REFUSED = re.compile(r"[^A-Za-z0-9._-]")
_SOURCE = re.compile(r"[A-Za-z0-9_-]+")

# kafka-python logs each attempt of its own; here only what it raises counts.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the topics are made with, and at least must have."""

    partitions: int
    replication: int
    retention_s: int
    max_record_bytes: int

    def settings(self, *, compact: bool = False) -> dict[str, str]:
        """The topic's settings. LogAppendTime: a replayed backlog must not expire at once."""
        return {
            "cleanup.policy": "compact" if compact else "delete",
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": "-1" if compact else str(self.retention_s * 1000),
            "retention.bytes": "-1",
            # Records travel in batches, whose header the limit includes (61 bytes, and varints for
            # each record).
            "max.message.bytes": str(self.max_record_bytes + 1024),
            # acks=all means all that are in sync: one alone must not count where there are more.
            "min.insync.replicas": "2" if self.replication > 2 else "1",
        }


class Cleaning(NamedTuple):
    """How a topic is compacted: a row stands at least `lag_ms` before a newer one of its key may
    remove it, a tombstone at least `tombstones_ms` after it did so.
    """

    lag_ms: int
    tombstones_ms: int


class Names:
    """The topics' names of one source; raises Misconfigured when two tables would share a topic."""

    def __init__(self, source: str) -> None:
        if not _SOURCE.fullmatch(source):
            raise Misconfigured(
                f"cannot name topics after the source {source!r}",
                hint="use letters, digits, - and _: after a dot the schema begins",
            )
        self.source = source
        self.commits = f"{source}.commits"
        self.identities = f"{source}.identities"
        self.schemas = f"{source}.schemas"
        self._tables: dict[str, str] = {}

    def topic(self, table: Table) -> str:
        """The topic of a table's rows."""
        name = f"{self.source}.{_REFUSED.sub('_', table.full_name)}"
        # Kafka refuses two names that differ by dots and underscores only: its metrics mix them up.
        owner = self._tables.setdefault(name.replace(".", "_"), table.full_name)
        if owner != table.full_name:
            raise Misconfigured(
                f"cannot keep {table.full_name} and {owner} apart: both need the topic {name}",
                hint="exclude or rename one of the two tables",
            )
        if len(name) > LONGEST_NAME:
            raise Misconfigured(
                f"cannot name a topic after {table.full_name}: {len(name)} characters are too many",
                hint=f"Kafka takes {LONGEST_NAME}: shorten the source's name or exclude the table",
            )
        return name


class Topics:
    """An admin connection and what was done and found through it."""

    def __init__(self, options: Options, names: Names, wanted: Wanted) -> None:
        """Connect within about eight seconds; raises Transient or Misconfigured otherwise."""
        self._names = names
        self._wanted = wanted
        self._ready: set[str] = set()
        _reach(options)
        try:
            self._admin = KafkaAdminClient(
                **options.admin(),
                bootstrap_timeout_ms=CONNECT_WITHIN_MS,
                request_timeout_ms=CONNECT_WITHIN_MS,
            )
        except admin_errors.KafkaError as error:
            raise translated_admin(error, f"reach Kafka at {options.servers}") from error
        except (OSError, ValueError, AssertionError) as error:
            raise Misconfigured(
                f"could not use the log's Kafka options ({type(error).__name__})",
                hint="check the files and values of security.protocol, sasl.* and ssl.*",
            ) from error

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._admin.close()

    def incarnation(self) -> str | None:
        """The commit topic's id, which a topic made anew does not share; None where there is no
        such topic.
        """
        found = self._describe([self._names.commits]).get(self._names.commits)
        return None if found is None else str(found["topic_id"])

    def prepare(self) -> str:
        """Make the three topics that are not a table's, or inspect them; the log's incarnation.

        The commit topic comes first, alone: where it is missing although another is there, it was
        deleted, and a chain begun anew would have a silent gap.
        """
        names = self._names
        found = self._describe([names.commits, names.schemas, names.identities])
        if found and names.commits not in found:
            raise LogReplaced(
                f"found no topic {names.commits} although {min(found)} is there",
                hint="restore it, or drop the log and copy anew: its order of commits is lost",
            )
        self._make({names.commits: 1})
        self._make({names.schemas: 1}, compact=True)
        self._make({names.identities: self._wanted.partitions})
        incarnation = self.incarnation()
        if incarnation is None or not incarnation.strip("0-"):
            raise Operator(
                f"found no topic id for {names.commits}",
                hint="use Kafka 3 or newer: older brokers cannot tell a topic from one made anew",
            )
        return incarnation

    def holds(self, topic: str) -> bool:
        """Whether the topic is there."""
        return bool(self._describe([topic]))

    def make_tables(self, topics: Iterable[str]) -> None:
        """Make or inspect the topics of tables; each is looked at once."""
        fresh = {topic: self._wanted.partitions for topic in topics if topic not in self._ready}
        if fresh:
            self._make(fresh)

    def limits(self, tables: Iterable[str]) -> tuple[float | None, int | None]:
        """The shortest time (seconds) and the smallest size (bytes of a partition) that the commit
        topic and these tables' topics are kept for; None: without end.
        """
        found = self._settings(self._describe([self._names.commits, *tables]))
        times = [int(config["retention.ms"]["value"]) / 1000 for config in found.values()]
        sizes = [int(config["retention.bytes"]["value"]) for config in found.values()]
        return (
            min((time for time in times if time >= 0), default=None),
            min((size for size in sizes if size >= 0), default=None),
        )

    def drop(self, tables: Iterable[str]) -> list[str]:
        """Delete the source's topics; those that were there."""
        names = self._names
        found = sorted(self._describe([*tables, names.commits, names.schemas, names.identities]))
        if found:
            self._call("delete topics", self._admin.delete_topics, found)
        return found

    def _make(self, topics: Mapping[str, int], *, compact: bool = False) -> None:
        settings = self._wanted.settings(compact=compact)
        found = self._describe(topics)
        missing = {
            topic: {
                "num_partitions": partitions,
                "replication_factor": self._wanted.replication,
                "configs": settings,
            }
            for topic, partitions in topics.items()
            if topic not in found
        }
        if missing:
            made = self._call(
                "create topics", self._admin.create_topics, missing, raise_errors=False
            )
            for topic in made["topics"]:
                _refuse(topic)
            self._call("create topics", self._admin.wait_for_topics, list(missing))
        # What another capture made at the same moment is inspected like what was there before.
        self._inspect(set(topics), settings)
        self._ready.update(topics)

    def cleaning(self, topics: Iterable[str]) -> dict[str, Cleaning]:
        """Of those topics that are compacted: how."""
        there = sorted(self._describe(topics))
        if not there:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in there]
        found = self._call(
            "read the topics' settings",
            self._admin.describe_configs,
            resources,
            config_filter="all",
        )
        return {
            topic: Cleaning(
                int(config["min.compaction.lag.ms"]["value"]),
                int(config["delete.retention.ms"]["value"]),
            )
            for topic, config in found["topic"].items()
            if "compact" in config["cleanup.policy"]["value"]
        }

    def _inspect(self, topics: set[str], settings: Mapping[str, str]) -> None:
        commits = self._describe(topics).get(self._names.commits)
        if commits is not None and len(commits["partitions"]) != 1:
            raise Operator(
                f"found {len(commits['partitions'])} partitions in {self._names.commits}, not one",
                hint="drop the log and let Headwater create its topics",
            )
        own = (self._names.commits, self._names.identities)
        for topic, config in self._settings(topics).items():
            short = [
                f"{name}={asked}"
                for name, asked in settings.items()
                if name in config
                and _falls_short(name, config[name]["value"], asked)
                # A table's topic may be compacted (docs/operating-kafka.md).
                and not (config[name]["value"] == "compact" and topic not in own)
            ]
            if short:
                raise Operator(
                    f"found {topic} without {', '.join(short)}",
                    hint="kafka-configs.sh --bootstrap-server SERVER --alter --entity-type topics "
                    f"--entity-name {topic} --add-config {','.join(short)}",
                )

    def _settings(self, topics: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """Each topic's settings by name, defaults included."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in sorted(topics)]
        found = self._call(
            "read the topics' settings",
            self._admin.describe_configs,
            resources,
            config_filter="all",
        )
        settings: dict[str, dict[str, dict[str, Any]]] = found["topic"]
        return settings

    def _describe(self, topics: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The topics that are there, by name."""
        asked = list(topics)
        found = self._call("describe topics", self._admin.describe_topics, asked)
        return {topic["name"]: topic for topic in found if topic["error_code"] == 0}

    def _call(self, doing: str, call: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except admin_errors.KafkaError as error:
            raise translated_admin(error, doing) from error


def _reach(options: Options) -> None:
    """Ask a broker for anything: librdkafka says why there is no answer, kafka-python does not."""
    errors: list[KafkaError] = []
    try:
        client = AdminClient(
            options.client(errors.append), logger=logging.getLogger("headwater.librdkafka")
        )
    except KafkaException as error:
        raise Misconfigured(
            f"could not use the log's Kafka options: {error.args[0].str()}",
            hint="check security.protocol, sasl.* and ssl.*",
        ) from error
    doing = f"reach Kafka at {options.servers}"
    until = monotonic() + CONNECT_WITHIN_MS / 1000
    while True:
        try:
            client.list_topics(timeout=ASK_AGAIN_S)
            return
        except KafkaException as error:
            client.poll(0)
            refused = [e for e in errors if e.code() in LOGIN]
            # It would try a refused login again and again until the time is over.
            timed_out = error.args[0].code() == KafkaError._TIMED_OUT
            if timed_out and not refused and monotonic() < until:
                continue
            mapped = translated((refused or error.args)[0], doing)
            if isinstance(mapped, Transient):
                # A broker that demands a login or TLS just hangs up on whoever talks plainly.
                mapped.hint = "check that the brokers are up, and security.protocol"
            raise mapped from error


def _falls_short(name: str, has: str, asked: str) -> bool:
    if name in ("cleanup.policy", "message.timestamp.type"):
        return has != asked
    if name == "max.message.bytes":
        return int(has) < int(asked)
    if name == "retention.ms":
        return int(has) != -1 and (asked == "-1" or int(has) < int(asked))
    # A size limit or fewer replicas are the operator's choice; what is lost by them is detected.
    return False


def _refuse(topic: Mapping[str, Any]) -> None:
    """Raise for a topic that was not created, unless somebody else just did."""
    code = topic["error_code"]
    if code in (0, TOPIC_EXISTS):
        return
    error = admin_errors.for_code(code)(topic["error_message"])
    if code == TOPIC_COLLIDES:
        raise Operator(
            f"could not create {topic['name']}: another topic's name differs by dots and _ only",
            hint="delete that topic, or give the source another name",
        ) from error
    if isinstance(error, admin_errors.InvalidReplicationFactorError):
        raise Misconfigured(
            f"could not create {topic['name']} with so many replicas",
            hint="set replication to at most the number of brokers",
        ) from error
    if isinstance(error, admin_errors.PolicyViolationError):
        raise Misconfigured(
            f"could not create {topic['name']}: the cluster's policy forbids it",
            hint=str(topic["error_message"]),
        ) from error
    mapped = translated_admin(error, f"create {topic['name']}")
    if isinstance(mapped, Transient | Operator):
        raise mapped from error
    raise mapped
