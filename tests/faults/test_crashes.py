"""The crash matrix: capture or apply dies at a fault point, again and again, and nothing is lost.

One cell is one fault point with a source and a durable log; its process dies at hits 1 to 5 of the
point, in random order and with other batch sizes each time, while the workload goes on. The end is
*converged* (verify: 0 differences) and *monotonic* (the target's rows never stepped back).
`make faults` runs all cells, `make test` a sample of them, with the seed printed.
"""

import os
import secrets
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import pytest

from ops.compose import opened_log
from ops.prepare import prepare_all
from schemas.faults import POINTS
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.faults.workload import (
    Workload,
    assert_monotonic,
    assert_written_once,
    create,
    watch,
)
from tests.services.database import Database
from tests.services.server import Server

SOURCES = ("postgres", "mysql", "mariadb")
LOGS = ("sqlite", "kafka")
CELLS = list(product(POINTS, LOGS, SOURCES))
SAMPLED = 5
HITS = [1, 2, 3, 4, 5]
SEED = int(os.environ.get("HEADWATER_SEED") or secrets.randbits(32))


def _cells() -> list[object]:
    """Every cell; those outside the sample are `full`."""
    sample = set(Random(SEED).sample(CELLS, SAMPLED))
    return [
        pytest.param(*cell, id="-".join(cell), marks=() if cell in sample else pytest.mark.full)
        for cell in CELLS
    ]


@pytest.mark.parametrize(("point", "log", "source"), _cells())
def test_a_crash_at_any_point_loses_repeats_and_reorders_nothing(
    point: str,
    log: str,
    source: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    new_database: Callable[[Server], Database],
    kafka_prefix: str,
    tmp_path: Path,
) -> None:
    """H138, T51: read, append, commit record, acknowledge, target write and commit."""
    print(f"HEADWATER_SEED={SEED}")
    random = Random(f"{SEED} {point} {log} {source}")
    origin = new_database(request.getfixturevalue(source))
    target = new_database(postgres)
    server = request.getfixturevalue("kafka") if log == "kafka" else log
    create(origin)
    workload = Workload(origin, random)
    workload.fill(40)
    with pipeline(tmp_path, kafka_prefix, origin, {"mirror": target}, server) as flow:
        prepare_all(flow.config, [kafka_prefix], ["mirror"])
        watch(target)
        workers = crash(flow, workload, point)
        settle(flow, workload, target, workers)
    workload.close()


def crash(flow: Pipeline, workload: Workload, point: str) -> list[Worker]:
    """Let the process that passes `point` die there five times, and leave both running."""
    captures = "target" not in point
    random = workload.random
    resize(flow, random)
    other = flow.apply("mirror") if captures else flow.capture()
    for hit in random.sample(HITS, len(HITS)):
        workload.copying = flow.is_copying
        fault = f"{point}:{hit}"
        victim = flow.capture(fault=fault) if captures else flow.apply("mirror", fault=fault)

        def died(victim: Worker = victim) -> bool:
            workload.step()
            other.alive()
            return victim.code is not None

        until(died, f"a death at {fault}")
        assert victim.code == -9, f"{fault}: ended with {victim.code}:\n{victim.said}"
        resize(flow, random)
    return [other, flow.capture() if captures else flow.apply("mirror")]


def resize(flow: Pipeline, random: Random) -> None:
    """Other sizes for whoever starts next: constant ones hide progress that is not atomic."""
    flow.configure(
        batch_rows=random.choice([1, 5, 40, 1000]), chunk_rows=random.choice([3, 7, 100])
    )


def settle(flow: Pipeline, workload: Workload, target: Database, workers: list[Worker]) -> None:
    """Let everything arrive, compare, and end the processes well."""
    until(lambda: not flow.is_copying, "the end of the first copy")
    workload.copying = False
    for _ in range(20):
        workload.step()
    key = workload.beat()

    def arrived() -> bool:
        for worker in workers:
            worker.alive()
        return bool(target.query("select 1 from ledger where sync_id = %s", key))

    until(arrived, "the last row in the target")
    report = flow.verify("mirror", values=True)
    assert report.verdict == "valid", report
    assert_monotonic(target, workload.history)
    with opened_log(flow.config, flow.name) as log:
        assert_written_once(target, log, workload.ledger_rows)
    assert [worker.stop() for worker in workers] == [0] * len(workers)
