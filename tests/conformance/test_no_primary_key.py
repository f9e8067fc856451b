"""Tables without a primary key: copied and followed by identity, or refused by name (H130)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from tests.conformance.sources import MAKERS
from tests.faults.pipeline import schema_of
from tests.faults.replica import replica
from tests.services.database import Database
from tests.services.server import Server

SERVERS = ["postgres", "mysql", "mariadb"]


@pytest.fixture(params=SERVERS)
def source(request: pytest.FixtureRequest, new_database: Callable[[Server], Database]) -> Database:
    return new_database(request.getfixturevalue(request.param))


def test_it_is_copied_by_its_identity_and_followed(
    source: Database, postgres: Server, new_database: Callable[[Server], Database]
) -> None:
    """H130: more rows than a chunk, changed while they are copied and afterwards."""
    source.execute("create table plain (sync_id char(36) not null unique, n int)")
    source.execute(
        "insert into plain with recursive c as (select 1 as i union all select i + 1 from c"
        " where i < 10) select concat('00000000-0000-0000-0000-0000000000', lpad("
        + ("i::text" if schema_of(source) == "public" else "i")
        + ", 2, '0')), i from c"
    )
    target = new_database(postgres)
    with replica(source.name, source, target) as flow:
        flow.catch_up()
        assert flow.verify().verdict == "valid"
        source.execute("update plain set n = 100 where n = 3; delete from plain where n = 4")
        source.execute("insert into plain values ('00000000-0000-0000-0000-000000000099', 99)")
        flow.catch_up()
        assert flow.verify().verdict == "valid"
        assert target.query("select count(*), sum(n) from plain") == [(10, 55 - 3 - 4 + 100 + 99)]


def test_without_an_identity_too_it_is_refused(source: Database) -> None:
    source.execute("create table plain (n int)")
    with closing(MAKERS[source.server.kind](source)) as opened:
        (found,) = [f for f in opened.check() if "plain" in f.where]
    assert found.refused
    assert "no column sync_id" in found.problem
