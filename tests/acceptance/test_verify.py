"""`headwater verify` as people run it, beside a capture and an applier at work."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_verify import fill, key, named
from tests.faults.pipeline import Pipeline, pipeline, until
from tests.services.database import Database
from tests.services.server import Server


@dataclass
class Running:
    flow: Pipeline
    target: Database

    def verify(self, *words: str) -> tuple[int, str]:
        """The exit code of `headwater verify mirror WORDS`, and what it said."""
        worker = self.flow.start("verify", "mirror", *words)
        return worker.wait(), worker.log.read_text(errors="replace")


@pytest.fixture(params=[("postgres", "postgres"), ("mysql", "postgres")], ids="-to-".join)
def running(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    new_database: Callable[[Server], Database],
) -> Iterator[Running]:
    """A target that has its first copy, with capture and applier at work."""
    source, target = (new_database(request.getfixturevalue(name)) for name in request.param)
    fill(source, negative_zero=True)
    with pipeline(tmp_path, source.name, source, {"mirror": target}, "sqlite") as flow:
        flow.configure(exclude_columns=["*.people.secret"])
        flow.prepare()
        workers = [flow.capture(), flow.apply("mirror")]
        made = Running(flow, target)
        until(lambda: made.verify()[0] == 0, "the first copy")
        yield made
        for worker in workers:
            worker.alive()


def test_repair_mends_what_differs_and_the_next_pass_is_the_clean_one(running: Running) -> None:
    """T66: another value, a reference, a row too few and one too many."""
    plant = running.target.execute
    plant(f"update people set name = 'ann 10' where sync_id = '{key(10)}'")
    plant(f"delete from people where sync_id = '{key(1)}'")
    plant(f"insert into people (sync_id, name) values ('{key(21)}', 'nobody')")
    plant(f"update pets set owner = null where sync_id = '{key(104)}'")
    code, said = running.verify("--repair", "--json")
    found = json.loads(said.splitlines()[-1])
    assert (code, found["verdict"], found["differences"], found["repaired"]) == (1, "invalid", 4, 4)
    code, said = running.verify()
    assert code == 0, said
    assert "valid: 0 differences" in said


def test_passes_follow_each_other_until_stopped_and_status_shows_what_they_found(
    running: Running,
) -> None:
    worker = running.flow.start(
        "verify", "mirror", "--continuous", "--every", "0", "--json", "--table", people(running)
    )

    def documents() -> list[dict[str, Any]]:
        lines = worker.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    until(lambda: len(documents()) >= 2, "two passes")
    running.target.execute(f"update people set name = 'x' where sync_id = '{key(10)}'")
    until(lambda: documents()[-1]["verdict"] == "invalid", "the difference to be found")
    assert worker.stop() == 0
    first, last = documents()[0], documents()[-1]
    assert (first["verdict"], first["rows"], first["tables_valid"]) == ("valid", 20, 1)
    (table,) = last["tables"]
    assert [d["key"] for d in table["differences"]] == [named(10)]
    status = json.loads(running.flow.run("status", "--json").splitlines()[-1])
    verified = {v["table_name"]: v for v in status["targets"][0]["verified"]}
    shown = verified[people(running)]
    assert (shown["verdict"], shown["differences"], shown["progress"]) == ("invalid", 1, None)
    assert shown["position"] is not None
    assert shown["held_from"] <= shown["held_at"] < shown["checked_at"]


def people(running: Running) -> str:
    return (
        f"{'public' if running.flow.source.server.kind == 'postgres' else running.flow.name}.people"
    )
