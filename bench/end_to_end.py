"""MySQL -> embedded log -> PostgreSQL by the real commands, each a process of its own.

Two figures: how fast a backlog drains, and how long after its commit a single row can be read in
the target. Nothing stands beside them: no other tool was found that does the same work here.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import quantiles
from time import perf_counter, sleep

import psutil

from bench import orders
from bench.measure import REPETITIONS, Figure, Sample, compared, peak_mb
from bench.servers import database
from tests.faults.pipeline import Worker, pipeline, until
from tests.services.database import Database

ROWS = 100_000
RATE_PER_S = 200
SECONDS = 10
POLL_S = 0.0005
TICKS = (
    "create table ticks (id bigint primary key auto_increment,"
    " sync_id char(36) not null unique, n int not null)"
)


def end_to_end(rows: int) -> Iterator[Figure]:
    with database("mysql") as source, database("postgres") as target:
        source.execute(orders.MYSQL)
        source.execute(TICKS)
        with _running(source, target) as (capture, apply):
            delays = [_latency(source, target, number) for number in range(REPETITIONS)]
            drained = [
                _drain(source, target, capture, apply, number * rows, rows)
                for number in range(REPETITIONS)
            ]
    yield compared("end-to-end", "drain", drained, None, [])
    for name, at in (("p50", 49), ("p99", 98)):
        values = [quantiles(found, n=100)[at] for found in delays]
        yield Figure(bench="end-to-end", what=name, unit="ms", values=values)


@contextmanager
def _running(source: Database, target: Database) -> Iterator[tuple[Worker, Worker]]:
    """`headwater capture` and `headwater apply` at work, both tables in the target."""
    name = f"bench_{secrets.token_hex(4)}"
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder,
        pipeline(Path(folder), name, source, {"mirror": target}, "sqlite") as flow,
    ):
        flow.prepare()
        capture, apply = flow.capture(), flow.apply("mirror")
        source.execute("insert into ticks (sync_id, n) values (uuid(), -1)")

        def has_arrived() -> bool:
            capture.alive()
            apply.alive()
            made = "select count(*) from information_schema.tables where table_name in %s"
            there = target.query(made, ("orders", "ticks")) == [(2,)]
            return there and target.query("select count(*) from ticks") == [(1,)]

        until(has_arrived, "the first row")
        yield capture, apply
        capture.stop()
        apply.stop()


def _drain(
    source: Database, target: Database, capture: Worker, apply: Worker, first: int, rows: int
) -> Sample:
    """Let the capture rest while rows are written; the time from its waking to the last row."""
    processes = [psutil.Process(worker.process.pid) for worker in (capture, apply)]
    processes[0].suspend()
    try:
        orders.fill(source, first, rows)
    finally:
        processes[0].resume()
    begun, cpu = perf_counter(), _cpu(processes)
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        count = 0
        while count < first + rows:
            sleep(0.02)
            capture.alive()
            apply.alive()
            cursor.execute("select count(*) from orders")
            (count,) = cursor.fetchone()
    return Sample(
        rows=rows,
        wall_s=perf_counter() - begun,
        cpu_s=_cpu(processes) - cpu,
        peak_mb=max(peak_mb(process.pid) for process in processes),
    )


def _cpu(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


def _latency(source: Database, target: Database, number: int) -> list[float]:
    """Milliseconds from each commit's return to the row's first sight in the target."""
    rows = RATE_PER_S * SECONDS
    first = 1 + number * rows
    with (
        ThreadPoolExecutor(1) as pool,
        closing(target.connect()) as connection,
        connection.cursor() as cursor,
    ):
        writing = pool.submit(_write_ticks, source, rows)
        seen: list[float] = []
        while len(seen) < rows:
            sleep(POLL_S)
            cursor.execute("select count(*) from ticks")
            count = cursor.fetchone()[0] - first
            seen += [perf_counter()] * (count - len(seen))
        committed = writing.result()
    # Rows become visible in the order of their commits.
    return [(s - c) * 1000 for s, c in zip(seen, committed, strict=True)]


def _write_ticks(source: Database, rows: int) -> list[float]:
    """One commit for each row at an even pace; when each returned."""
    committed = []
    with closing(source.connect()) as connection, connection.cursor() as cursor:
        begun = perf_counter()
        for number in range(rows):
            sleep(max(0.0, begun + number / RATE_PER_S - perf_counter()))
            cursor.execute("insert into ticks (sync_id, n) values (uuid(), %s)", (number,))
            committed.append(perf_counter())
    return committed
