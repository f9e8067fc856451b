"""Copies that are asked of a running capture: of tables, ranges and listed rows, for one target,
while its stream goes on, and however often it is killed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from time import sleep
from typing import Any
from uuid import UUID

import orjson
import pytest

from ops.compose import opened_log
from ops.resync import asked, resync
from schemas.progress import asked_copies
from tests.faults.pipeline import Pipeline, pipeline, schema_of, until
from tests.faults.workload import Workload, create
from tests.services.database import Database
from tests.services.server import Server
from transport.record import Request

ROWS = 300
LIVES = 20
STEPS = 150


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def flow(
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
    postgres: Server,
    kafka: Server,
    kafka_prefix: str,
    tmp_path: Path,
) -> Iterator[Pipeline]:
    source = new_database(request.getfixturevalue(request.param))
    targets = {name: new_database(postgres) for name in ("mirror", "other")}
    create(source)
    log: object = kafka if request.param == "mysql" else "sqlite"
    with pipeline(tmp_path, kafka_prefix, source, targets, log) as made:
        made.configure(chunk_rows=50, readers=3)
        yield made


@pytest.fixture
def workload(flow: Pipeline) -> Iterator[Workload]:
    seed = int(os.environ.get("HEADWATER_SEED") or secrets.randbits(32))
    print(f"HEADWATER_SEED={seed}")
    made = Workload(flow.source, Random(seed))
    made.fill(ROWS)
    yield made
    made.close()


def spoil(target: Database) -> None:
    """Change, lose and add rows behind the pipeline's back."""
    target.execute("update people set note = 'spoilt' where id in (select min(id) from people)")
    target.execute("delete from pets where id in (select max(id) from pets)")
    target.execute(
        f"insert into people (sync_id, name, version) values ('{UUID(int=1)}', 'nobody', 1)"
    )


def found(flow: Pipeline, target: str) -> list[tuple[str, str]]:
    return sorted((d.table.partition(".")[2], d.kind) for d in flow.verify(target).differences)


def test_a_copy_for_one_target_mends_it_while_the_stream_goes_on(
    flow: Pipeline, workload: Workload
) -> None:
    """H53, T93: rows come back, and go where the source has none; others step over it."""
    flow.prepare()
    workers = [flow.capture(), flow.apply("mirror"), flow.apply("other")]
    until(lambda: not flow.is_copying, "the first copy")
    assert found(flow, "mirror") == found(flow, "other") == []
    spoilt = [("people", "different"), ("people", "extra"), ("pets", "missing")]
    for name in flow.targets:
        spoil(flow.targets[name])
    assert found(flow, "mirror") == spoilt
    asking = flow.start("snapshot", flow.name, "--for", "mirror")
    for _ in range(STEPS):
        workload.step()
    assert asking.wait() == 0, asking.said
    assert found(flow, "mirror") == []
    # What the workload's truncates and changes did not mend by themselves is still there.
    assert ("people", "extra") in found(flow, "other")
    for worker in workers:
        worker.alive()
        assert worker.stop() == 0


def test_a_check_in_the_stream_is_exact_under_load(flow: Pipeline, workload: Workload) -> None:
    """T73: no lag is waited out, none is taken for a difference, and one spoilt row is found."""
    flow.prepare()
    workers = [flow.capture(), flow.apply("mirror")]
    until(lambda: not flow.is_copying, "the first copy")
    assert found(flow, "mirror") == []
    schema, people = schema_of(flow.source), f"{schema_of(flow.source)}.people"
    tables = ["--table", people, "--table", f"{schema}.ledger"]
    for wanted in ("valid", "invalid"):
        if wanted == "invalid":
            spoil(flow.targets["mirror"])
        checking = flow.start("verify", "mirror", "--barrier", "--json", *tables)
        while checking.code is None:
            workload.step(only=("cold", "insert", "hot", "large"))
            sleep(0.02)
        report = orjson.loads(checking.said.splitlines()[-1])
        assert (report["verdict"], checking.code) == (wanted, int(wanted == "invalid")), report
    (wrong,) = [t for t in report["tables"] if t["table"] == people]
    assert {kind for kind, _ in wrong["listed"]} <= {"different", "extra"}
    assert wrong["extra"] == 1
    for worker in workers:
        assert worker.stop() == 0


def test_listed_rows_are_copied_or_deleted(flow: Pipeline, workload: Workload) -> None:
    flow.prepare()
    workers = [flow.capture(), flow.apply("mirror"), flow.apply("other")]
    until(lambda: not flow.is_copying, "the first copy")
    schema, mirror = schema_of(flow.source), flow.targets["mirror"]
    assert found(flow, "mirror") == []
    spoil(mirror)
    differing = flow.verify("mirror").differences
    keys: dict[str, list[str]] = {}
    for one in differing:
        keys.setdefault(one.table, []).append(one.key)
    assert set(keys) == {f"{schema}.people", f"{schema}.pets"}
    batch = resync(flow.config, flow.name, "mirror", keys, timeout_s=60)
    assert batch > 0
    assert found(flow, "mirror") == []
    ((sync_id,),) = flow.source.query("select sync_id from people order by sync_id limit 1")
    mirror.execute(f"delete from pets; delete from people where sync_id = '{sync_id}'")
    said = flow.run("snapshot", flow.name, f"{schema}.people", "--id", str(sync_id), "--json")
    assert orjson.loads(said.splitlines()[-1])["rows"] == 1
    flow.run("snapshot", flow.name, f"{schema}.pets", "--for", "mirror")
    assert found(flow, "mirror") == []
    for worker in workers:
        assert worker.stop() == 0


def test_copies_stand_still_and_are_ended(flow: Pipeline, workload: Workload) -> None:
    flow.prepare()
    worker = flow.capture()
    until(lambda: not flow.is_copying, "the first copy")
    flow.run("snapshot", flow.name, "--pause")
    asking = flow.start("snapshot", flow.name, "--json")
    until(lambda: '"copying"' in asking.said or asking.code is not None, "the copy taken in")
    number = orjson.loads(asking.said.splitlines()[0])["request"]
    workload.step()
    assert state(flow, number)["state"] == "copying"
    assert all(s["rows"] == 0 for s in state(flow, number)["tables"].values())
    # A pause outlives the capture.
    assert worker.stop() == 0
    worker = flow.capture()
    flow.run("snapshot", flow.name, "--cancel", str(number))
    assert asking.wait() != 0
    assert "cancelled" in asking.said
    flow.run("snapshot", flow.name, "--resume")
    flow.run("snapshot", flow.name)
    assert worker.stop() == 0


def test_a_request_outlives_twenty_captures_and_is_done_once(
    flow: Pipeline, workload: Workload
) -> None:
    """T63, T90: the copy goes on at its ranges wherever the capture was killed."""
    flow.configure(chunk_rows=10)
    flow.prepare()
    worker = flow.capture()
    until(lambda: not flow.is_copying, "the first copy")
    spoil(flow.targets["mirror"])
    worker.stop()
    with opened_log(flow.config, flow.name) as log:
        number, _ = asked(log, Request(what="copy", for_target="mirror"))
    points = ["after-read", "before-append", "after-append", "before-commit-record",
              "after-commit-record", "before-acknowledge"]  # fmt: skip
    for _ in range(LIVES):
        fault = f"{workload.random.choice(points)}:{workload.random.randint(1, 6)}"
        victim = flow.capture(fault=fault)
        while victim.code is None:
            workload.step()
            sleep(0.05)
        assert victim.code == -9, victim.said
    workers = [flow.capture(), flow.apply("mirror")]
    until(lambda: state(flow, number).get("state") == "done", "the copy")
    assert found(flow, "mirror") == []
    assert sorted(asked_copies_of(flow)) == [str(number)]
    for worker in workers:
        assert worker.stop() == 0


def state(flow: Pipeline, number: int) -> dict[str, Any]:
    found: dict[str, Any] = asked_copies_of(flow).get(str(number), {})
    return found


def asked_copies_of(flow: Pipeline) -> dict[str, dict[str, Any]]:
    copies: dict[str, dict[str, Any]] = {}
    with opened_log(flow.config, flow.name) as log:
        span = log.span()
        assert span is not None
        for batch in log.read(None, follow=False):
            copies = asked_copies(batch.progress) if batch else copies
    return copies
