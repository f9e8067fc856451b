"""Capture: a backlog in the source's own log, copied to Kafka by `headwater capture`.

Beside it: Debezium, tuned and warm, to the same broker. Both sides start a process or connector for
each repetition before the backlog is written, let a first row through, and stop: there they stand
when it has been written. What a start costs is left out of both in the same way: a rate is counted
from the broker's stamp on the first rows of the backlog to its stamp on the last.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

from bench import debezium, orders, topics
from bench.connect import Connect, until, worker
from bench.measure import REPETITIONS, Figure, Sample, Usage, by_turns, compared
from bench.servers import broker, database
from tests.faults.pipeline import Pipeline, pipeline
from tests.services.database import Database
from tests.services.server import Server

ROWS = 300_000
POLL_S = 0.02
WITHIN_S = 120.0


def mysql(rows: int) -> Iterator[Figure]:
    return _capture("mysql", rows)


def mariadb(rows: int) -> Iterator[Figure]:
    return _capture("mariadb", rows)


def postgres(rows: int) -> Iterator[Figure]:
    return _capture("postgres", rows)


def _capture(kind: str, rows: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        made = stack.enter_context(database(kind))
        made.execute(orders.POSTGRES if kind == "postgres" else orders.MYSQL)
        connect = stack.enter_context(worker(servers, folder, [kind]))
        prefix = f"b{secrets.token_hex(4)}"
        ours = [
            stack.enter_context(_ours(folder, f"{prefix}_{number}", made, servers))
            for number in range(REPETITIONS)
        ]
        # One more: the first run, on a virtual machine that is still cold, does not count.
        theirs = [f"{prefix}_peer{number}" for number in range(REPETITIONS + 1)]
        _start_at_here(kind, servers, made, connect, folder, ours, theirs)
        orders.fill(made, 1, rows)

        def capture(number: int) -> list[Sample]:
            flow = ours[number]
            topic = debezium.topic(flow.name, made)
            worker = flow.capture()
            process = psutil.Process(worker.process.pid)
            with _stopped_after(worker.stop):
                return [
                    _watch(
                        servers, topic, rows, topics.headwater_row,
                        lambda: Usage.of(process), worker.alive,
                    )
                ]  # fmt: skip

        def peer(number: int) -> list[Sample]:
            name = theirs[number + 1]
            connect.resume(name)
            with _stopped_after(lambda: connect.stop(name)):
                return [
                    _watch(
                        servers, debezium.topic(name, made), rows, topics.debezium_row,
                        lambda: connect.usage, lambda: connect.check(name),
                    )
                ]  # fmt: skip

        peer(-1)
        captured, connected = by_turns(capture, peer)
        for name in theirs:
            connect.delete(name)
    yield compared(f"capture-{kind}", "stream", captured, debezium.called(kind), connected)


@contextmanager
def _ours(folder: Path, name: str, source: Database, servers: str) -> Iterator[Pipeline]:
    home = folder / name
    home.mkdir()
    log = Server(kind="kafka", url=f"kafka://{servers}")
    with pipeline(home, name, source, {}, log) as flow:
        flow.log["partitions"] = topics.PARTITIONS
        flow.configure(first_copy="none")
        yield flow


def _start_at_here(
    kind: str,
    servers: str,
    source: Database,
    connect: Connect,
    folder: Path,
    ours: list[Pipeline],
    theirs: list[str],
) -> None:
    """Let a beat through every side, and stop: there each will go on."""
    names = [*(flow.name for flow in ours), *theirs]
    topics.create(servers, *(debezium.topic(name, source) for name in theirs))
    for number, name in enumerate(theirs):
        connect.create(name, debezium.source(kind, name, source, folder, number))
    workers = []
    for flow in ours:
        flow.run("prepare", flow.name)
        workers.append(flow.capture())
    orders.fill(source, orders.BEAT, 1)
    arrived = [topics.Ends(servers, debezium.topic(name, source)) for name in names]

    def has_begun() -> bool:
        # A capture that has just started stands at the source's end, wherever that is by then.
        source.execute(f"update orders set quantity = quantity + 1 where id = {orders.BEAT}")
        for one in workers:
            one.alive()
        return all(ends.total() for ends in arrived)

    until(has_begun, "a row from every side")
    for one in workers:
        one.stop()
    for name in theirs:
        connect.stop(name)


@contextmanager
def _stopped_after(stop: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    finally:
        stop()


def _watch(
    servers: str,
    topic: str,
    rows: int,
    row: Callable[[dict[str, Any]], topics.Row],
    usage: Callable[[], Usage],
    check: Callable[[], object],
) -> Sample:
    """Wait until the backlog is in the topic, then compare every row of it."""
    ends = topics.Ends(servers, topic)
    begins = ends.places()
    base = sum(begins.values())
    deadline = monotonic() + WITHIN_S
    first: tuple[int, Usage] | None = None
    while (grown := ends.total() - base) < rows:
        if grown and first is None:
            first = grown, usage()
        if monotonic() > deadline:
            raise topics.Different(f"{topic} has {grown:,} of {rows:,} rows")
        check()
        sleep(POLL_S)
    last = usage()
    arrival = topics.compare(servers, begins, range(1, rows + 1), row)
    seen, before = first or (0, Usage(0, 0))
    return Sample(
        rows=arrival.rows,
        wall_s=arrival.wall_s,
        cpu_s=(last.cpu_s - before.cpu_s) / (rows - seen) * arrival.rows,
        peak_mb=last.peak_mb,
    )
