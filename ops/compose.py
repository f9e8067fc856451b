"""The composition root: sources, logs and targets made from the configuration, and nothing else.

Adapters are imported where they are made: a machine that only applies to PostgreSQL from SQLite
loads neither MySQL's nor Kafka's drivers.
"""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from typing import Any

from apply.target import Target
from capture.source import Source
from ops.config import Config, LogConfig, SourceConfig, TargetConfig
from ops.config_file import nearest
from schemas.errors import Misconfigured
from schemas.selection import Derived
from transport.log import Log


def source_config(config: Config, name: str) -> SourceConfig:
    """The source of that name; raises Misconfigured naming the nearest."""
    if name not in config.sources:
        raise Misconfigured(
            f"found no source {name} in the configuration", hint=nearest(name, list(config.sources))
        )
    return config.sources[name]


def target_config(config: Config, name: str) -> TargetConfig:
    """The target of that name; raises Misconfigured naming the nearest."""
    if name not in config.targets:
        raise Misconfigured(
            f"found no target {name} in the configuration", hint=nearest(name, list(config.targets))
        )
    return config.targets[name]


def is_source(config: Config, name: str) -> bool:
    """Whether the name is a source's (else a target's); raises Misconfigured for neither."""
    names = [*config.sources, *config.targets]
    if name not in names:
        raise Misconfigured(
            f"found no source or target {name} in the configuration", hint=nearest(name, names)
        )
    return name in config.sources


@contextmanager
def opened_source(
    config: Config, name: str, *, copied_anew: Collection[str] = ()
) -> Iterator[Source]:
    """The source, closed at the end; copied_anew: tables that this capture copies again."""
    settings = source_config(config, name)
    with closing(_source(name, settings, copied_anew)) as source:
        if any(isinstance(i, Derived) for i in settings.selection.identity.values()):
            from capture.derived import deriving

            yield deriving(source)
        else:
            yield source


@contextmanager
def opened_log(config: Config, source_name: str) -> Iterator[Log]:
    """The log of one source, closed at the end; not claimed: that is `Log.open`."""
    with closing(_log(source_name, config.log)) as log:
        yield log


@contextmanager
def opened_target(config: Config, name: str) -> Iterator[Target]:
    """The target, closed at the end."""
    with closing(_target(name, target_config(config, name))) as target:
        yield target


def _source(name: str, settings: SourceConfig, copied_anew: Collection[str]) -> Source:
    if settings.kind == "polling":
        return _polled(name, settings)
    common: dict[str, Any] = {
        "batch_rows": settings.batch_rows,
        "batch_bytes": settings.batch_bytes,
        "copied_anew": copied_anew,
    }
    if settings.family == "mysql":
        from capture.mysql import MySQLSource

        return MySQLSource(
            name,
            settings.url,
            settings.selection,
            server_id=settings.server_id,
            cascades=settings.cascades,
            **common,
        )
    from capture.postgres import PostgresSource

    return PostgresSource(
        name,
        settings.url,
        settings.selection,
        slot=settings.slot,
        publication=settings.publication,
        read_only=settings.read_only,
        **common,
    )


def _polled(name: str, settings: SourceConfig) -> Source:
    from capture.polling import Polling, PollingSource
    from capture.polling_reader import Reader

    reader: Reader
    if settings.family == "mysql":
        from capture.polling_mysql import MySQLReader

        reader = MySQLReader(name, settings.url, settings.selection)
    else:
        from capture.polling_postgres import PostgresReader

        reader = PostgresReader(name, settings.url, settings.selection)
    polling = Polling(
        version=settings.version,
        tombstone=settings.tombstone,
        every_s=settings.poll_seconds,
        window=settings.poll_window,
    )
    return PollingSource(name, reader, polling, batch_rows=settings.batch_rows)


def _log(source_name: str, settings: LogConfig) -> Log:
    if settings.kind == "kafka":
        from transport.kafka import KafkaLog

        return KafkaLog(
            settings.servers or "",
            source_name,
            partitions=settings.partitions,
            replication=settings.replication,
            retention_s=settings.retention_hours * 3600,
            max_record_bytes=settings.max_record_bytes,
            options=dict(settings.options),
        )
    from transport.sqlite import SqliteLog

    return SqliteLog(settings.path, source_name, retention_s=settings.retention_hours * 3600)


def _target(name: str, settings: TargetConfig) -> Target:
    if settings.family == "mysql":
        from apply.mysql import MySQLTarget

        return MySQLTarget(name, settings.url, settings.source, settings.placement)
    if settings.family == "sqlite":
        from apply.sqlite import SqliteTarget

        return SqliteTarget(name, settings.url, settings.source, settings.placement)
    from apply.postgres import PostgresTarget

    return PostgresTarget(name, settings.url, settings.source, settings.placement)
