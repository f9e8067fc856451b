"""Two captures, or two applies, at once: one is fenced, and nothing that it wrote is applied."""

import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from ops.prepare import prepare_all
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.faults.test_crashes import settle
from tests.faults.workload import Workload, create, watch
from tests.services.database import Database
from tests.services.server import Server

FENCED = 75


@pytest.mark.parametrize("log", ["sqlite", "kafka"])
@pytest.mark.parametrize("source", ["postgres", "mysql"])
@pytest.mark.parametrize("rivals", ["captures", "applies"])
def test_of_two_at_once_one_ends_fenced_and_nothing_of_it_counts(
    rivals: str,
    source: str,
    log: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    new_database: Callable[[Server], Database],
    kafka_prefix: str,
    tmp_path: Path,
) -> None:
    """The first is frozen in mid-work, a second takes over, the first wakes up and writes on."""
    origin, target = new_database(request.getfixturevalue(source)), new_database(postgres)
    server = request.getfixturevalue("kafka") if log == "kafka" else log
    create(origin)
    workload = Workload(origin, Random(75))
    workload.fill(40)
    with pipeline(tmp_path, kafka_prefix, origin, {"mirror": target}, server) as flow:
        prepare_all(flow.config, [kafka_prefix], ["mirror"])
        watch(target)

        def make() -> Worker:
            return flow.capture() if rivals == "captures" else flow.apply("mirror")

        other = flow.apply("mirror") if rivals == "captures" else flow.capture()
        first = make()
        until(lambda: not flow.is_copying, "the end of the first copy")
        arrive(workload, target, [first, other])
        first.process.send_signal(signal.SIGSTOP)
        second = make()
        for _ in range(30):
            workload.step()
        until(lambda: has_taken_over(flow, second), "the second at work")
        first.process.send_signal(signal.SIGCONT)

        def is_fenced() -> bool:
            workload.step()
            return first.code is not None or second.code is not None

        until(is_fenced, "the end of one of the two")
        ended, left = (first, second) if first.code is not None else (second, first)
        assert ended.code == FENCED, ended.said
        settle(flow, workload, target, [left, other])
    workload.close()


def arrive(workload: Workload, target: Database, workers: list[Worker]) -> None:
    """Write a last row and wait until it is in the target."""
    key = workload.beat()

    def arrived() -> bool:
        for worker in workers:
            worker.alive()
        return bool(target.query("select 1 from ledger where sync_id = %s", key))

    until(arrived, "a row in the target")


def has_taken_over(flow: Pipeline, second: Worker) -> bool:
    """Whether the second process works, waits for what the frozen one holds, or has ended.

    A frozen capture holds PostgreSQL's slot, and the second one has claimed the log before that.
    """
    said = second.said
    return second.code is not None or any(
        f'"{event}"' in said for event in ("captured", "applied", "will_retry")
    )
