"""An Apache Kafka broker of one node (KRaft) on loopback, its jars from Maven Central.

Invariant: topics exist only where somebody created them (no automatic creation), so a test
that depends on a topic's settings cannot be answered by a broker's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from confluent_kafka.admin import AdminClient

from tests.services import docker, install
from tests.services.server import LocalProcess, Server, Unavailable, free_port, run

CLUSTER = "aGVhZHdhdGVyLXRlc3QtMA"  # any 16 bytes in base64url
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    # After kill -9 the new broker may register only when the old one's session has run out.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}
# The first tier of the compiler alone: the broker starts in half the time.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-Xshare:auto")
JAVA = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]


def start(
    data_dir: Path,
    extra_flags: Sequence[str] = (),
    *,
    version: str = install.KAFKA_VERSION,
    client: Mapping[str, str] = MappingProxyType({}),
    java_flags: Sequence[str] = QUICK_START,
) -> Server:
    """Start a broker with its data in `data_dir`.

    `extra_flags` are broker settings such as `message.max.bytes=2000000`; `client` is what a
    client needs to log in where they demand it; `java_flags` do not reach a container.
    """
    settings = SETTINGS | dict(flag.split("=", 1) for flag in extra_flags)
    if docker.answers():
        return docker.kafka(settings, version, client)
    jars = install.kafka(version)
    java = install.apt("default-jre-headless", "java")
    port, controller = free_port(), free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
    settings |= {
        "listeners": listeners,
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": str(data_dir / "data"),
    }
    data_dir.mkdir(parents=True, exist_ok=True)
    properties = data_dir / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    kafka = [java, *java_flags, *JAVA, f"-Dkafka.logs.dir={data_dir}", "-cp", f"{jars}/*"]
    if not (data_dir / "data/meta.properties").exists():
        run([*kafka, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", properties])
    address = f"127.0.0.1:{port}"
    process = LocalProcess(
        [kafka[0], "-Xmx768m", "-XX:+UseG1GC", *kafka[1:], "kafka.Kafka", str(properties)],
        log=data_dir / "server.log",
        ready=lambda: answer(address, client),
    )
    return Server(kind="kafka", url=f"kafka://{address}", process=process)


def answer(address: str, client: Mapping[str, str] = MappingProxyType({})) -> None:
    """Return when the broker lists itself; raise if it does not within two seconds."""
    # librdkafka prints its own connection errors, expected here, unless log_level is 0.
    asking = AdminClient({"bootstrap.servers": address, "log_level": 0, **client})
    if not asking.list_topics(timeout=2).brokers:
        raise Unavailable(f"no broker at {address}: start one")


def drop_topics(address: str, prefix: str) -> None:
    """Delete every topic whose name starts with `prefix`."""
    client = AdminClient({"bootstrap.servers": address, "log_level": 0})
    topics = [name for name in client.list_topics(timeout=30).topics if name.startswith(prefix)]
    if topics:
        for deletion in client.delete_topics(topics, operation_timeout=30).values():
            deletion.result()
