"""RENAME COLUMN logs no row: it is followed, and a warning says what it leaves behind."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.conformance.sources import MAKERS, Tap
from tests.services.database import Database


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def tap(request: pytest.FixtureRequest) -> Tap:
    database: Database = request.getfixturevalue(f"{request.param}_db")
    database.execute(
        "create table t (id int primary key, sync_id varchar(40) not null unique, a int, b int);"
        "insert into t values (1, 'k1', 1, 2)"
    )
    source = MAKERS[request.param](database)
    source.prepare()
    return Tap(source)


@pytest.fixture
def database(request: pytest.FixtureRequest, tap: Tap) -> Database:
    kind = request.node.callspec.params["tap"]
    found: Database = request.getfixturevalue(f"{kind}_db")
    return found


def test_a_renamed_column_is_followed_with_a_warning(tap: Tap, database: Database) -> None:
    """H115: in a table of which the stream has shown no row yet, and in one that it has."""
    with tap, capture_logs() as said:
        for old, new in (("a", "c"), ("c", "d")):
            database.execute(f"alter table t rename column {old} to {new}")
            database.execute(f"insert into t (id, sync_id, {new}) values ({ord(new)}, '{new}', 7)")
            (change,) = tap.drain()
            assert change.after[new] == 7
    warned = [(w["gone"], w["new"]) for w in said if w["event"] == "columns_renamed"]
    assert warned == [(["a"], ["c"]), (["c"], ["d"])]
    assert all(w["log_level"] == "warning" and w["table"].endswith(".t") for w in said)


def test_columns_that_only_come_or_only_go_warn_of_nothing(tap: Tap, database: Database) -> None:
    with tap, capture_logs() as said:
        for change in ("add column c int", "drop column b"):
            database.execute(f"alter table t {change}")
            database.execute(f"insert into t (id, sync_id) values ({len(change)}, '{change}')")
            assert len(tap.drain()) == 1
    assert [w for w in said if w["event"] == "columns_renamed"] == []
