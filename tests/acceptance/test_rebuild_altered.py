"""A log in which a table was altered half-way: each row is mapped by its own description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.acceptance.test_rebuild import WAYS, rebuild
from tests.faults.pipeline import pipeline, scheme, until
from tests.services.database import Database

CREATE = {
    "postgresql": "create table ledger (id bigserial primary key, sync_id uuid not null unique,"
    " amount int not null, old varchar(20), gone varchar(20))",
    "mysql": "create table ledger (id bigint auto_increment primary key, sync_id char(36) not null"
    " unique, amount int not null, old varchar(20), gone varchar(20))",
}
ALTER = (
    "alter table ledger add column extra int not null default 7",
    "alter table ledger rename column old to fresh",
    "alter table ledger drop column gone",
)


def rows_of(target: Database, *, names: str = "sync_id, amount, extra, fresh") -> list[Any]:
    found = target.query(f"select {names} from ledger")
    return sorted((str(row[0]), *row[1:]) for row in found)


def insert(database: Database, first: int, count: int, columns: str = "old, gone") -> None:
    for n in range(first, first + count):
        key = f"00000000-0000-4000-8000-{n:012d}"
        values = ", ".join(f"'{name}{n}'" for name in columns.split(", "))
        database.execute(
            f"insert into ledger (sync_id, amount, {columns}) values ('{key}', {n}, {values})"
        )


@pytest.mark.parametrize("way", [*WAYS, "on top"])
@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_columns_that_were_added_renamed_and_dropped(
    kind: str,
    way: str,
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
) -> None:
    """A target rebuilt is as one that was fed all the time: what a description does not have is
    NULL.
    """
    server = request.getfixturevalue(kind)
    source, target, fed = (new_database(server) for _ in range(3))
    source.execute(CREATE[scheme(source)])
    insert(source, 1, 3)
    with pipeline(tmp_path, a_name(), source, {"branch": target, "fed": fed}, "sqlite") as flow:
        flow.prepare()
        flow.run("drop", "branch", "--yes")
        target.execute("drop table ledger")
        workers = [flow.capture(), flow.apply("fed")]
        until(lambda: rows_in(fed) == 3, "the first copy")
        insert(source, 4, 30)
        for statement in ALTER:
            source.execute(statement)
            source.execute("update ledger set amount = amount + 100 where amount in (2, 3, 5, 6)")
            source.execute("delete from ledger where amount = 8")
        insert(source, 40, 3, "fresh")
        until(lambda: rows_in(fed) == rows_in(source), "the last rows")
        if way == "on top":
            rebuild(flow, "--latest")
            target.execute("delete from ledger where amount > 20")
            target.execute("update ledger set amount = 0 where amount = 4")
            assert rebuild(flow, "--on-top")["written"] > 10
        else:
            rebuild(flow, *WAYS[way])
        assert rows_of(target) == rows_of(fed)
        assert [worker.stop() for worker in workers] == [0, 0]
        wanted = rows_of(source, names="sync_id, amount, fresh")
        # Rows that were not written since have NULL in a column that was renamed.
        assert [(a, b) for a, b, _, _ in rows_of(target)] == [(a, b) for a, b, _ in wanted]
        extra = {amount: extra for _, amount, extra, _ in rows_of(target)}
        assert (extra[1], extra[40]) == (None, 7)


def rows_in(database: Database) -> int:
    there = "select count(*) from information_schema.tables where table_name = 'ledger'"
    where = "" if scheme(database) == "postgresql" else f" and table_schema = '{database.name}'"
    if database.query(there + where) == [(0,)]:
        return 0
    return int(database.query("select count(*) from ledger")[0][0])
