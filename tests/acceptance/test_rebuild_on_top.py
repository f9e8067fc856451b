"""`headwater rebuild --on-top`: a target in use, which is right, wrong or behind."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_import import CALM, writing
from tests.acceptance.test_operator_errors import NewDatabase
from tests.acceptance.test_rebuild import at_work, everything, filled, logged, rebuild, settle
from tests.faults.pipeline import schema_of, until
from tests.faults.workload import TABLES
from tests.services.database import Database
from tests.services.server import Server


def versions(target: Database) -> list[list[tuple[Any, ...]]]:
    """Which transaction has written each row (PostgreSQL)."""
    return [target.query(f"select id, xmin::text from {t} order by id") for t in TABLES]


@pytest.mark.parametrize(
    ("kinds", "log"),
    [
        (("postgres", "postgres"), "kafka"),
        (("mysql", "mysql"), "sqlite"),
        (("mysql", "mariadb"), "sqlite"),
        (("postgres", "sqlite"), "sqlite"),
    ],
)
def test_on_top_of_a_target_that_is_right_nothing_changes(
    kinds: tuple[str, str],
    log: str,
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
) -> None:
    """H95, T86: no row is written, nothing goes back in time; rows of its own stay."""
    source, target = (new_database(request.getfixturevalue(kind)) for kind in kinds)
    where = request.getfixturevalue("kafka") if log == "kafka" else log
    with at_work(source, target, where, tmp_path) as (flow, workload, capture):
        with writing(workload):
            applying = flow.apply("branch")
            until(lambda: filled(target), "rows in the target")
        key = workload.beat()
        there = f"select 1 from ledger where sync_id = '{key}'"
        until(lambda: bool(target.query(there)), "the last row in the target")
        assert applying.stop() == 0
        if kinds[1] == "postgres":
            target.execute("alter table ledger alter sync_id drop not null")
            target.execute("insert into ledger (sync_id, amount) values (null, 7)")
        before = everything(target), versions(target) if kinds[1] == "postgres" else []
        said = rebuild(flow, "--on-top")
        assert (said["way"], said["written"]) == ("on top", 0)
        assert before == (
            everything(target), versions(target) if kinds[1] == "postgres" else []
        )  # fmt: skip
        settle(flow, workload, [capture, flow.apply("branch")])


@pytest.mark.parametrize("kinds", [("postgres", "postgres"), ("mysql", "mysql"),
                                   ("postgres", "sqlite")])  # fmt: skip
def test_on_top_of_a_target_that_is_wrong_and_behind_it_is_set_right(
    kinds: tuple[str, str],
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
) -> None:
    """H95, T66, T88: rows that were changed, deleted or added there; a table that was emptied."""
    source, target = (new_database(request.getfixturevalue(kind)) for kind in kinds)
    with at_work(source, target, "sqlite", tmp_path) as (flow, workload, capture):
        with writing(workload):
            applying = flow.apply("branch")
            until(lambda: filled(target), "rows in the target")
            assert applying.stop() == 0
            target.execute("update people set name = 'NAME' where id = (select * from "
                           "(select min(id) from people) x)")  # fmt: skip
            target.execute("delete from pets")
            target.execute("delete from ledger where amount > 500")
            extra = "22222222-2222-4222-8222-222222222222"
            target.execute(f"insert into people (sync_id, version) values ('{extra}', 1)")
            said = rebuild(flow, "--on-top", "--table", table(source, "pets"))
            assert said["tables"] == [table(source, "pets")]
            one = f"select count(*) from people where sync_id = '{extra}'"
            assert target.query(one) == [(1,)]
            said = rebuild(flow, "--shadow")
            assert said["written"] > 0
            applying = flow.apply("branch")
        settle(flow, workload, [capture, applying])


def test_readers_see_the_old_rows_or_the_new(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """H136: with references from a table of the target's own, which is not rebuilt."""
    source, target = new_database(postgres), new_database(postgres)
    with at_work(source, target, "sqlite", tmp_path) as (flow, workload, capture):
        for _ in range(150):
            workload.step(only=CALM)
        logged(flow, workload.beat())
        assert capture.stop() == 0
        flow.run("apply", "branch", "--once")
        target.execute(
            "create table mine (id serial primary key, person bigint not null references people);"
            "insert into mine (person) select id from people; create view seen as select "
            "(select count(*) from pets) pets, (select sum(amount) from ledger) amounts, "
            "(select count(*) from people where name = 'NAME') wrong, "
            "(select count(*) from people p join mine m on m.person = p.id) joined"
        )
        right = target.query("select * from seen"), everything(target)
        target.execute("delete from pets where version % 2 = 0; update ledger set amount = 9999;"
                       "update people set name = 'NAME' where version % 3 = 0")  # fmt: skip
        wrong = target.query("select * from seen")
        mine = target.query("select * from mine order by id")
        seen: list[Any] = []
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            worker = flow.start("rebuild", "branch", "--on-top")
            while worker.code is None:
                cursor.execute("select * from seen")
                seen.append(cursor.fetchall())
        assert worker.code == 0, worker.said
        assert seen[0] == wrong
        assert [some for some in seen if some not in (wrong, right[0])] == []
        assert (target.query("select * from seen"), mine) == (
            right[0], target.query("select * from mine order by id")
        )  # fmt: skip
        now = everything(target)
        assert (now["people"], now["ledger"]) == (right[1]["people"], right[1]["ledger"])
        capture = flow.capture()
        settle(flow, workload, [capture, flow.apply("branch")])


def table(source: Database, name: str) -> str:
    return f"{schema_of(source)}.{name}"
