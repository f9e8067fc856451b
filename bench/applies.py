"""Apply: what a topic holds, written to a target by `headwater apply`.

Beside it: Debezium's JDBC sink, warm, with the same changes in a topic of Debezium's own, in both
ways it is run (the schema in each message and one task; the schema in the settings and two tasks),
and the limit, a bare staged statement. What a start costs is left out: ours stands idle at the
topic's end, rests while the changes are written to the log, and is timed from its waking; the sink
is timed from the first of its rows that can be seen.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

import psutil

from bench import changes, held, orders, staged
from bench.connect import PeerFailed, until
from bench.debezium import called
from bench.envelopes import piece
from bench.measure import REPETITIONS, Figure, Sample, Usage, compared, isolated
from bench.servers import broker, server
from bench.sink import Sinks
from schemas.change import Stamp
from tests.faults.pipeline import Worker, pipeline, schema_of
from tests.services.database import Database, fresh
from tests.services.server import Server
from transport.kafka import KafkaLog

ROWS = 200_000
PER_BATCH = 10_000
POLL_S = 0.02
WITHIN_S = 300.0


def mysql(rows: int) -> Iterator[Figure]:
    return _apply("mysql", rows)


def postgres(rows: int) -> Iterator[Figure]:
    return _apply("postgres", rows)


def _apply(kind: str, rows: int) -> Iterator[Figure]:
    ours: dict[str, list[Sample]] = {phase: [] for phase in changes.PHASES}
    limit: dict[str, list[Sample]] = {phase: [] for phase in changes.PHASES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        running = stack.enter_context(server(kind))
        sinks = stack.enter_context(Sinks.filled(kind, servers, folder, running, rows))
        sinks.measure(keep=False)
        for number in range(REPETITIONS):
            with _standing(kind, folder / str(number), running, servers) as standing:
                for phase in changes.PHASES:
                    ours[phase].append(standing.phase(phase, rows))
            sinks.measure()
            with fresh(running) as made:
                made.execute(orders.ddl(kind))
                for phase in changes.PHASES:
                    limit[phase].append(isolated(staged.phase, kind, made.url, phase, rows))
                held.compare(made, changes.after(changes.PHASES[-1], rows))
    for phase in changes.PHASES:
        for way, samples in sinks.samples[phase].items():
            peer = f"{called('jdbc')} sink, {way}"
            yield compared(f"apply-{kind}", phase, ours[phase], peer, samples)
        yield compared(f"apply-{kind}", phase, ours[phase], staged.NAMES[kind], limit[phase])


@dataclass(frozen=True, slots=True)
class _Standing:
    """`headwater apply` at work on a table of its own, and the log that it reads."""

    kind: str
    target: Database
    worker: Worker
    log: KafkaLog
    stamp: Stamp

    def phase(self, phase: str, rows: int) -> Sample:
        """Write the phase to the log while the apply rests; from its waking to the last row."""
        process = psutil.Process(self.worker.process.pid)
        with closing(held.Look(self.target, phase, rows)) as look:
            process.suspend()
            try:
                for batch in changes.batches(phase, rows, PER_BATCH):
                    self.log.append(piece(self.kind, self.stamp, batch))
                self.log.flush()
            finally:
                process.resume()
            begun, before = perf_counter(), Usage.of(process)
            while not look.is_done():
                self.worker.alive()
                if perf_counter() - begun > WITHIN_S:
                    raise PeerFailed(f"{phase}: waited {WITHIN_S:.0f} s in vain for the last row")
                sleep(POLL_S)
            wall_s, used = perf_counter() - begun, Usage.of(process)
        held.compare(self.target, changes.after(phase, rows))
        return Sample(
            rows=rows, wall_s=wall_s, cpu_s=used.cpu_s - before.cpu_s, peak_mb=used.peak_mb
        )


@contextmanager
def _standing(kind: str, folder: Path, running: Server, servers: str) -> Iterator[_Standing]:
    """An apply that has caught up with the beat in its log."""
    folder.mkdir()
    name = f"a{secrets.token_hex(4)}"
    broker_log = Server(kind="kafka", url=f"kafka://{servers}")
    with (
        fresh(running) as empty,
        fresh(running) as target,
        # The rows come from no database: the configuration wants one all the same.
        pipeline(folder, name, empty, {"mirror": target}, broker_log) as flow,
        closing(KafkaLog(servers, name)) as log,
    ):
        target.execute(orders.ddl(kind))
        flow.target_settings["schemas"] = {orders.SCHEMA: schema_of(target)}
        flow.configure()
        stamp = log.open().stamp
        log.append(piece(kind, stamp, [("c", orders.BEAT, 0)]))
        log.flush()
        flow.run("prepare", "mirror")
        worker = flow.apply("mirror")

        def has_arrived() -> bool:
            worker.alive()
            return target.query("select count(*) from orders") == [(1,)]

        until(has_arrived, "the beat")
        yield _Standing(kind, target, worker, log, stamp)
        worker.stop()
