"""A foreign key that is newer than its parent's rows: the stop, and the way on that it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.replica import replica
from tests.services.database import Database
from tests.services.server import Server

COLUMNS = "id int primary key, sync_id char(36) not null unique"


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_target_that_kept_no_keys_of_a_parent_reads_the_log_again(
    kind: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    new_database: Callable[[Server], Database],
) -> None:
    source, target = new_database(request.getfixturevalue(kind)), new_database(postgres)
    source.execute(f"create table p ({COLUMNS}); insert into p values (1, 'p1'), (2, 'p2')")
    source.execute(f"create table c ({COLUMNS}, p_id int)")
    with replica(f"s_{source.name}", source, target) as both:
        both.catch_up()
        source.execute("alter table c add foreign key (p_id) references p (id)")
        source.execute("insert into c values (1, 'c1', 2)")
        both.catch_up()
        (waiting,) = both.target.parked()
        assert "found no parent" in waiting.problem
        assert "apply the log from its start" in waiting.hint
        both.target.drop()
        both.target.prepare(both.source.describe())
        both.catch_up()
        assert both.verify(values=True).verdict == "valid"
        found = target.query("select p.sync_id from c join p on p.id = c.p_id")
        assert [name.strip() for (name,) in found] == ["p2"]
