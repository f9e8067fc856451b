"""A backlog from one PostgreSQL database to another, by every way there is (bench/flows.py).

All ways stand at one place when the backlog is written, and go through it one after another. Each
is timed from the first of its rows that can be seen in its target, so no start is in a figure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from time import perf_counter, sleep

from bench import flows, held, orders
from bench.connect import PeerFailed, until, worker
from bench.flows import Flow
from bench.measure import REPETITIONS, Figure, Sample, Usage, compared, counted
from bench.servers import broker, server
from tests.services.database import Database, fresh

ROWS = 200_000
POLL_S = 0.02
WITHIN_S = 300.0


def end_to_end(rows: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        running = stack.enter_context(server("postgres"))
        connect = stack.enter_context(worker(servers, folder, ["postgres", "jdbc"]))
        source, *targets = (stack.enter_context(fresh(running)) for _ in range(5))
        for made in (source, *targets):
            made.execute(orders.POSTGRES)
        orders.fill(source, orders.BEAT, 1)
        ways: list[Flow] = [
            stack.enter_context(
                flows.chain(connect, servers, folder, source, targets[0], "orders")
            ),
            stack.enter_context(flows.native(source, targets[1])),
            stack.enter_context(
                flows.ours("sqlite", servers, folder / "sqlite", source, targets[2])
            ),
            stack.enter_context(flows.ours("kafka", servers, folder / "kafka", source, targets[3])),
        ]
        _beat(source, ways)
        samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
        # The first repetition, on a virtual machine that is still cold, does not count.
        for number in range(REPETITIONS + 1):
            for way in ways:
                way.stop()
            first = 1 + number * rows
            orders.fill(source, first, rows)
            for way in ways:
                sample = _drain(way, first, rows)
                samples[way.name] += [sample] if number else []
    chain, native, *own = ways
    for way in own:
        for peer in (native, chain):
            yield compared("end-to-end", way.name, samples[way.name], peer.name, samples[peer.name])


def _beat(source: Database, ways: list[Flow]) -> None:
    """Return when a change has come through every way."""
    numbers = count(orders.BEAT + 1)

    def has_come() -> bool:
        orders.fill(source, next(numbers), 1)
        for way in ways:
            way.check()
        return all(way.target.query("select count(*) from orders") != [(0,)] for way in ways)

    until(has_come, "a beat to come through every way")


def _drain(way: Flow, first: int, rows: int) -> Sample:
    with closing(held.Look(way.target, "insert", rows, first)) as look:
        way.resume()
        _until(look.has_begun, way)
        begun, before = perf_counter(), way.usage()
        seen = look.count()
        _until(look.is_done, way)
        wall_s, after = perf_counter() - begun, way.usage()
    held.compare(way.target, dict.fromkeys(range(1, first + rows), 0))
    used = after or Usage(0, 0)
    return Sample(
        rows=counted(rows, seen, way.name),
        wall_s=wall_s,
        cpu_s=used.cpu_s - (before or used).cpu_s,
        peak_mb=used.peak_mb,
    )


def _until(condition: Callable[[], bool], way: Flow) -> None:
    deadline = perf_counter() + WITHIN_S
    while not condition():
        way.check()
        if perf_counter() > deadline:
            raise PeerFailed(f"waited {WITHIN_S:.0f} s in vain for {way.name}")
        sleep(POLL_S)
