"""Every dump tool, from every source, under load: position, dump, import, check, catch up, equal.

pgbench and sysbench write before, during and after the dump, and go on while the target catches up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ops.import_check import UNKNOWN
from tests.acceptance.dumps import DUMPS, Dump
from tests.acceptance.test_import import said
from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.acceptance.workloads import tool_for
from tests.faults.pipeline import Pipeline, Worker, pipeline
from tests.services.database import Database
from tests.services.server import Server

SECONDS = 20
SIZE = 0.2
"""Of what the tools' tables have elsewhere."""


def noted(flow: Pipeline, dump: Dump) -> tuple[Worker, dict[str, Any]]:
    """`headwater position`, holding a snapshot where the tool takes one."""
    worker = flow.start("position", flow.name, "--json", *([] if dump.snapshot else ["--no-hold"]))
    return worker, said(worker)


def check(flow: Pipeline) -> tuple[int, dict[str, Any]]:
    worker = flow.start("import-check", "branch", "--json")
    code = worker.wait()
    documents = [json.loads(line) for line in worker.said.splitlines() if line.startswith("{")]
    return code, next(d for d in documents if "as_new" in d)


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.name)
def test_a_dump_under_load_is_caught_up_and_equal(
    dump: Dump, request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> None:
    """H125, acceptance (a): the import is proven as new as the position where a beat can prove it.

    The target keeps the source's keys: every column is compared.
    """
    server: Server = request.getfixturevalue(dump.kind)
    source, target = new_database(server), new_database(server)
    tool = tool_for(source, size=SIZE)
    tool.prepare()
    if not dump.expressions:
        without_expressions(source, list(tool.sums))
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        flow.target_settings["primary_keys"] = "copy"
        flow.configure(first_copy="identities")
        with tool.start(SECONDS) as load:
            try:
                begin = dumped(flow, dump, target, tmp_path)
                capture = flow.start("capture", flow.name, "--from", begin)
                dump.load(target, tmp_path)
                flow.run("prepare", "branch")
                caught_up = flow.start("catch-up", "branch", "--json", "--within", "3")
                assert caught_up.wait() == 0, caught_up.said
                lines = [json.loads(x) for x in caught_up.said.splitlines() if '"level"' in x]
                assert lines[-1]["level"]
                assert lines[-1]["lag_s"] <= 3
                code, checked = check(flow)
            finally:
                load.kill()
        proven = not dump.snapshot and dump.own is None
        assert (code, checked["as_new"]) == ((0, True) if proven else (UNKNOWN, False))
        assert len(checked["beats"]) == 1
        flow.run("catch-up", "branch")
        assert "0 differences" in flow.run("verify", "branch", "--once")
        capture.alive()
        assert capture.stop() == 0


def without_expressions(source: Database, tables: list[str]) -> None:
    """Let a trigger give new rows their sync_id, not the column's default."""
    for table in tables:
        source.execute(f"alter table {table} alter column sync_id set default ''")
        source.execute(
            f"create trigger {table}_id before insert on {table} for each row"
            " set new.sync_id = if(new.sync_id = '', uuid(), new.sync_id)"
        )


def dumped(flow: Pipeline, dump: Dump, target: Database, folder: Path) -> str:
    """Note a position and take the dump as that tool's recipe says; where the changes begin."""
    worker, said_of_it = noted(flow, dump)
    dump.dump(flow.source, said_of_it["snapshot"], folder)
    assert (worker.stop() if dump.snapshot else worker.wait()) == 0
    assert (said_of_it["beat"] is None) == dump.snapshot
    return str(said_of_it["position"]) if dump.own is None else dump.own(folder)
