"""First matching on real servers: two databases that exist, with other primary keys and rows of
their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ops.enrol.assign import resolve, undo
from ops.enrol.run import Report, Said, both_sides, both_twins, enrol
from ops.enrol.scratch import CHANGED, MANY
from schemas.errors import Misconfigured, Operator, SchemaConflict
from tests.acceptance.test_operator_errors import NewDatabase, a_name, unchanged
from tests.faults.pipeline import Pipeline, pipeline, schema_of, scheme, until
from tests.services.database import Database
from tests.services.server import Server

KEY = {
    "postgresql": "bigserial primary key",
    "mysql": "bigint auto_increment primary key",
    "mariadb": "bigint auto_increment primary key",
    "sqlite": "integer primary key autoincrement",
}
TOUCHED = "timestamp(6) not null default '2001-01-01 00:00:00' on update current_timestamp(6)"
MATCH = {
    "users": {
        "keys": [["email"], ["name", "born"]],
        "normalise": {
            "email": ["trim", "lower"],
            "name": ["nfc", "accents", "lower"],
            "born": ["date:%d.%m.%Y"],
        },
    },
    "orders": {"keys": [["user_id", "number"]]},
    "places": {"keys": [["country", "code"]]},
}
ODD = "a'\\%%\"ü"
"""A key that has to be quoted."""
NFD = "Jose\u0301"


def tables(database: Database) -> None:
    kind = scheme(database)
    touched = f", touched {TOUCHED}" if kind in ("mysql", "mariadb") else ""
    database.execute(
        f"create table users (id {KEY[kind]}, email varchar(80), name varchar(50) not null, "
        f"born varchar(10){touched})"
    )
    database.execute(
        f"create table orders (id {KEY[kind]}, user_id bigint, number int, total numeric(10, 2), "
        "foreign key (user_id) references users (id))"
    )
    database.execute(
        "create table places (country varchar(2) not null, code varchar(9) not null, "
        "name varchar(50), primary key (country, code))"
    )


def rows(source: Database, target: Database) -> None:
    """Ann, José and Bob are on both sides, Cy twice there, Dan twice here, Eve and Zoe alone."""
    source.execute(
        "insert into users (id, email, name, born) values (1, 'Ann@x.org', 'Ann', null), "
        "(2, null, 'José', '24.12.2001'), (3, 'bob@x.org', 'Bob', null), "
        "(4, 'cy@x.org', 'Cy', null), (5, 'dan@x.org', 'Dan', null), (6, 'Dan@x.org', 'Dan', null),"
        " (7, 'eve@x.org', 'Eve', null)"
    )
    source.execute(
        "insert into orders (id, user_id, number, total) values (1, 1, 1, 5.5), (2, 2, 1, 6), "
        "(3, 7, 1, 7)"
    )
    source.execute("insert into places values ('de', 'B1', 'Berlin'), ('fr', 'B1', 'Paris')")
    target.execute(
        "insert into users (id, email, name, born) values (101, ' ann@X.org ', 'Anne', null), "
        f"(102, '', '{NFD.upper()}', '2001-12-24'), (103, 'BOB@x.org', 'Bob', null), "
        "(104, 'cy@x.org', 'Cy', null), (105, 'CY@x.org', 'Cy', null), "
        "(106, 'dan@x.org', 'Dan', null), (107, 'zoe@x.org', 'Zoe', null)"
    )
    target.execute(
        "insert into orders (id, user_id, number, total) values (51, 102, 1, 6.00), "
        "(52, 101, 1, 5.51), (53, 107, 1, 9)"
    )
    target.execute("insert into places values ('fr', 'B1', 'Lyon'), ('it', 'B1', 'Roma')")
    for database in (source, target):
        for country in ("es", "pt"):
            database.execute(
                marked(database, "insert into places values (%s, %s, '')"), country, ODD
            )


def marked(database: Database, sql: str) -> str:
    """The statement with this driver's marks for values."""
    return sql.replace("%s", "?") if scheme(database) == "sqlite" else sql


@contextmanager
def started(source: Database, target: Database, folder: Path) -> Iterator[Pipeline]:
    """A pipeline between the two, whose file says by which keys they are matched."""
    for database in (source, target):
        tables(database)
    rows(source, target)
    with pipeline(folder, a_name(), source, {"branch": target}, "sqlite") as flow:
        schema = schema_of(source)
        flow.target_settings["match"] = {f"{schema}.{name}": m for name, m in MATCH.items()}
        flow.configure()
        yield flow


DIRECTIONS = ("mysql-postgres", "postgres-mariadb", "mariadb-mysql", "postgres-postgres",
              "mysql-sqlite")  # fmt: skip


@pytest.fixture
def flow(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    source, target = (
        new_database(request.getfixturevalue(kind)) for kind in request.param.split("-")
    )
    with started(source, target, tmp_path) as made:
        yield made


@pytest.fixture
def postgres_flow(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    with started(new_database(postgres), new_database(postgres), tmp_path) as made:
        yield made


def matched(flow: Pipeline, *, apply: bool = False, said: Said = lambda what, rows: None) -> Report:
    return enrol(flow.config, flow.name, "branch", apply=apply, said=said)


def ids(database: Database, table: str = "users", key: str = "id") -> dict[str, str | None]:
    found = database.query(f"select {key}, sync_id from {table}")
    return {str(k): None if i is None else str(i) for k, i in found}


def everything(database: Database, table: str) -> list[tuple[object, ...]]:
    """Rows without their ids."""
    names = {"users": "id, email, name, born", "orders": "id, user_id, number, total",
             "places": "country, code, name"}  # fmt: skip
    touched = table == "users" and scheme(database) in ("mysql", "mariadb")
    more = ", touched" if touched else ""
    return database.query(f"select {names[table]}{more} from {table} order by 1, 2")


@pytest.mark.parametrize("flow", DIRECTIONS, indirect=True)
def test_rows_with_one_partner_get_its_id_and_no_other_row_is_touched(flow: Pipeline) -> None:
    """T25, T26, T10: what is ambiguous or only there is reported, and stays as it is."""
    source, target = flow.source, flow.targets["branch"]
    before = {(d.name, t): everything(d, t) for d in (source, target) for t in MATCH}
    with unchanged(source) if scheme(target) == "sqlite" else unchanged(source, target):
        planned = matched(flow)
    report = matched(flow, apply=True)
    assert {(d.name, t): everything(d, t) for d in (source, target) for t in MATCH} == before
    users, orders, places = (
        next(f for f in report.tables if f.table.endswith(name)) for name in MATCH
    )
    here, there = ids(source), ids(target)
    assert None not in here.values()
    given = {"101": here["1"], "102": here["2"], "103": here["3"]}
    alone = dict.fromkeys(("104", "105", "106", "107"))
    assert there == given | alone
    assert users.matched_by == {"email": 2, "name + born": 1}
    assert [(g.reason, g.source_keys, g.target_keys) for g in users.ambiguous] == [
        (MANY, [4], [104, 105]),
        (MANY, [5, 6], [106]),
    ]
    assert (users.only_source_keys, users.only_target_keys) == ([7], [107])
    assert users.differing_by == {"email": 3, "name": 2, "born": 1}
    lines_here, lines = ids(source, "orders"), ids(target, "orders")
    assert lines == {"51": lines_here["2"], "52": lines_here["1"], "53": None}
    assert (orders.differing, orders.differing_by) == (1, {"total": 1})
    codes_here, codes = (ids(d, "places", "country") for d in (source, target))
    same = {country: codes_here[country] for country in ("es", "fr", "pt")}
    assert codes == same | {"it": None}
    assert (places.only_source_keys, places.differing_by) == ([["de", "B1"]], {"name": 1})
    # The dry run had said the same, statements included.
    assert [(f.table, f.matched, f.ambiguous) for f in planned.tables] == [
        (f.table, f.matched, f.ambiguous) for f in report.tables
    ]
    assert planned.steps == report.steps


@pytest.mark.parametrize("flow", DIRECTIONS[1:3], indirect=True)
def test_a_second_run_finds_all_done_and_new_rows_have_ids_by_themselves(flow: Pipeline) -> None:
    source, target = flow.source, flow.targets["branch"]
    matched(flow, apply=True)
    before = ids(target)
    source.execute("insert into users (id, name) values (99, 'Flo')")
    assert None not in ids(source).values()
    again = matched(flow, apply=True)
    assert again.steps == {"source": [], "target": []}
    assert [f.assigned for f in again.tables] == [0, 0, 0]
    assert ids(target) == before
    recorded = target.query("select count(*) from headwater_enrolled where undone_at is null")
    assert recorded == [(8,)]


@pytest.mark.parametrize("flow", DIRECTIONS[:2], indirect=True)
def test_rows_that_change_meanwhile_are_left_and_named(flow: Pipeline) -> None:
    """T28: neither a key that changed at the source nor one in the target leaves a stale pair."""
    source, target = flow.source, flow.targets["branch"]

    def somebody(what: str, rows: int) -> None:
        if what.startswith("matches") and what.endswith("users"):
            source.execute("update users set email = 'other@x.org' where id = 1")
            target.execute("update users set email = 'new@x.org' where id = 103")

    report = matched(flow, apply=True, said=somebody)
    users = next(f for f in report.tables if f.table.endswith("users"))
    orders = next(f for f in report.tables if f.table.endswith("orders"))
    there = ids(target)
    assert [key for key, value in there.items() if value is not None] == ["102"]
    changed = [(g.source_keys, g.target_keys) for g in users.ambiguous if g.reason == CHANGED]
    assert sorted(changed) == [([1], [101]), ([3], [103])]
    # A child whose parent has no match has none either.
    assert (orders.assigned, orders.only_target_keys) == (1, [52, 53])


def test_a_run_that_was_killed_is_run_again(postgres_flow: Pipeline) -> None:
    """Killed while it fills ids at the source, and while it gives them; a half-made index is made
    anew.
    """
    flow, target = postgres_flow, postgres_flow.targets["branch"]
    waits = "select count(*) from pg_stat_activity where datname = %s and wait_event_type = 'Lock'"
    target.execute("alter table users add column sync_id uuid")
    twice = "update users set sync_id = '00000000-0000-4000-8000-000000000000' where id > 105"
    target.execute(twice)
    with pytest.raises(Exception, match="could not create unique index"):
        target.execute("create unique index concurrently users_half on users (sync_id)")
    target.execute("update users set sync_id = null")
    for database, row in ((flow.source, 3), (target, 103)):
        with closing(database.connect()) as somebody, somebody.cursor() as cursor:
            cursor.execute("begin")
            cursor.execute(f"select * from users where id = {row} for update")
            worker = flow.start("enrol", flow.name, "branch", "--apply")
            until(lambda d=database: d.query(waits, d.name) != [(0,)], "the lock")  # type: ignore[misc]
            worker.kill()
            cursor.execute("rollback")
        until(lambda d=database: d.query(waits, d.name) == [(0,)], "its end")  # type: ignore[misc]
    flow.run("enrol", flow.name, "branch", "--apply")
    here, there = ids(flow.source), ids(target)
    assert {k: v for k, v in there.items() if v} == {
        "101": here["1"], "102": here["2"], "103": here["3"]
    }  # fmt: skip
    assert target.query("select count(*) from headwater_enrolled") == [(8,)]
    assert target.query("select count(*) from pg_indexes where indexname = 'users_half'") == [(0,)]


@pytest.mark.parametrize("flow", [DIRECTIONS[2], DIRECTIONS[4]], indirect=True)
def test_a_person_resolves_one_of_many_and_takes_it_back(flow: Pipeline) -> None:
    """T26: only that one is assigned; T30: both rows are kept, and so is the history."""
    source, target, users = flow.source, flow.targets["branch"], f"{schema_of(flow.source)}.users"
    matched(flow, apply=True)
    flow.run("enrol", "assign", "branch", users, "--source-key", "5", "--target-key", "106")
    identity, bob = ids(source)["5"], ids(target)["103"]
    assert ids(target)["106"] == identity
    assert identity is not None
    assert bob is not None
    before = everything(target, "users")
    with both_sides(flow.config, "branch") as both:
        twin = next(t for t in both_twins(flow.config, "branch", both) if t.name == users)
        for here, there in (("6", "106"), ("5", "107"), ("9", "107"), ("6", "9")):
            with pytest.raises(Misconfigured, match=r"partner|found no row"):
                resolve(both, twin, f"[{here}]", f"[{there}]")
        assert undo(both, twin, [bob], mint=True) == [("[103]", ids(target)["103"])]
        assert ids(target)["103"] not in (None, bob)
        with pytest.raises(Misconfigured, match="no assignment"):
            undo(both, twin, [identity, bob], mint=False)
    assert ids(target)["106"] == identity, "all of them or none"
    said = flow.run("enrol", "undo", "branch", users, identity)
    assert f"headwater snapshot {flow.name} {users} --for branch --id {identity}" in said
    assert everything(target, "users") == before
    assert ids(target)["106"] is None
    lines = "select rule, undone_at is null from headwater_enrolled where identity in (%s, %s)"
    assert sorted(target.query(marked(target, lines), identity, bob)) == [
        ("by hand", 0),
        ("email", 0),
    ]
    # What was undone by hand is not done again.
    after = ids(target)
    matched(flow, apply=True)
    assert ids(target) == after


@pytest.mark.parametrize("flow", [DIRECTIONS[0]], indirect=True)
def test_children_of_an_undone_match_follow_the_sources_row(flow: Pipeline) -> None:
    """T30: the wrong partner and its own orders stay; the source's row comes, with its orders."""
    target, users = flow.targets["branch"], f"{schema_of(flow.source)}.users"
    flow.configure(exclude_columns=[f"{users}.touched"])
    matched(flow, apply=True)
    flow.prepare()
    flow.capture()
    flow.run("catch-up", "branch")
    assert flow.verify("branch").count == 0
    identity = ids(target)["101"]
    assert identity is not None
    target.execute("insert into orders (id, user_id, number) values (99, 101, 7)")
    said = flow.run("enrol", "undo", "branch", users, identity)
    for command in re.findall(r"^  headwater (snapshot .*)$", said, re.MULTILINE):
        flow.run(*command.split())
    flow.run("apply", "branch", "--once")
    ((mine,),) = target.query("select id from users where sync_id = %s", identity)
    assert mine not in (101, 107)
    owners = dict(target.query("select id, user_id from orders"))
    assert (owners[52], owners[99], owners[53]) == (mine, 101, 107)
    assert target.query("select name, sync_id from users where id = 101") == [("Ann", None)]
    assert flow.verify("branch").count == 0


def test_keys_that_cannot_work_are_refused_before_anything_is_written(
    postgres_flow: Pipeline,
) -> None:
    flow = postgres_flow
    for key, error, words in (
        (["mail"], Misconfigured, "no column mail"),
        (["id"], Misconfigured, "differ from database to database"),
        (["sync_id"], Misconfigured, "no column sync_id"),
    ):
        flow.target_settings["match"] = {"public.users": {"keys": [key]}}
        flow.configure()
        with unchanged(flow.source, flow.targets["branch"]), pytest.raises(error, match=words):
            matched(flow, apply=True)
    for database in (flow.source, flow.targets["branch"]):
        database.execute("alter table users add column boss bigint references users (id)")
    flow.target_settings["match"] = {"public.users": {"keys": [["boss", "name"]]}}
    flow.configure()
    with pytest.raises(SchemaConflict, match="matched no earlier"):
        matched(flow)
    flow.target_settings["match"] = {"public.person": {"keys": [["name"]]}}
    flow.configure()
    with pytest.raises(Misconfigured, match=r"public\.person"):
        matched(flow)


@pytest.mark.parametrize("flow", DIRECTIONS[:2], indirect=True)
def test_one_id_of_two_rows_is_said_and_the_rest_goes_on_once_it_is_mended(flow: Pipeline) -> None:
    source = flow.source
    kind = "uuid" if scheme(source) == "postgresql" else "char(36)"
    source.execute(f"alter table users add column sync_id {kind}")
    source.execute("update users set sync_id = '00000000-0000-4000-8000-000000000000' where id > 5")
    with pytest.raises(Operator, match=r"rows of .*users in the source that have one sync_id"):
        matched(flow, apply=True)
    source.execute("update users set sync_id = null where id > 6")
    report = matched(flow, apply=True)
    assert sorted(f.assigned for f in report.tables) == [2, 3, 3]
    assert len(set(ids(source).values())) == 7


def test_columns_that_the_target_calls_otherwise_are_compared(postgres_flow: Pipeline) -> None:
    flow = postgres_flow
    flow.targets["branch"].execute("alter table users rename column name to called")
    flow.target_settings["exceptions"] = {
        "public.users": {"rename": {"name": "called"}, "own": ["email"]}
    }
    flow.configure()
    users = next(f for f in matched(flow).tables if f.table == "public.users")
    assert (users.matched, users.differing_by) == (3, {"name": 2, "born": 1})


def test_declared_references_are_no_differing_values(postgres_flow: Pipeline) -> None:
    """Both sides' keys are others: of a column, and in documents."""
    flow = postgres_flow
    for database, key in ((flow.source, 1), (flow.targets["branch"], 101)):
        database.execute("alter table orders add referred_by bigint, add facts jsonb")
        database.execute(f"update orders set referred_by = {key}, facts = '{{\"user\": {key}}}'")
    flow.target_settings["references"] = {
        "public.orders.referred_by": "public.users.id",
        "public.orders.facts": {"at": {"$.user": "public.users.id"}},
    }
    flow.configure()
    orders = next(f for f in matched(flow).tables if f.table == "public.orders")
    assert (orders.matched, orders.differing_by) == (2, {"total": 1})


def test_the_page_and_the_document_say_the_same(postgres_flow: Pipeline) -> None:
    flow = postgres_flow
    flow.source.execute("create table notes (id bigserial primary key, text text)")
    said = flow.run("enrol", flow.name, "branch", "--report", "report.md", "--limit", "1", "--json")
    document = json.loads(said)
    users = next(t for t in document["tables"] if t["table"] == "public.users")
    assert (users["matched"], users["ambiguous_source"], users["ambiguous_target"]) == (3, 3, 3)
    assert len(users["ambiguous"]) == 1
    page = (flow.folder / "report.md").read_text()
    assert "| public.notes |  | is not there |" in page
    assert "| public.users | 7 | 7 | 3 | 0 | 3 / 3 | 1 | 1 | 3 |" in page
    assert f"| email | {MANY} | 4 | 104, 105 |".replace("104, 105", "104") in page
    assert "CREATE UNIQUE INDEX CONCURRENTLY users_sync_id_key ON public.users (sync_id);" in page
