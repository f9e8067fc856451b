"""Prompts over HTTP, and `headwater push`: update all children now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from ops.prepare import prepare_all
from tests.acceptance.test_operator_errors import (
    OPERATOR,
    NewDatabase,
    a_name,
    assert_says,
    users_in,
    with_users,
)
from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.services.server import Server, free_port

TOKEN = "a token of thirty two characters"
ADD = "insert into users (name) values ('Alan')"
CHILDREN = ("asleep", "applies", "stands", "rests", "away")


@pytest.fixture
def shop(postgres: Server, new_database: NewDatabase, tmp_path: Path) -> Iterator[Pipeline]:
    """A source, a capture whose first copy is in the log, and five children; two are prompted."""
    source = with_users(new_database(postgres))
    targets = {name: new_database(postgres) for name in CHILDREN}
    with pipeline(tmp_path, a_name(), source, targets, "sqlite") as flow:
        prepare_all(flow.config, [flow.name], CHILDREN)
        for name in ("asleep", "away"):
            prompted(flow, name, free_port())
        flow.capture()
        until(lambda: not flow.is_copying, "the first copy in the log")
        yield flow


def prompted(flow: Pipeline, name: str, port: int) -> None:
    """Add where the child listens for prompts."""
    path = flow.folder / "headwater.toml"
    section = f"[targets.{name}]\n"
    keys = (
        f'prompt_listen = "127.0.0.1:{port}"\nprompt_url = "http://127.0.0.1:{port}/poll"\n'
        f'prompt_token = "{TOKEN}"\n'
    )
    text = path.read_text()
    assert section in text
    path.write_text(text.replace(section, section + keys))


def port_of(flow: Pipeline, name: str) -> int:
    address = flow.config.targets[name].prompt_listen
    assert address is not None
    return int(address.rpartition(":")[2])


def asked(
    port: int, method: str = "POST", path: str = "/poll", token: str = TOKEN, **headers: str
) -> tuple[int, Any]:
    """Status and document that a request gets."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in {"Authorization": f"Bearer {token}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body else None
    finally:
        connection.close()


def pushed(worker: Worker) -> dict[str, Any]:
    worker.wait()
    (line,) = [x for x in worker.log.read_text().splitlines() if '"is_captured"' in x]
    document: dict[str, Any] = json.loads(line)
    assert document["exit_code"] == worker.code
    return document


def test_a_prompt_wakes_a_sleeper_and_strangers_do_not(shop: Pipeline) -> None:
    """It polls every hour, and has a new row as soon as it is prompted."""
    child, port = shop.targets["asleep"], port_of(shop, "asleep")
    sleeper = shop.start("apply", "asleep", "--on-prompt", "--every", "3600", "--debug")
    until(lambda: '"sleeps"' in sleeper.said, "the sleep after the first look")
    assert users_in(child) == 2
    shop.source.execute(ADD)
    other = shop.apply("applies")
    until(lambda: users_in(shop.targets["applies"]) == 3, "the row in the log")
    refused = [
        (401, {"token": "wrong"}),
        (401, {"token": TOKEN[:-1]}),
        (404, {"path": "/"}),
        (404, {"path": "/poll/more", "method": "GET"}),
        (405, {"method": "GET"}),
        (405, {"method": "DELETE"}),
        (411, {"Transfer_Encoding": "chunked"}),
        (411, {"Content_Length": "-1"}),
        (413, {"Content_Length": "1025"}),
        (413, {"Content_Length": "9" * 30}),
    ]
    for status, how in refused:
        assert asked(port, **how) == (status, None), how
    assert users_in(child) == 2
    status, answer = asked(port)
    assert (status, answer["target"], answer["source"]) == (202, "asleep", shop.name)
    until(lambda: users_in(child) == 3, "the row after the prompt")
    until(lambda: asked(port)[1]["batch"] > answer["batch"], "the answer to follow")
    shop.run("pause", "asleep")
    until(lambda: asked(port)[1]["paused"] is True, "the pause in the answer")
    sleeper.alive()
    assert [sleeper.stop(), other.stop()] == [0, 0]
    with pytest.raises(ConnectionRefusedError):
        asked(port)


def test_push_waits_for_those_it_can_reach_and_lists_the_others(shop: Pipeline) -> None:
    """One sleeps and is prompted, one applies by itself, one is paused, of one nobody listens."""
    workers = [
        shop.start("apply", "asleep", "--on-prompt", "--every", "3600"),
        shop.apply("applies"),
        shop.apply("stands"),
        shop.apply("rests"),
    ]
    there = ("asleep", "applies", "stands", "rests")
    until(lambda: {users_in(shop.targets[t]) for t in there} == {2}, "the first rows")
    shop.run("pause", "rests")
    shop.source.execute(ADD)
    found = pushed(shop.start("push", shop.name, "--json"))
    assert (found["exit_code"], found["is_captured"]) == (3, True)
    states = {t["target"]: t["state"] for t in found["targets"]}
    assert states == {
        "asleep": "applied",
        "applies": "applied",
        "stands": "applied",
        "rests": "paused",
        "away": "unreachable",
    }
    by_name = {t["target"]: t for t in found["targets"]}
    assert "nobody takes prompts" in by_name["away"]["why"]
    assert by_name["rests"]["missed"]["rows"] == 1
    assert [users_in(shop.targets[t]) for t in there] == [3, 3, 3, 2]
    assert workers[2].stop() == 0
    shop.source.execute(ADD)
    worker = shop.start("push", shop.name, "--wait", "3")
    assert worker.wait() == 1
    row = next(line for line in worker.said.splitlines() if "stands" in line and "stopped" in line)
    assert "1 rows" in row


def test_push_says_that_nobody_captures(shop: Pipeline) -> None:
    """T100: children that have all of the log do not have all of the source."""
    shop.close()
    shop.source.execute(ADD)
    found = pushed(shop.start("push", shop.name, "--wait", "0", "--json"))
    assert (found["exit_code"], found["is_captured"]) == (1, False)
    assert "headwater capture" in said_by(shop)


def said_by(flow: Pipeline) -> str:
    worker = flow.start("push", flow.name, "--wait", "0")
    assert worker.wait() == 1
    return worker.said


def test_what_is_configured_wrong(shop: Pipeline) -> None:
    assert_says(shop.start("apply", "rests", "--on-prompt"), OPERATOR, "prompt_listen")
    assert_says(shop.start("apply", "rests", "--on-prompt", "--once"), OPERATOR, "--once")
    shown = shop.run("config")
    assert TOKEN not in shown
    assert 'prompt_token = "***"' in shown
    assert "prompt_token has a password" in shop.run("preflight")
    path = shop.folder / "headwater.toml"
    text = path.read_text()
    for wrong, said in (("short", "16 characters"), (None, "prompt_token")):
        line = f'prompt_token = "{wrong}"\n' if wrong else ""
        path.write_text(text.replace(f'prompt_token = "{TOKEN}"\n', line))
        assert_says(shop.start("config"), OPERATOR, said)
