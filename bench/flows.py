"""Ways from one PostgreSQL database to another, each running until its `with` block ends.

Ours through either log, Debezium with its JDBC sink, and the limit: the server's own logical
replication. Each can be stopped at the place it has reached, and goes on from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import psutil

from bench import debezium, topics
from bench.connect import Connect
from bench.measure import Usage
from tests.faults.pipeline import Pipeline, Worker, pipeline
from tests.services import postgres
from tests.services.database import Database
from tests.services.server import Server


class Flow(Protocol):
    """Changes of every table of `source` arrive in `target` while it runs."""

    name: str
    target: Database

    def stop(self) -> None:
        """Read no more from the source; what was read still arrives."""
        ...

    def resume(self) -> None:
        """Go on where `stop` was."""
        ...

    def usage(self) -> Usage | None:
        """What its processes have used; None where it has none of its own."""
        ...

    def check(self) -> None:
        """Raise if it has failed."""
        ...


class Ours:
    """`headwater capture` and `headwater apply`, each a process."""

    def __init__(self, name: str, flow: Pipeline, target: Database) -> None:
        self.name = name
        self.target = target
        self._flow = flow
        self._apply = flow.apply("mirror")
        self._capture = flow.capture()

    def stop(self) -> None:
        self._capture.stop()

    def resume(self) -> None:
        self._capture = self._flow.capture()

    def end(self) -> None:
        """Stop both."""
        for worker in self._workers:
            worker.stop()

    def usage(self) -> Usage:
        used = [Usage.of(psutil.Process(worker.process.pid)) for worker in self._workers]
        return Usage(sum(u.cpu_s for u in used), sum(u.peak_mb for u in used))

    def check(self) -> None:
        for worker in self._workers:
            worker.alive()

    @property
    def _workers(self) -> tuple[Worker, Worker]:
        return self._capture, self._apply


@contextmanager
def ours(
    kind: str, servers: str, folder: Path, source: Database, target: Database
) -> Iterator[Ours]:
    """Through the embedded log ("sqlite") or through Kafka."""
    folder.mkdir()
    log = Server(kind="kafka", url=f"kafka://{servers}") if kind == "kafka" else "sqlite"
    with pipeline(folder, f"o{secrets.token_hex(4)}", source, {"mirror": target}, log) as flow:
        flow.configure(first_copy="none")
        flow.prepare()
        running = Ours("embedded log" if kind == "sqlite" else "Kafka", flow, target)
        yield running
        running.end()


class Chain:
    """Debezium's source and its JDBC sink, one task each, in one worker."""

    name = f"{debezium.called('postgres')} and JDBC sink, one task, lean"

    def __init__(self, connect: Connect, source: str, sink: str, target: Database) -> None:
        self.target = target
        self._connect = connect
        self._source = source
        self._sink = sink

    def stop(self) -> None:
        self._connect.stop(self._source)

    def resume(self) -> None:
        self._connect.resume(self._source)

    def usage(self) -> Usage:
        return self._connect.usage

    def check(self) -> None:
        self._connect.check(self._source)
        self._connect.check(self._sink)


@contextmanager
def chain(
    connect: Connect,
    servers: str,
    folder: Path,
    source: Database,
    target: Database,
    table: str,
    *,
    prompt: bool = False,
) -> Iterator[Chain]:
    """One table, its schema in the settings; prompt: the producer waits for no further rows."""
    content = _content(connect, servers, folder, source, table)
    name = f"c{secrets.token_hex(4)}"
    topic = debezium.topic(name, source, table)
    topics.create(servers, topic)
    settings = debezium.source("postgres", name, source, folder, 0)
    if prompt:
        settings["producer.override.linger.ms"] = "0"
    connect.create(name, settings)
    into = debezium.sink("postgres", target, topic, table=table, tasks=1, content=content)
    connect.create(f"{name}-sink", into)
    try:
        yield Chain(connect, name, f"{name}-sink", target)
    finally:
        connect.delete(f"{name}-sink")
        connect.delete(name)


def _content(
    connect: Connect, servers: str, folder: Path, source: Database, table: str
) -> tuple[str, str]:
    """The schemas of the table's keys and values, as Debezium itself writes them."""
    name = f"w{secrets.token_hex(4)}"
    topic = debezium.topic(name, source, table)
    topics.create(servers, topic)
    settings = debezium.source("postgres", name, source, folder, 1, schemas=True)
    connect.create(name, settings | {"snapshot.mode": "initial"})
    try:
        return topics.schemas(servers, topic)
    finally:
        connect.delete(name)


class Native:
    """A subscription in the target to a publication of the source, on the same server."""

    name = "native logical replication"

    def __init__(self, target: Database, subscription: str) -> None:
        self.target = target
        self._subscription = subscription

    def stop(self) -> None:
        self._alter("disable")

    def resume(self) -> None:
        self._alter("enable")

    def usage(self) -> None:
        return None

    def check(self) -> None:
        return None

    def _alter(self, what: str) -> None:
        self.target.execute(f"alter subscription {self._subscription} {what}")


@contextmanager
def native(source: Database, target: Database) -> Iterator[Native]:
    """The target's tables must be there. The slot is made by hand: a subscription that makes its
    own waits for ever where both databases are of one server.
    """
    name = f"n{secrets.token_hex(4)}"
    source.execute(f"create publication {name} for all tables")
    source.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", name)
    target.execute(
        f"create subscription {name} connection '{source.url}' publication {name}"
        f" with (create_slot = false, slot_name = '{name}', copy_data = false)"
    )
    try:
        yield Native(target, name)
    finally:
        for what in ("disable", "set (slot_name = none)"):
            target.execute(f"alter subscription {name} {what}")
        with closing(postgres.connect(target.url)) as connection:
            connection.cursor().execute(f"drop subscription {name}")
