"""Workloads that nobody here wrote, from first copy on, through Kafka into two databases at once.

Capture and both applies are killed and restarted three times on the way; at the end every row and
column of both targets equals the source, by `headwater verify` and by counts and sums of our own.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.workloads import Tool, tool_for
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.services.database import Database
from tests.services.server import Server

SECONDS = 30
KILLED_AFTER_S = (6, 14, 22)
DRAINED_WITHIN_S = 240.0
TARGETS = ("to_postgres", "to_mysql")


@pytest.mark.parametrize("source", ["postgres", "mysql", "mariadb"])
def test_a_foreign_workload_arrives_whole_through_three_crashes(
    source: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    mysql: Server,
    kafka: Server,
    kafka_prefix: str,
    new_database: Callable[[Server], Database],
    tmp_path: Path,
) -> None:
    """Real input of the main job: pgbench, and sysbench on MySQL and on MariaDB."""
    tool = tool_for(new_database(request.getfixturevalue(source)))
    tool.prepare()
    targets = dict(zip(TARGETS, map(new_database, (postgres, mysql)), strict=True))
    with pipeline(tmp_path, kafka_prefix, tool.database, targets, kafka) as flow:
        # The source's primary keys too: every column is compared.
        flow.target_settings["primary_keys"] = "copy"
        flow.configure()
        flow.prepare()
        workers = load(flow, tool)
        drain(flow, tool, workers)
        for name, target in targets.items():
            assert "0 differences" in flow.run("verify", name, "--once")
            assert summed(target, tool) == summed(tool.database, tool)
        assert [w.stop() for w in workers] == [0, 0, 0]


def start(flow: Pipeline) -> list[Worker]:
    """Capture, and one apply for each target."""
    return [flow.capture(), *(flow.apply(name) for name in TARGETS)]


def load(flow: Pipeline, tool: Tool) -> list[Worker]:
    """Run the tool to its end while everything of ours is killed three times."""
    workers, begun = start(flow), time.monotonic()
    with tool.start(SECONDS) as generator:
        try:
            for after_s in KILLED_AFTER_S:
                until_s(begun + after_s)
                for worker in workers:
                    worker.alive()
                    worker.kill()
                workers = start(flow)
            said = generator.communicate()[0].decode()
        finally:
            generator.kill()
    assert generator.returncode == 0, said
    return workers


def until_s(instant: float) -> None:
    """Let the load go on until an instant of the monotonic clock."""
    until(lambda: time.monotonic() > instant, "the next crash")


def drain(flow: Pipeline, tool: Tool, workers: list[Worker]) -> None:
    """Wait until a last row of the source is in both targets."""
    table = next(iter(tool.sums))
    column = "abalance" if tool.name == "pgbench" else "k"
    tool.database.execute(f"update {table} set {column} = 123456789 where {tool.any_row}")

    def arrived() -> bool:
        for worker in workers:
            worker.alive()
        found = f"select count(*) from {table} where {column} = 123456789"
        return all(db.query(found) == [(1,)] for db in flow.targets.values())

    until(arrived, "the last row in both targets", within_s=DRAINED_WITHIN_S)


def summed(database: Database, tool: Tool) -> dict[str, list[int]]:
    """Counts and sums of every table, asked with SQL alone."""
    return {
        table: [int(n) for n in database.query(f"select {sums} from {table}")[0]]
        for table, sums in tool.sums.items()
    }
