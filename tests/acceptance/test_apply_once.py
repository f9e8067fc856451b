"""`headwater apply --once` as a scheduler runs it, and pauses: what it says, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ops.applying import run_apply
from ops.prepare import prepare_all
from ops.status import source_status, target_status
from ops.supervise import Signals
from schemas.errors import Transient
from tests.acceptance.test_operator_errors import (
    FENCED,
    OPERATOR,
    NewDatabase,
    a_name,
    assert_says,
    family,
    users_in,
    with_users,
)
from tests.acceptance.test_retention import age, status
from tests.faults.link import link
from tests.faults.pipeline import Pipeline, pipeline, until
from tests.services.database import Database
from tests.services.server import Server

ADD = "insert into users (name) values ('Alan')"


@pytest.fixture
def shop(postgres: Server, new_database: NewDatabase, tmp_path: Path) -> Iterator[Pipeline]:
    """A source whose first copy is in the log, a capture, and two targets that have nothing."""
    source = with_users(new_database(postgres))
    targets = {"branch": new_database(postgres), "depot": new_database(postgres)}
    with pipeline(tmp_path, a_name(), source, targets, "sqlite") as flow:
        prepare_all(flow.config, [flow.name], list(flow.targets))
        flow.capture()
        until(lambda: not flow.is_copying, "the first copy in the log")
        yield flow


def once(flow: Pipeline, target: str = "branch") -> dict[str, Any]:
    """What one run says in JSON."""
    said = flow.run("apply", target, "--once", "--json")
    (line,) = [x for x in said.splitlines() if '"missed":{' in x]
    document: dict[str, Any] = json.loads(line)
    return document


def write(flow: Pipeline, rows: int) -> None:
    """Insert rows at the source, each in a transaction of its own, and wait until the log has
    them.
    """
    for _ in range(rows):
        flow.source.execute(ADD)
    targets = {t: target_status(flow.config, t) for t in flow.targets}
    until(lambda: source_status(flow.config, flow.name, targets).lag_s == 0, "the rows in the log")


def test_it_says_what_it_applied_and_what_was_missed(shop: Pipeline) -> None:
    """A child that was away is told how much, and since when, by the source's commit times."""
    assert "applied" in shop.run("apply", "branch", "--once")
    assert "nothing new; stands at batch" in shop.run("apply", "branch", "--once")
    write(shop, 3)
    behind = status(shop)["targets"][0]
    assert (behind["rows_behind"], behind["batches_behind"] >= 1) == (3, True)
    assert behind["behind_since"] > 0
    assert "has not applied 3 rows, committed since" in shop.run("status")
    done = once(shop)
    assert (done["rows"], done["missed"]["rows"], done["paused"]) == (3, 3, None)
    assert done["missed"]["since"] == behind["behind_since"]
    assert done["committed_at"] >= done["missed"]["since"]
    assert done["batches"] >= 1
    assert users_in(shop.targets["branch"]) == 5
    after = status(shop)["targets"][0]
    assert (after["rows_behind"], after["behind_since"], after["lag_s"]) == (0, None, 0)


def test_it_gives_way_to_an_applier_that_runs_and_writes_nothing(shop: Pipeline) -> None:
    """Overlapping runs of a scheduler: the second one is refused, the first is not fenced."""
    first = shop.apply("branch")
    until(lambda: users_in(shop.targets["branch"]) == 2, "the first rows")
    first.process.send_signal(signal.SIGSTOP)
    write(shop, 1)
    refused = shop.start("apply", "branch", "--once")
    assert_says(refused, FENCED, "another process applies to branch", "catch-up branch --watch")
    assert users_in(shop.targets["branch"]) == 2
    first.process.send_signal(signal.SIGCONT)
    until(lambda: users_in(shop.targets["branch"]) == 3, "the row by the first one")
    assert first.stop() == 0
    assert once(shop)["rows"] == 0


def test_one_target_paused_for_a_while_holds_back_nobody(shop: Pipeline) -> None:
    """H108, T100: the other one goes on; the paused one falls behind, visibly, and catches up."""
    shop.source.execute(ADD)
    appliers = [shop.apply("branch"), shop.apply("depot")]
    until(lambda: {users_in(t) for t in shop.targets.values()} == {3}, "the first rows")
    assert "branch is paused" in shop.run("pause", "branch", "--reason", "stocktaking")
    write(shop, 4)
    until(lambda: users_in(shop.targets["depot"]) == 7, "the rows in the other one")
    until(lambda: '"paused"' in appliers[0].said, "the applier to say it")
    assert users_in(shop.targets["branch"]) == 3
    branch, depot = status(shop)["targets"]
    assert (branch["paused_for"], branch["rows_behind"], branch["lag_s"] > 0) == (
        "stocktaking",
        4,
        True,
    )
    assert (depot["paused_at"], depot["rows_behind"], depot["lag_s"]) == (None, 0, 0)
    assert "to end it: headwater resume branch" in shop.run("status")
    refused = shop.start("catch-up", "depot")
    assert_says(refused, FENCED, "another process applies to depot")
    assert "branch is resumed" in shop.run("resume", "branch")
    until(lambda: users_in(shop.targets["branch"]) == 7, "the rows after the pause")
    assert [worker.stop() for worker in appliers] == [0, 0]
    assert "was not paused" in shop.run("resume", "branch")


def test_once_during_a_pause_does_nothing_and_says_so(shop: Pipeline) -> None:
    """The pause was meant: a scheduler is not told of a failure."""
    shop.run("pause", "branch")
    assert "applied nothing: paused since" in shop.run("apply", "branch", "--once")
    document = once(shop)
    assert (document["rows"], document["paused"]["reason"]) == (0, "")
    assert_says(shop.start("catch-up", "branch"), OPERATOR, "paused", "headwater resume branch")
    shop.run("resume", "branch")
    assert once(shop)["rows"] == 2


def test_away_for_longer_than_the_log_is_kept(shop: Pipeline) -> None:
    """H81: the exact commands, with the child's name in them."""
    shop.log["retention_hours"] = 1
    shop.configure()
    once(shop)
    write(shop, 1)
    age(shop, 2 * 3600)
    newer = shop.capture()  # takes over, and trims
    until(lambda: target_status(shop.config, "branch").hint is not None, "the trim")
    newer.alive()
    refused = shop.start("apply", "branch", "--once")
    assert_says(refused, OPERATOR, "branch was away for longer", "headwater rebuild branch")
    shown = shop.start("status")
    assert shown.wait() == OPERATOR
    assert "run: headwater rebuild branch --on-top" in shown.said
    assert "TARGET" not in shown.said


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_link_that_breaks_at_any_byte(
    kind: str, request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> None:
    """T96: each run is cut at a byte of its own; rows and checkpoint are of one moment at every
    look, never go back, and a run that is not cut ends level.
    """
    server: Server = request.getfixturevalue(kind)
    source, target = with_users(new_database(server)), new_database(server)
    draw = Random(int(os.environ["HEADWATER_SEED"]))
    with (
        pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow,
        link(server.host, server.port) as way,
    ):
        prepare_all(flow.config, [flow.name], list(flow.targets))
        capture = flow.capture()
        until(lambda: not flow.is_copying, "the first copy in the log")
        write(flow, 1)
        assert capture.stop() == 0
        cut_off(flow, way.port)
        stood = 0
        for _ in range(20):
            # About 20 KB are what a whole run needs.
            way.left = draw.randrange(1, 25_000)
            with suppress(Transient):
                run_apply(flow.config, "branch", Signals(), once=True, tries=1)
            there, said = max(0, users_in(target)), applied_to(target)
            assert (said, there >= stood) == (there, True)
            stood = there
        assert way.cuts > 5
        way.left = None
        run_apply(flow.config, "branch", Signals(), once=True, tries=1)
        assert (users_in(target), applied_to(target)) == (3, 3)


def applied_to(target: Database) -> int:
    """How many rows the checkpoint says."""
    schema = "table_schema = database()" if family(target) == "mysql" else "true"
    there = target.query(
        "select count(*) from information_schema.tables "
        f"where table_name = 'headwater_checkpoint' and {schema}"
    )
    rows = target.query("select rows_applied from headwater_checkpoint") if there[0][0] else []
    return int(rows[0][0]) if rows else 0


def cut_off(flow: Pipeline, port: int) -> None:
    """Let the target be reached by the link alone."""
    path = flow.folder / "headwater.toml"
    before, after = path.read_text().split("[targets.", 1)
    port_of = f":{flow.source.server.port}/"
    assert port_of in after
    path.write_text(f"{before}[targets.{after.replace(port_of, f':{port}/')}")
