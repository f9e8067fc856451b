"""Statements that stop a table, and the ways on: copy it anew, or leave it out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capture.pace import Pace
from capture.snapshot import with_copies
from schemas.change import Progress, Stamp
from schemas.errors import Unsupported
from tests.conformance.resyncing import NAME, TABLE, assert_equal, capture, insert, replay
from tests.conformance.sources import Tap, mysql_source
from tests.faults.pipeline import pipeline
from tests.services.database import Database
from tests.services.server import Server
from transport.log import Opened
from transport.memory import MemoryLog, MemoryStore


@pytest.fixture(params=["mysql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param}_db")
    found.execute(f"create table t {TABLE}")
    return found


LOSSES = {
    "dropped": f"drop table t; create table t {TABLE}; insert into t values (2, 'k2', 1)",
    "dropped for another": "drop table t; create table t (sync_id varchar(9) primary key, n int,"
    " id int, extra int); insert into t values ('k9', 1, 9, 9)",
    "swapped by gh-ost": f"create table _n {TABLE}; insert into _n select * from t where id < 4;"
    " insert into _n values (7, 'k7', 7); rename table t to _o, _n to t",
    "swapped by hand": f"create table _n {TABLE}; insert into _n values (8, 'k8', 8);"
    " rename table t to _x, _n to t, _x to _n",
    "altered into another": "create table _n like t; alter table t rename to _o;"
    " alter table _n rename to t; insert into t values (5, 'k5', 5)",
    "replaced unseen": "set sql_log_bin = 0; alter table t add column x int default 4;"
    " update t set n = n + 1; set sql_log_bin = 1; insert into t values (50, 'k50', 5, 5)",
    "half images": "set binlog_row_image = minimal; update t set n = n + 1",
    "by statement": "set binlog_format = statement; update t set n = n + 1 where id > 2",
    "partitions": f"create table _n {TABLE}; alter table _n drop index sync_id;"
    " drop table t; create table t (id int primary key, sync_id varchar(40) not null, n int)"
    " partition by range (id) (partition p values less than (3), partition q values less than (9));"
    " insert into t values (1, 'k1', 1), (4, 'k4', 4); insert into _n values (2, 'k2', 9);"
    " alter table t exchange partition p with table _n; alter table t truncate partition q;"
    " insert into t values (5, 'k5', 5); alter table t drop partition q",
}
OTHERS = ("*._*",)


@pytest.mark.parametrize("how", LOSSES)
def test_a_table_that_stopped_the_capture_is_copied_anew(database: Database, how: str) -> None:
    """H115, H116, H120, T65: killed twice on the way, and begun again."""
    store = MemoryStore()
    insert(database, "t", *range(1, 8))
    capture(database, store, again=("t",), exclude=OTHERS)
    assert_equal(database, store, "t")
    insert(database, "t", 8)
    database.execute(LOSSES[how])
    with pytest.raises(Unsupported) as caught:
        capture(database, store, exclude=OTHERS)
    assert f"headwater snapshot {NAME} {database.name}.t" in caught.value.hint
    for pieces in (2, 3):
        capture(database, store, again=("t",), pieces=pieces, exclude=OTHERS)
    insert_more = "insert into t (id, sync_id, n) values (60, 'k60', 1)"
    if how != "partitions":
        database.execute(insert_more)
    capture(database, store, again=("t",), exclude=OTHERS)
    assert_equal(database, store, "t")


def test_a_copy_that_was_begun_goes_on_in_a_plain_capture(database: Database) -> None:
    """Killed between the truncate and the first chunk: the copy is as durable as the loss."""
    store = MemoryStore()
    insert(database, "t", *range(1, 8))
    capture(database, store, again=("t",), exclude=OTHERS)
    database.execute(LOSSES["swapped by gh-ost"])
    for pieces in range(1, 6):
        capture(database, store, again=("t",), pieces=pieces, exclude=OTHERS)
        if not replay(store):
            break
    capture(database, store, resumes=True, exclude=OTHERS)
    assert_equal(database, store, "t")


def test_a_table_lost_in_the_middle_of_its_copy_is_copied_from_the_start(
    database: Database,
) -> None:
    store = MemoryStore()
    insert(database, "t", *range(1, 30))
    database.execute(f"create table a {TABLE}")
    insert(database, "a", *range(1, 5))
    capture(database, store, again=("t", "a"), pieces=6, exclude=OTHERS)
    assert replay(store)["t"]
    database.execute("create table _n like t; insert into _n select * from t where id < 20")
    database.execute("create table _m like a; insert into _m select id + 1, sync_id, n from a")
    database.execute("rename table t to _o, _n to t; rename table a to _p, _m to a")
    capture(database, store, again=("t", "a"), resumes=True, exclude=OTHERS)
    assert_equal(database, store, "t", "a")


def test_a_lost_table_takes_those_that_refer_to_it_along(database: Database) -> None:
    """A target gives the parents new primary keys, which the children must be told."""
    database.execute(
        "create table c (id int primary key, sync_id varchar(40) not null unique, n int,"
        " foreign key (n) references t (id))"
    )
    insert(database, "t", 10)
    database.execute("insert into c values (1, 'c1', 10)")
    store = MemoryStore()
    capture(database, store, again=("t", "c"))
    database.execute(
        f"set foreign_key_checks = 0; drop table t; create table t {TABLE};"
        "insert into t values (10, 'k10', 4)"
    )
    with pytest.raises(Unsupported) as caught:
        capture(database, store, again=("t",))
    assert f"{database.name}.t {database.name}.c" in caught.value.hint
    capture(database, store, again=("t", "c"))
    assert_equal(database, store, "t", "c")
    (batch,) = [b for b in MemoryLog(NAME, store).read(None, follow=False) if b and b.truncates]
    assert [t.table.partition(".")[2] for t in batch.truncates] == ["t", "c"]


@pytest.mark.parametrize(
    "statement", ["drop table t", "rename table t to u", "drop database {0}; create database {0}"]
)
def test_a_table_that_is_left_out_stops_nothing(database: Database, statement: str) -> None:
    """The error says what to leave out; what it says is enough."""
    database.execute(f"create table other {TABLE}; create table u {TABLE}")
    if "rename" in statement:
        database.execute("drop table u")
    store = MemoryStore()
    capture(database, store)
    database.execute(statement.format(database.name))
    exclude: tuple[str, ...] = ()
    for _ in range(3):
        try:
            capture(database, store, exclude=exclude)
            break
        except Unsupported as error:
            (said,) = re.findall(r"exclude = (\[.*?\])", error.hint)
            exclude += tuple(json.loads(said))
    if "database" in statement:
        assert exclude == (f"{database.name}.*",)
    else:
        assert f"{database.name}.other" not in exclude
        insert(database, "other", 1)
        capture(database, store, exclude=exclude)
        assert_equal(database, store, "other")


def test_a_dropped_and_restored_database_is_copied_anew(database: Database) -> None:
    store = MemoryStore()
    database.execute(f"create table u {TABLE}")
    insert(database, "t", 1, 2)
    insert(database, "u", 3)
    capture(database, store, again=("t", "u"))
    name = database.name
    database.execute(f"drop database {name}; create database {name}; use {name}")
    database.execute(f"create table u {TABLE}; create table t {TABLE}")
    insert(database, "t", 2, 4)
    with pytest.raises(Unsupported) as caught:
        capture(database, store, again=("t",))
    assert f"headwater snapshot {NAME} {name}.t {name}.u" in caught.value.hint
    capture(database, store, again=("t", "u"))
    assert_equal(database, store, "t", "u")


def test_labels_that_the_catalog_cannot_show_hold_up_no_copy(database: Database) -> None:
    """The stream knows them, the catalog shows question marks: a chunk stands beside both."""
    database.execute(
        "drop table t; create table t (id int primary key, sync_id varchar(9) not null unique,"
        " n enum('a', '\U0001f600') character set utf8mb4)"
    )
    database.execute("insert into t values (1, 'k1', '\U0001f600'), (2, 'k2', 'a')")
    name = f"{database.name}.t"
    with Tap(mysql_source(database)) as tap:
        wanted: Progress = {name: {"what": "rows", "after": None, "done": False}}
        opened = Opened(Stamp(epoch=1), tap.position, wanted)
        pieces = with_copies(tap.source, opened, {}, pace=Pace(rows=1))
        held: dict[bytes, Any] = {}
        for number, piece in enumerate(pieces, start=3):
            for rows in piece.rows:
                held |= {
                    key: json.loads(v)["after"]
                    for key, v in zip(rows.keys, rows.values, strict=True)
                }
            if piece.commit and all(s["done"] for s in (piece.commit.progress or wanted).values()):
                break
            assert number < 60
            database.execute(f"update t set n = {number % 2 + 1} where id = 2")
        assert held[b'{"sync_id":"k1"}']["n"] == "\U0001f600"
        (described,) = tap.source.describe()
        assert "?" not in described.by_name["n"].native


def test_temporary_tables_come_and_go(database: Database) -> None:
    """Also where they hide a captured table, and where a session ends with them."""
    insert(database, "t", 1)
    with Tap(mysql_source(database)) as tap:
        database.execute(
            f"create temporary table t {TABLE}; insert into t values (7, 'k7', 7); drop table t;"
            f"create temporary table x {TABLE}; drop temporary table if exists x, y;"
            f"create temporary table t {TABLE}; insert into t values (8, 'k8', 8);"
            "drop /*!40005 temporary */ table if exists t"
        )
        database.execute(f"create temporary table t {TABLE}; insert into t values (9, 'k9', 9)")
        insert(database, "t", 2)
        assert [c.key["sync_id"] for c in tap.drain()] == ["k2"]


def test_a_drop_of_a_table_that_nobody_saw_stops_as_well(database: Database) -> None:
    """The source cannot know whether the log, or a first copy, ever had its rows."""
    with Tap(mysql_source(database)) as tap:
        database.execute("drop table if exists never_there")
        with pytest.raises(Unsupported, match="dropped") as caught:
            tap.drain()
        assert f'exclude = ["{database.name}.never_there"]' in caught.value.hint


@pytest.mark.parametrize("kind", ["mysql", pytest.param("mariadb", marks=pytest.mark.full)])
def test_the_command_brings_a_lost_table_and_its_children_to_a_target(
    kind: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    new_database: Callable[[Server], Database],
    tmp_path: Path,
) -> None:
    """From the stop to equality with what the error said, killed twice on the way."""
    source, target = new_database(request.getfixturevalue(kind)), new_database(postgres)
    child = f"{TABLE[:-1]}, foreign key (n) references t (id))"
    source.execute(f"create table t {TABLE}; create table c {child}")
    insert(source, "t", *range(1, 6))
    source.execute("insert into c values (1, 'c1', 1), (2, 'c2', 5)")
    with pipeline(tmp_path, f"shop_{source.name}", source, {"branch": target}, "sqlite") as flow:
        flow.configure(chunk_rows=2)
        flow.prepare()
        flow.run("snapshot", flow.name)
        flow.run("apply", "branch", "--once")
        source.execute(
            f"set foreign_key_checks = 0; drop table t; create table t {TABLE};"
            "insert into t values (5, 'k1', 4), (6, 'k6', 4); delete from c where id = 1"
        )
        stopped = flow.capture()
        assert stopped.wait() == 78
        (said,) = re.findall(r"run: headwater (snapshot [^(]+) \(", stopped.said)
        for fault in ("after-append:1", "after-commit-record:2"):
            assert flow.start(*said.split(), fault=fault).wait() == -9
            flow.run("apply", "branch", "--once")
        flow.run(*said.split())
        flow.run("apply", "branch", "--once")
        assert {t.verdict for t in flow.verify("branch").tables} == {"valid"}
