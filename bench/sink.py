"""The peer of an apply: topics filled by Debezium, and its JDBC sink writing them to a target."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from time import monotonic, perf_counter, sleep

from bench import changes, debezium, held, orders, topics
from bench.connect import Connect, PeerFailed, until, worker
from bench.measure import Sample, counted
from tests.services.database import Database, fresh
from tests.services.server import Server

SCHEMAS = "schemas in messages, one task"
LEAN = "schemas in settings, two tasks"
POLL_S = 0.02
WITHIN_S = 300.0


class Sinks:
    """One topic for each phase and way, and the samples of writing them."""

    def __init__(self, connect: Connect, kind: str, servers: str, target: Database, rows: int):
        self._connect = connect
        self._kind = kind
        self._servers = servers
        self._target = target
        self._rows = rows
        self._topics: dict[tuple[str, str], str] = {}
        self._content = ("", "")
        self.samples: dict[str, dict[str, list[Sample]]] = {
            phase: {SCHEMAS: [], LEAN: []} for phase in changes.PHASES
        }

    @classmethod
    @contextmanager
    def filled(
        cls, kind: str, servers: str, folder: Path, running: Server, rows: int
    ) -> Iterator[Sinks]:
        """Write every phase to a source on that server, captured both ways at once."""
        with ExitStack() as stack:
            connect = stack.enter_context(worker(servers, folder, [kind, "jdbc"]))
            target = stack.enter_context(fresh(running))
            target.execute(orders.ddl(kind))
            sinks = cls(connect, kind, servers, target, rows)
            with fresh(running) as source:
                source.execute(orders.ddl(kind))
                for phase in changes.PHASES:
                    sinks._fill(phase, source, folder)
            yield sinks

    def _fill(self, phase: str, source: Database, folder: Path) -> None:
        names = {way: f"f{secrets.token_hex(4)}" for way in (SCHEMAS, LEAN)}
        for number, (way, name) in enumerate(names.items()):
            topic = self._topics[phase, way] = debezium.topic(name, source)
            topics.create(self._servers, topic)
            inside = way == SCHEMAS
            settings = debezium.source(self._kind, name, source, folder, number, schemas=inside)
            self._connect.create(name, settings)
        ends = topics.Ends(self._servers, *(debezium.topic(n, source) for n in names.values()))
        changes.write(source, [[("u", orders.BEAT, 0)]])

        def has_begun() -> bool:
            source.execute(f"update orders set quantity = quantity + 1 where id = {orders.BEAT}")
            return {topic for (topic, _), end in ends.places().items() if end} >= made

        made = {self._topics[phase, way] for way in names}
        until(has_begun, "both sources to begin")
        began = ends.settled()
        changes.write(source, changes.transactions(phase, self._rows))
        # Debezium writes a tombstone after each delete.
        written = chain.from_iterable(changes.transactions(phase, self._rows))
        messages = len(names) * sum(2 if op == "d" else 1 for op, _, _ in written)
        until(lambda: ends.total() >= began + messages, f"topics of {phase}", within_s=WITHIN_S)
        ends.settled()
        for name in names.values():
            self._connect.stop(name)
            self._connect.delete(name)
        if not any(self._content):
            self._content = topics.schemas(self._servers, self._topics[phase, SCHEMAS])

    def measure(self, *, keep: bool = True) -> None:
        """Write every phase both ways, each way into an empty table; samples unless not `keep`."""
        for way in (SCHEMAS, LEAN):
            self._target.execute("truncate table orders")
            for phase in changes.PHASES:
                sample = self._measure(phase, way)
                if keep:
                    self.samples[phase][way].append(sample)

    def _measure(self, phase: str, way: str) -> Sample:
        name = f"s{secrets.token_hex(4)}"
        lean = way == LEAN
        settings = debezium.sink(
            self._kind,
            self._target,
            self._topics[phase, way],
            tasks=2 if lean else 1,
            content=self._content if lean else None,
        )
        with closing(held.Look(self._target, phase, self._rows)) as look:
            self._connect.create(name, settings)
            try:
                sample = self._watch(name, look)
            finally:
                self._connect.delete(name)
        held.compare(self._target, changes.after(phase, self._rows))
        return sample

    def _watch(self, name: str, look: held.Look) -> Sample:
        self._until(look.has_begun, name)
        begun, before = perf_counter(), self._connect.usage
        seen = look.count()
        self._until(look.is_done, name)
        wall_s, after = perf_counter() - begun, self._connect.usage
        return Sample(
            rows=counted(self._rows, seen, name),
            wall_s=wall_s,
            cpu_s=after.cpu_s - before.cpu_s,
            peak_mb=after.peak_mb,
        )

    def _until(self, condition: Callable[[], bool], name: str) -> None:
        deadline = monotonic() + WITHIN_S
        while not condition():
            self._connect.check(name)
            if monotonic() > deadline:
                raise PeerFailed(f"waited {WITHIN_S:.0f} s in vain for {name}")
            sleep(POLL_S)
