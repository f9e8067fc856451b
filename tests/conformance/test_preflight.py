"""What preflight and a start say of a configuration, on real servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ops.config import Config
from ops.preflight import check_all
from ops.prepare import make_ready
from tests.services.database import Database


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_patterns_that_include_no_table_are_named(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A misspelt pattern would otherwise be a table that is never copied."""
    database: Database = request.getfixturevalue(f"{kind}_db")
    database.execute("create table users (id int primary key, sync_id char(36) not null unique)")
    schema = "public" if kind == "postgres" else database.name
    include = [f"{schema}.user?", f"{schema}.orders", "usres.*"]
    config = Config.model_validate(
        {
            "log": {"path": str(tmp_path / "log.db")},
            "sources": {database.name: {"url": database.url, "include": include}},
        }
    )
    expected = [f'include "{schema}.orders"', 'include "usres.*"']
    found = check_all(config, [database.name], [])[database.name]
    assert [f.where for f in found if f.where.startswith("include")] == expected
    with capture_logs() as said:
        make_ready(config, [database.name], [])
    assert [line["where"] for line in said if line["where"].startswith("include")] == expected
