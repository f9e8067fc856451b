"""The command as its users run it: run, status, peek, snapshot, drop, demo, on real servers."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.process_group import command, environment
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.services.database import Database
from tests.services.server import Server

USERS = (
    "create table users (id bigserial primary key, sync_id uuid not null unique"
    " default gen_random_uuid(), name varchar(50) not null)"
)


@pytest.fixture
def flow(
    postgres: Server, new_database: Callable[[Server], Database], tmp_path: Path
) -> Iterator[Pipeline]:
    """PostgreSQL to PostgreSQL through the embedded log, two rows there already."""
    source, target = new_database(postgres), new_database(postgres)
    source.execute(USERS)
    source.execute("insert into users (name) values ('Ada'), ('Grace')")
    name = f"shop_{secrets.token_hex(4)}"
    with pipeline(tmp_path, name, source, {"branch": target}, "sqlite") as made:
        yield made


def arrived(flow: Pipeline, rows: int, worker: Worker) -> None:
    there = "select count(*) from information_schema.tables where table_name = 'users'"
    target = flow.targets["branch"]

    def has_arrived() -> bool:
        worker.alive()
        if target.query(there) == [(0,)]:
            return False
        return target.query("select count(*) from users") == [(rows,)]

    until(has_arrived, f"{rows} rows in the target")


def status(flow: Pipeline) -> dict[str, Any]:
    (line,) = [line for line in flow.run("status", "--json").splitlines() if "sources" in line]
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_run_copies_follows_and_stops_with_code_0_at_sigterm(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    flow.source.execute("insert into users (name) values ('Alan')")
    arrived(flow, 3, worker)
    children = psutil.Process(worker.process.pid).children()
    assert len(children) == 2
    assert worker.stop() == 0
    assert [child for child in children if child.is_running()] == []


def test_run_ends_with_130_at_an_interrupt(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    worker.process.send_signal(signal.SIGINT)
    assert worker.wait() == 130


def test_when_run_is_killed_its_processes_stop_by_themselves(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    children = psutil.Process(worker.process.pid).children()
    worker.kill()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert (len(gone), alive) == (2, [])


def test_when_one_process_is_killed_the_group_ends(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    psutil.Process(worker.process.pid).children()[0].kill()
    assert worker.wait() == 137


def test_a_restarted_run_goes_on_where_it_was(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    assert worker.stop() == 0
    flow.source.execute("insert into users (name) values ('Alan')")
    worker = flow.start("run")
    arrived(flow, 3, worker)
    assert worker.stop() == 0
    assert flow.run("peek", flow.name).count('"op":"r"') == 2


def test_status_tells_positions_and_lags_from_commits(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    flow.source.execute("insert into users (name) values ('Alan')")
    arrived(flow, 3, worker)
    said = status(flow)
    (source,), (target,) = said["sources"], said["targets"]
    assert (source["lag_s"], source["error"], target["lag_s"]) == (0.0, None, 0.0)
    assert source["position"]
    assert target["committed_at"] == source["committed_at"]
    assert target["applied_at"] >= target["committed_at"]
    assert worker.stop() == 0


def test_status_of_a_stopped_target_is_behind_by_commit_time(flow: Pipeline) -> None:
    """T100: nothing moves, and the lag says so."""
    worker = flow.start("run")
    arrived(flow, 2, worker)
    flow.source.execute("insert into users (name) values ('Alan')")
    arrived(flow, 3, worker)
    assert worker.stop() == 0
    flow.source.execute("insert into users (name) values ('Edsger')")
    assert status(flow)["sources"][0]["lag_s"] > 0
    capture = flow.capture()
    until(lambda: '"op":"c"' in flow.run("peek", "branch"), "the row in the log")
    (target,) = status(flow)["targets"]
    assert target["batches_behind"] > 0
    assert target["lag_s"] > 0
    assert capture.stop() == 0


def test_one_database_that_is_away_does_not_hide_the_others(flow: Pipeline) -> None:
    flow.prepare()
    path = flow.folder / "headwater.toml"
    before, after = path.read_text().rsplit(f"/{flow.targets['branch'].name}", 1)
    path.write_text(f"{before}/nowhere{after}")
    worker = flow.start("status", "--json")
    assert worker.wait() != 0
    said = json.loads(worker.said)
    assert (said["sources"][0]["error"], bool(said["targets"][0]["error"])) == (None, True)


def test_peek_hides_values_until_they_are_asked_for(flow: Pipeline) -> None:
    flow.run("snapshot", "--here", flow.name)
    assert "Grace" not in flow.run("peek", flow.name)
    assert "Grace" in flow.run("peek", flow.name, "--values")


def test_snapshot_copies_a_table_again_and_ends(flow: Pipeline) -> None:
    worker = flow.start("run")
    arrived(flow, 2, worker)
    assert worker.stop() == 0
    flow.targets["branch"].execute("delete from users")
    flow.run("snapshot", "--here", flow.name, "public.users")
    flow.run("apply", "branch", "--once")
    assert flow.targets["branch"].query("select name from users order by name") == [
        ("Ada",),
        ("Grace",),
    ]


def test_drop_shows_first_and_leaves_nothing_with_yes(flow: Pipeline) -> None:
    flow.prepare()
    flow.run("snapshot", "--here", flow.name)
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    own = "select count(*) from information_schema.tables where table_name like 'headwater%'"
    for words in ([flow.name], ["branch"], [flow.name, "--log"]):
        assert "would run" in flow.run("drop", *words)
    assert flow.source.query(slots) == [(1,)]
    for words in ([flow.name], ["branch"], [flow.name, "--log"]):
        flow.run("drop", *words, "--yes")
    assert flow.source.query(slots) == [(0,)]
    assert flow.source.query("select count(*) from pg_publication") == [(0,)]
    assert flow.targets["branch"].query(own) == [(0,)]
    assert "nothing there" in flow.run("peek", flow.name)


def test_the_demo_ends_without_differences_and_leaves_nothing() -> None:
    folder = Path(tempfile.gettempdir())
    before = set(folder.glob("headwater-demo-*"))
    ended = subprocess.run(
        command("demo", "--json"), env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["compared"]["differences"] == 0
    assert set(folder.glob("headwater-demo-*")) <= before
