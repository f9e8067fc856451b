"""Settings of the peer: Debezium's sources and its JDBC sink, tuned as their users tune them.

Larger batches and queues than the defaults, lz4, a short poll, no schema inside the messages
unless the sink of the measurement needs it there.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from bench.connect import JSON
from bench.connect_jars import PLUGINS
from tests.faults.pipeline import schema_of
from tests.services.database import Database

CONNECTORS = {
    "postgres": "io.debezium.connector.postgresql.PostgresConnector",
    "mysql": "io.debezium.connector.mysql.MySqlConnector",
    "mariadb": "io.debezium.connector.mariadb.MariaDbConnector",
    "jdbc": "io.debezium.connector.jdbc.JdbcSinkConnector",
}
TUNED = {
    "tasks.max": "1",
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "poll.interval.ms": "5",
    "producer.override.compression.type": "lz4",
    "producer.override.batch.size": "524288",
    "producer.override.linger.ms": "10",
    "producer.override.buffer.memory": "134217728",
}


def called(plugin: str) -> str:
    """The plugin with its version, as figures name it."""
    return f"Debezium {plugin} {PLUGINS[plugin].removesuffix('.Final')}"


def topic(name: str, database: Database, table: str = "orders") -> str:
    """Where the source `name` writes that table's rows."""
    return f"{name}.{schema_of(database)}.{table}"


def source(
    kind: str, name: str, database: Database, folder: Path, number: int, *, schemas: bool = False
) -> dict[str, str]:
    """A source of every table of that database, without a snapshot; number: unique on the server.

    folder: where the MySQL family's schema history stands.
    """
    at = urlsplit(database.url)
    settings = TUNED | {
        "connector.class": CONNECTORS[kind],
        "topic.prefix": name,
        "snapshot.mode": "no_data",
        "database.hostname": at.hostname or "",
        "database.port": str(at.port),
        "database.user": at.username or "",
        "database.password": at.password or "",
        **converters(schemas=schemas),
    }
    if kind == "postgres":
        return settings | {
            "database.dbname": database.name,
            "schema.include.list": "public",
            "plugin.name": "pgoutput",
            "slot.name": name,
            "publication.name": name,
            "publication.autocreate.mode": "filtered",
            "status.update.interval.ms": "1000",
        }
    settings |= {
        "database.server.id": str(4_000_100_000 + number),
        "database.include.list": database.name,
        "include.schema.changes": "false",
        "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
        "schema.history.internal.file.filename": str(folder / f"{name}.history"),
        "database.ssl.mode": "disable" if kind == "mariadb" else "disabled",
    }
    if kind == "mysql":
        settings["driver.allowPublicKeyRetrieval"] = "true"
    return settings


def sink(
    kind: str,
    database: Database,
    topic: str,
    *,
    tasks: int,
    content: tuple[str, str] | None,
    table: str = "orders",
) -> dict[str, str]:
    """A sink of that topic into a table; content: the schemas, where the messages lack them."""
    at = urlsplit(database.url)
    options = "reWriteBatchedInserts=true"
    if kind != "postgres":
        options = "rewriteBatchedStatements=true&allowPublicKeyRetrieval=true&sslMode=DISABLED"
    scheme = "postgresql" if kind == "postgres" else "mysql"
    return {
        "connector.class": CONNECTORS["jdbc"],
        "tasks.max": str(tasks),
        "topics": topic,
        "connection.url": f"jdbc:{scheme}://{at.hostname}:{at.port}/{database.name}?{options}",
        "connection.username": at.username or "",
        "connection.password": at.password or "",
        "insert.mode": "upsert",
        "delete.enabled": "true",
        "primary.key.mode": "record_key",
        "primary.key.fields": "id",
        "schema.evolution": "none",
        "collection.name.format": table,
        "quote.identifiers": "false",
        "use.time.zone": "UTC",
        "use.reduction.buffer": "true",
        "batch.size": "2000",
        "consumer.override.max.poll.records": "2000",
        "consumer.override.auto.offset.reset": "earliest",
        "consumer.override.max.partition.fetch.bytes": "8388608",
        "consumer.override.fetch.max.bytes": "104857600",
        **converters(schemas=True, content=content),
    }


def converters(*, schemas: bool, content: tuple[str, str] | None = None) -> dict[str, str]:
    """How keys and values are written or read.

    schemas: each message carries its own, unless `content` gives them, as Kafka 4.2 allows.
    """
    settings = {}
    for side, schema in zip(("key", "value"), content or ("", ""), strict=True):
        settings[f"{side}.converter"] = JSON
        settings[f"{side}.converter.schemas.enable"] = str(schemas).lower()
        if content:
            settings[f"{side}.converter.schema.content"] = schema
    return settings
