"""`headwater catch-up`: level by the source's own clock and log, never by being idle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.acceptance.test_import import writing
from tests.acceptance.test_operator_errors import (
    FENCED,
    NewDatabase,
    a_name,
    assert_says,
    users_in,
    with_users,
)
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.faults.workload import Workload, create
from tests.services.server import Server

SERVERS = ["postgres", "mysql", "mariadb"]
ADD = "insert into users (name) values ('Alan')"


@pytest.fixture(params=SERVERS)
def shop(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    server: Server = request.getfixturevalue(request.param)
    source, target = with_users(new_database(server)), new_database(server)
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        flow.prepare()
        yield flow


def lines(worker: Worker) -> list[dict[str, Any]]:
    """What it has said so far; the last line may be half of one."""
    said = worker.log.read_text().splitlines(keepends=True)
    return [json.loads(x) for x in said if x.endswith("\n") and x.startswith('{"target"')]


def looked(worker: Worker, times: int) -> list[dict[str, Any]]:
    until(lambda: len(lines(worker)) >= times or worker.code is not None, "looks at the target")
    worker.alive()
    return lines(worker)


def test_a_log_that_holds_nothing_more_is_not_level(shop: Pipeline) -> None:
    """T100: nothing moves and nothing is left, while the source has a row that no capture reads."""
    capture = shop.capture()
    assert "level" in shop.run("catch-up", "branch")
    assert capture.stop() == 0
    shop.source.execute(ADD)
    for words in (["--watch"], []):
        waits = shop.start("catch-up", "branch", "--json", *words)
        for found in looked(waits, 4):
            assert (found["level"], found["rows_left"]) == (False, 0)
        assert waits.stop() == 0
    waits = shop.start("catch-up", "branch", "--json")
    looked(waits, 1)
    capture = shop.capture()
    assert waits.wait() == 0
    last = lines(waits)[-1]
    assert (last["level"], last["rows_left"]) == (True, 0)
    assert last["lag_s"] <= 5
    assert users_in(shop.targets["branch"]) == 3
    assert capture.stop() == 0


def test_it_watches_what_another_process_applies(shop: Pipeline) -> None:
    capture = shop.capture()
    until(lambda: not shop.is_copying, "the first copy in the log")
    watching = shop.start("catch-up", "branch", "--watch", "--json")
    for found in looked(watching, 3):
        assert (found["level"], found["rows_left"], found["eta_s"]) == (False, 2, None)
    apply = shop.apply("branch")
    assert watching.wait() == 0
    last = lines(watching)[-1]
    assert (last["level"], last["rows_left"]) == (True, 0)
    assert [apply.code, capture.code] == [None, None]
    assert [apply.stop(), capture.stop()] == [0, 0]


def test_a_second_applier_is_refused_before_it_writes(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    source, target = new_database(postgres), new_database(postgres)
    create(source)
    workload = Workload(source, Random(3))
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        flow.prepare()
        capture, apply = flow.capture(), flow.apply("branch")
        with writing(workload):
            until(
                lambda: target.query("select count(*) > 0 from ledger")[0][0], "rows in the target"
            )
            assert_says(flow.start("catch-up", "branch"), FENCED, "already", "--watch")
            assert flow.run("catch-up", "branch", "--watch")
        workload.close()
        assert [apply.stop(), capture.stop()] == [0, 0]


def test_through_kafka(
    postgres: Server, kafka: Server, new_database: NewDatabase, kafka_prefix: str, tmp_path: Path
) -> None:
    """While somebody writes all the time: level all the same."""
    source, target = new_database(postgres), new_database(postgres)
    create(source)
    workload = Workload(source, Random(5))
    workload.fill(40)
    with pipeline(tmp_path, kafka_prefix, source, {"branch": target}, kafka) as flow:
        flow.prepare()
        capture = flow.capture()
        with writing(workload):
            caught_up = flow.start("catch-up", "branch", "--json")
            assert caught_up.wait() == 0
            last = lines(caught_up)[-1]
            assert last["level"]
            assert last["rows"] > 40
            assert (last["copying"], last["lag_s"] <= 5) == ([], True)
        workload.close()
        flow.run("catch-up", "branch", "--within", "2")
        assert "0 differences" in flow.run("verify", "branch", "--once")
        assert capture.stop() == 0
