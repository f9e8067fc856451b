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
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import monotonic, sleep

import psutil

from bench import debezium, shapes, topics
from bench.connect import Connect, until, worker
from bench.measure import REPETITIONS, Figure, Sample, Usage, by_turns, compared, costs
from bench.servers import broker, database
from bench.shapes import Shape
from tests.faults.pipeline import Pipeline, pipeline
from tests.services.database import Database
from tests.services.server import Server

ROWS = 300_000
WIDE_ROWS = 60_000
POLL_S = 0.02
WITHIN_S = 300.0


def mysql(rows: int) -> Iterator[Figure]:
    return _capture("capture-mysql", "mysql", shapes.ORDERS, rows)


def mariadb(rows: int) -> Iterator[Figure]:
    return _capture("capture-mariadb", "mariadb", shapes.ORDERS, rows)


def postgres(rows: int) -> Iterator[Figure]:
    return _capture("capture-postgres", "postgres", shapes.ORDERS, rows)


def wide(rows: int) -> Iterator[Figure]:
    return _capture("capture-wide", "postgres", shapes.WIDE, rows)


def narrow(rows: int) -> Iterator[Figure]:
    return _capture("capture-narrow", "postgres", shapes.NARROW, rows)


def tables(rows: int) -> Iterator[Figure]:
    return _capture("capture-tables", "postgres", shapes.HUNDRED, rows)


def _capture(bench: str, kind: str, shape: Shape, rows: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        made = stack.enter_context(database(kind))
        shape.make(kind, made)
        connect = stack.enter_context(worker(servers, folder, [kind]))
        prefix = f"b{secrets.token_hex(4)}"
        ours = [
            stack.enter_context(headwater(folder, f"{prefix}_{number}", made, servers, shape))
            for number in range(REPETITIONS)
        ]
        # One more: the first run, on a virtual machine that is still cold, does not count.
        theirs = [f"{prefix}_peer{number}" for number in range(REPETITIONS + 1)]
        _start_at_here(kind, servers, made, shape, connect, folder, ours, theirs)
        shape.fill(made, 1, rows)

        def capture(number: int) -> list[Sample]:
            flow = ours[number]
            into = _topics(flow.name, made, shape)
            one = flow.capture()
            process = psutil.Process(one.process.pid)
            with stopped_after(one.stop):
                return [
                    watch(
                        servers, into, rows, shape, shape.ours,
                        lambda: Usage.of(process), one.alive,
                    )
                ]  # fmt: skip

        def peer(number: int) -> list[Sample]:
            name = theirs[number + 1]
            into = _topics(name, made, shape)
            connect.resume(name)
            with stopped_after(lambda: connect.stop(name)):
                return [
                    watch(
                        servers, into, rows, shape, shape.theirs,
                        lambda: connect.usage, lambda: connect.check(name),
                    )
                ]  # fmt: skip

        peer(-1)
        captured, connected = by_turns(capture, peer)
        for name in theirs:
            connect.delete(name)
    yield compared(bench, shape.what, captured, debezium.called(kind), connected)
    yield from costs(bench, shape.what, captured, debezium.called(kind), connected)


def _topics(name: str, source: Database, shape: Shape) -> list[str]:
    return [debezium.topic(name, source, table) for table in shape.tables]


@contextmanager
def headwater(
    folder: Path,
    name: str,
    source: Database,
    servers: str,
    shape: Shape,
    *,
    first_copy: str = "none",
) -> Iterator[Pipeline]:
    """A pipeline to that broker without targets, configured."""
    home = folder / name
    home.mkdir()
    log = Server(kind="kafka", url=f"kafka://{servers}")
    with pipeline(home, name, source, {}, log) as flow:
        flow.log["partitions"] = shape.partitions
        flow.configure(first_copy=first_copy)
        yield flow


def _start_at_here(
    kind: str,
    servers: str,
    source: Database,
    shape: Shape,
    connect: Connect,
    folder: Path,
    ours: list[Pipeline],
    theirs: list[str],
) -> None:
    """Let a beat through every side, and stop: there each will go on."""
    names = [*(flow.name for flow in ours), *theirs]
    made = [topic for name in theirs for topic in _topics(name, source, shape)]
    topics.create(servers, *made, partitions=shape.partitions)
    for number, name in enumerate(theirs):
        connect.create(name, debezium.source(kind, name, source, folder, number))
    workers = []
    for flow in ours:
        flow.run("prepare", flow.name)
        workers.append(flow.capture())
    beats = shape.beats(source)
    wanted = {topic for name in names for topic in _topics(name, source, shape)}
    ends = topics.Ends(servers, *wanted)

    def has_begun() -> bool:
        # A capture that has just started stands at the source's end, wherever that is by then.
        next(beats)
        for one in workers:
            one.alive()
        return {topic for (topic, _), end in ends.places().items() if end} == wanted

    with closing(beats):
        until(has_begun, "a row from every side")
    for one in workers:
        one.stop()
    for name in theirs:
        connect.stop(name)


@contextmanager
def stopped_after(stop: Callable[[], object]) -> Iterator[None]:
    """Stop a side at the end, however that comes."""
    try:
        yield
    finally:
        stop()


def watch(
    servers: str,
    into: list[str],
    rows: int,
    shape: Shape,
    row: Callable[[shapes.Image], topics.Row],
    usage: Callable[[], Usage],
    check: Callable[[], object],
    *,
    is_new: bool = False,
) -> Sample:
    """Wait until rows 1 to `rows` are in the topics, then compare every one of them.

    is_new: the topics hold nothing else; a side that has begun already may have written some.
    """
    ends = topics.Ends(servers, *into)
    begins = {(topic, at): 0 for topic in into for at in range(shape.partitions)}
    if not is_new:
        begins = ends.places()
    base = sum(begins.values())
    deadline = monotonic() + WITHIN_S
    first: tuple[int, Usage] | None = None
    while (grown := ends.total() - base) < rows:
        if grown and first is None:
            first = grown, usage()
        if monotonic() > deadline:
            raise topics.Different(f"{into[0]}: {grown:,} of {rows:,} rows are there")
        check()
        sleep(POLL_S)
    last = usage()
    arrival = topics.compare(servers, begins, range(1, rows + 1), row, shape.row)
    seen, before = first or (0, Usage(0, 0))
    return Sample(
        rows=arrival.rows,
        wall_s=arrival.wall_s,
        cpu_s=(last.cpu_s - before.cpu_s) / (rows - seen) * arrival.rows,
        peak_mb=last.peak_mb,
    )
