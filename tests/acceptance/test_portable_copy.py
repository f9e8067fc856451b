"""A SQLite file fed by the installed command from a real server: first copy, changes, a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.test_verify import fill, key
from tests.faults.pipeline import pipeline
from tests.services.database import Database
from tests.services.server import Server


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_portable_copy_follows_its_source(
    kind: str,
    request: pytest.FixtureRequest,
    sqlite: Server,
    new_database: Callable[[Server], Database],
    tmp_path: Path,
) -> None:
    source, copy = new_database(request.getfixturevalue(kind)), new_database(sqlite)
    fill(source, negative_zero=False)
    with pipeline(tmp_path, source.name, source, {"copy": copy}, "sqlite") as flow:
        flow.prepare()
        worker = flow.start("run")
        said = flow.run("verify", "copy", "--once")
        assert "0 differences" in said
        source.execute(f"update people set name = 'Zoë', ratio = 0.1 where sync_id = '{key(3)}'")
        source.execute(f"delete from pets where sync_id = '{key(101)}'")
        worker.kill()
        source.execute(f"update pets set owner = null where sync_id = '{key(105)}'")
        worker = flow.start("run")
        said = flow.run("verify", "copy", "--once")
        assert "0 differences" in said
        worker.alive()
        assert worker.stop() == 0
    rows = copy.query(f"select name, ratio, typeof(amount) from people where sync_id = '{key(3)}'")
    assert rows == [("Zoë", 0.1, "text")]
    assert copy.query("select count(*), count(owner) from pets") == [(9, 7)]
