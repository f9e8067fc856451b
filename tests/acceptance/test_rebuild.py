"""`headwater rebuild` as its users run it, while somebody writes to the source and a capture runs.

What is rebuilt is compared with the source by `headwater verify`'s own function.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tomlkit

from ops.compose import opened_log
from tests.acceptance.test_import import CALM, writing
from tests.acceptance.test_operator_errors import OPERATOR, NewDatabase, a_name, assert_says
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.faults.workload import KINDS, TABLES, Workload, create
from tests.services.database import Database
from tests.services.server import Server

WAYS = {"ordered": (), "latest": ("--latest",)}


@contextmanager
def at_work(
    source: Database, target: Database, log: object, folder: Path, *, full_identity: bool = False
) -> Iterator[tuple[Pipeline, Workload, Worker]]:
    """A pipeline whose first copy is in the log, with a capture at work and no apply yet.

    full_identity: PostgreSQL logs whole rows.
    """
    create(source)
    for table_ in TABLES if full_identity else ():
        source.execute(f"alter table {table_} replica identity full")
    workload = Workload(source, Random(os.environ["HEADWATER_SEED"]))
    workload.fill(60)
    with closing(workload), pipeline(folder, a_name(), source, {"branch": target}, log) as flow:
        flow.configure(batch_rows=50, chunk_rows=20)
        flow.prepare()
        workload.copying = True
        with writing(workload, CALM):
            capture = flow.capture()
            until(lambda: workload.ledger_rows > 10, "some writing")
        until(lambda: not flow.is_copying, "the first copy")
        workload.copying = False
        yield flow, workload, capture


def empty(flow: Pipeline) -> None:
    """Drop the target's tables, and what Headwater keeps there."""
    flow.run("drop", "branch", "--yes")
    for table in ("pets", "people", "ledger"):
        flow.targets["branch"].execute(f"drop table {table}")


def filled(target: Database) -> bool:
    """Whether an apply has begun."""
    return bool(target.query("select count(*) from ledger")[0][0] > 20)


def rebuild(flow: Pipeline, *options: str) -> dict[str, Any]:
    """Run it; what it says."""
    said = flow.run("rebuild", "branch", "--json", *options)
    document: dict[str, Any] = json.loads(said.splitlines()[-1])
    return document


def settle(flow: Pipeline, workload: Workload, workers: list[Worker]) -> None:
    """Let everything arrive, compare, and end the processes well."""
    key, target = workload.beat(), flow.targets["branch"]

    def arrived() -> bool:
        for worker in workers:
            worker.alive()
        return bool(target.query(f"select 1 from ledger where sync_id = '{key}'"))

    until(arrived, "the last row in the target")
    report = flow.verify("branch", values=True)
    assert (report.verdict, report.differences) == ("valid", [])
    assert sum(table.source_rows for table in report.tables) > 60
    assert [worker.stop() for worker in workers] == [0] * len(workers)


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize(
    ("kinds", "log"),
    [
        (("postgres", "postgres"), "kafka"),
        (("mysql", "postgres"), "kafka"),
        (("postgres", "mysql"), "sqlite"),
        (("mariadb", "mariadb"), "sqlite"),
        (("mysql", "sqlite"), "sqlite"),
    ],
)
def test_a_dropped_target_is_rebuilt_and_the_apply_goes_on(
    kinds: tuple[str, str],
    log: str,
    way: str,
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
) -> None:
    """T85, T90: truncates, keys that were used again and identities that changed are in the log."""
    source, target = (new_database(request.getfixturevalue(kind)) for kind in kinds)
    where = request.getfixturevalue("kafka") if log == "kafka" else log
    with at_work(source, target, where, tmp_path) as (flow, workload, capture):
        applying = flow.apply("branch")
        with writing(workload):
            until(lambda: filled(target), "rows in the target")
            assert applying.stop() == 0
            empty(flow)
            said = rebuild(flow, *WAYS[way])
            applying = flow.apply("branch")
        assert (said["way"], len(said["tables"])) == (way, len(TABLES))
        assert said["written"] > 0
        settle(flow, workload, [capture, applying])


def everything(target: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables, local keys included."""
    return {t: sorted(target.query(f"select * from {t}"), key=repr) for t in TABLES}


@pytest.fixture
def flow_at_work(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[tuple[Pipeline, Workload, Worker]]:
    """PostgreSQL to an empty PostgreSQL, a first copy and some changes in the embedded log."""
    server = request.getfixturevalue("postgres")
    source, target = new_database(server), new_database(server)
    with at_work(source, target, "sqlite", tmp_path) as (flow, workload, capture):
        for _ in range(60):
            workload.step(only=CALM)
        logged(flow, workload.beat())
        yield flow, workload, capture


def logged(flow: Pipeline, key: str) -> None:
    """Wait until the row is in the log."""

    def is_there() -> bool:
        with opened_log(flow.config, flow.name) as log:
            return any(
                key.encode() in row
                for batch in log.read(None, follow=False)
                if batch is not None
                for block in batch.blocks()
                for rows in block
                for row in rows.keys
            )

    until(is_there, "the row in the log")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ((), "before-target-write:1"),
        ((), "before-target-commit:4"),
        ((), "after-target-commit:5"),
        (("--latest",), "before-target-commit:1"),
        (("--latest",), "after-target-commit:1"),
        (("--on-top",), "before-target-commit:1"),
        (("--on-top",), "after-target-commit:1"),
    ],
)
def test_a_rebuild_that_was_killed_is_run_again(
    options: tuple[str, ...], fault: str, flow_at_work: tuple[Pipeline, Workload, Worker]
) -> None:
    """Half of it is never taken for whole: an apply says so, and does not go on."""
    flow, workload, capture = flow_at_work
    worker = flow.start("rebuild", "branch", *options, fault=fault)
    assert worker.wait() == -9
    if options != ("--on-top",):
        assert_says(flow.apply("branch"), OPERATOR, "rebuild", "headwater rebuild branch")
    is_done = options and fault.startswith("after")
    rebuild(flow, *(() if options == ("--latest",) and is_done else options))
    settle(flow, workload, [capture, flow.apply("branch")])


def test_the_source_is_not_needed(flow_at_work: tuple[Pipeline, Workload, Worker]) -> None:
    flow, workload, capture = flow_at_work
    path = flow.folder / "headwater.toml"
    text = path.read_text()
    document = tomlkit.parse(text)
    document["sources"][flow.name]["url"] = "postgresql://nobody@127.0.0.1:1/nowhere"
    path.write_text(tomlkit.dumps(document))
    for options in ((), ("--on-top",)):
        assert rebuild(flow, *options)["read"] > 60
    path.write_text(text)
    settle(flow, workload, [capture, flow.apply("branch")])


def test_a_target_that_is_not_empty_is_refused(
    flow_at_work: tuple[Pipeline, Workload, Worker],
) -> None:
    flow, workload, capture = flow_at_work
    dry = rebuild(flow, "--dry-run")
    assert (dry["way"], dry["written"]) == ("ordered", 0)
    assert flow.targets["branch"].query("select count(*) from people") == [(0,)]
    rebuild(flow)
    for options in ((), ("--latest",), ("--at", "3")):
        worker = flow.start("rebuild", "branch", *options)
        assert_says(worker, OPERATOR, "not empty", "headwater rebuild branch --on-top")
    flow.run("drop", "branch", "--yes")
    assert_says(flow.start("rebuild", "branch"), OPERATOR, "not empty", "public.people")
    worker = flow.start("rebuild", "branch", "--on-top", "--table", "public.people")
    assert_says(worker, OPERATOR, "no checkpoint", "headwater rebuild branch --on-top")
    # Without a checkpoint or known keys: they are learned anew.
    before = everything(flow.targets["branch"])
    assert rebuild(flow, "--on-top")["written"] == 0
    assert before == everything(flow.targets["branch"])
    settle(flow, workload, [capture, flow.apply("branch")])


@pytest.mark.parametrize("way", list(WAYS))
def test_it_stops_exactly_after_a_batch(
    way: str, flow_at_work: tuple[Pipeline, Workload, Worker]
) -> None:
    """The rows are those of that moment; an apply goes on from there."""
    flow, workload, capture = flow_at_work
    inserted: list[tuple[int, str]] = []
    with opened_log(flow.config, flow.name) as log:
        for batch in log.read(None, follow=False):
            for block in batch.blocks() if batch else ():
                inserted += [
                    (batch.batch if batch else 0, json.loads(key)["sync_id"])
                    for rows in block
                    if rows.table.name == "ledger"
                    for key in rows.keys
                ]  # fmt: skip
    at = inserted[-4][0]
    assert rebuild(flow, "--at", str(at), *WAYS[way])["until"] == at
    target = flow.targets["branch"]
    there = {key for (key,) in target.query("select sync_id::text from ledger")}
    assert there == {key for batch, key in inserted if batch <= at}
    assert target.query("select batch from headwater_checkpoint") == [(at,)]
    settle(flow, workload, [capture, flow.apply("branch")])


def test_what_the_log_has_forgotten_is_said_before_anything_is_written(
    flow_at_work: tuple[Pipeline, Workload, Worker],
) -> None:
    """H81: a paused target finds the gap; a copy into the log, and a rebuild on top mend it."""
    flow, workload, capture = flow_at_work
    target = flow.targets["branch"]
    rebuild(flow, "--at", "2")
    for _ in range(20):
        # After a truncate, the log has all of its table again.
        workload.step(only=[kind for kind in KINDS if kind != "truncate"])
    logged(flow, workload.beat())
    assert capture.stop() == 0
    with opened_log(flow.config, flow.name) as log:
        log.trim(0.0)  # type: ignore[attr-defined]
    assert_says(flow.apply("branch"), OPERATOR, "no longer", "rebuild branch --on-top")
    worker = flow.start("rebuild", "branch", "--on-top")
    names = [f"public.{name}" for name in ("ledger", "people", "pets")]
    assert_says(worker, OPERATOR, *names, f"headwater snapshot {flow.name}")
    before = everything(target)
    flow.run("snapshot", flow.name, *names[:2])
    worker = flow.start("rebuild", "branch", "--on-top")
    assert_says(worker, OPERATOR, "public.pets", f"headwater snapshot {flow.name} public.pets")
    assert before == everything(target)
    flow.run("snapshot", flow.name, "public.pets")
    rebuild(flow, "--on-top")
    settle(flow, workload, [flow.apply("branch"), flow.capture()])
    empty(flow)
    assert rebuild(flow)["way"] == "latest"
    capture = flow.capture()
    settle(flow, workload, [flow.apply("branch"), capture])


def test_a_log_that_never_held_the_rows_is_refused(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    source, target = new_database(postgres), new_database(postgres)
    create(source)
    with (
        closing(Workload(source, Random(1))) as workload,
        pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow,
    ):
        workload.fill(3)
        flow.configure(first_copy="identities")
        flow.prepare()
        capture = flow.capture()
        until(lambda: not flow.is_copying, "the identities")
        workload.fill(3)
        logged(flow, workload.beat())
        worker = flow.start("rebuild", "branch", "--latest")
        assert_says(worker, OPERATOR, "public.people", f"headwater snapshot {flow.name}")
        assert capture.stop() == 0


def test_an_apply_at_work_and_a_rebuild_never_both_write(
    flow_at_work: tuple[Pipeline, Workload, Worker],
) -> None:
    """Whoever comes second is fenced, and the target is right."""
    flow, workload, capture = flow_at_work
    flow.run("apply", "branch", "--once")
    worker = flow.start("rebuild", "branch", "--on-top", fault="before-target-commit:2")
    applying = flow.apply("branch")
    with writing(workload, CALM):
        code = worker.wait()
    assert code in (0, 75), worker.said
    if code == 0:
        # The apply had not begun, or its checkpoint was moved under it.
        assert applying.stop() in (0, 75)
        applying = flow.apply("branch")
    else:
        assert "another applier" in worker.said
    settle(flow, workload, [capture, applying])
