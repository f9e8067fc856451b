"""What a binlog holds besides single-row changes: read once, and resumed in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import Transient
from tests.conformance.sources import Change, Tap, afters, mysql_source
from tests.services import mariadb as mariadbd
from tests.services import mysql as mysqld
from tests.services.database import Database, fresh
from tests.services.server import Server

TABLE = "(id int primary key, sync_id varchar(40) not null unique, n int)"


@pytest.fixture(params=["mysql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param}_db")
    found.execute(f"create table t {TABLE}; create table u {TABLE}")
    return found


def said(changes: list[Change]) -> list[str]:
    return [f"{c.op} {c.table} {c.key and c.key['sync_id']}" for c in changes]


WRITES = {
    "several tables in one statement": (
        "insert into t values (1, 'a', 1), (2, 'b', 2); insert into u values (1, 'x', 1),"
        " (2, 'y', 2); update t join u using (id) set t.n = 9, u.n = 8 where id = 1;"
        " delete t, u from t join u using (id) where id = 2",
        "c t a,c t b,c u x,c u y,u t a,u u x,d t b,d u y",
    ),
    "a trigger": (
        "create trigger w after insert on t for each row insert into u"
        " values (new.id, concat('u', new.id), 0); insert into t values (1, 'a', 1), (2, 'b', 2)",
        "c t a,c t b,c u u1,c u u2",
    ),
    "created and filled at once": (
        "insert into t values (1, 'a', 1); create table v (primary key (id)) as select * from t;"
        " insert into v values (2, 'b', 1)",
        "c t a,c v a,c v b",
    ),
    "ddl between": (
        "insert into t values (1, 'a', 1); alter table t add x int; flush tables;"
        " insert into t values (2, 'b', 1, 2); create view w as select * from t;"
        " analyze table t; create table v like t; grant select on t to headwater;"
        " insert into t values (3, 'c', 1, 2)",
        "c t a,c t b,c t c",
    ),
    "another engine": (
        f"create table m {TABLE} engine = myisam; insert into m values (1, 'm', 1);"
        " begin; insert into t values (1, 'a', 1); rollback; update m set n = 2;"
        " insert into t values (2, 'b', 1)",
        "c m m,u m m,c t b",
    ),
    "not logged": (
        "insert into t values (1, 'a', 1); set sql_log_bin = 0; insert into t values (2, 'b', 1);"
        " create table hidden (id int); drop table u; set sql_log_bin = 1;"
        " insert into t values (3, 'c', 1)",
        "c t a,c t c",
    ),
    "one column": (
        "create table k (sync_id varchar(9) primary key); insert into k values ('a'), ('b');"
        " update k set sync_id = 'c' where sync_id = 'a'; update k set sync_id = 'b'"
        " where sync_id = 'b'; delete from k",
        "c k a,c k b,d k a,c k c,d k b,d k c",
    ),
    "nothing in it": (
        "begin; commit; begin; insert into t values (1, 'a', 1); rollback;"
        " begin; update t set n = 1; commit; savepoint s; insert into t values (2, 'b', 1)",
        "c t b",
    ),
    "another log file": (
        "insert into t values (1, 'a', 1); flush binary logs; insert into t values (2, 'b', 1);"
        " flush logs; update t set n = 5",
        "c t a,c t b,u t a,u t b",
    ),
}


@pytest.mark.parametrize("what", WRITES)
def test_what_was_written_is_read_and_resumed_between_its_transactions(
    database: Database, what: str
) -> None:
    statements, listed = WRITES[what]
    expected = listed.split(",")
    with Tap(mysql_source(database)) as tap:
        start = tap.position
        database.execute(statements)
        assert sorted(said(tap.drain())) == sorted(expected)
    with Tap(mysql_source(database, batch_rows=1), after=start) as tap:
        in_order = said(tap.drain())
        batches = tap.batches
    assert sorted(in_order) == sorted(expected)
    given = 0
    for batch in [b for b in batches if any(piece.rows for piece in b)][:2]:
        given += sum(len(rows) for piece in batch for rows in piece.rows)
        assert batch[-1].commit is not None
        with Tap(mysql_source(database), after=batch[-1].commit.position) as tap:
            assert said(tap.drain()) == in_order[given:]


def test_rows_of_another_engine_stay_when_a_transaction_is_rolled_back(
    mariadb_db: Database,
) -> None:
    """MySQL forbids such transactions where GTIDs are on."""
    mariadb_db.execute(f"create table t {TABLE}; create table m {TABLE} engine = myisam")
    with Tap(mysql_source(mariadb_db)) as tap:
        mariadb_db.execute(
            "begin; insert into t values (1, 'a', 1); insert into m values (1, 'm', 1); rollback;"
            "insert into t values (2, 'b', 1)"
        )
        assert said(tap.drain()) == ["c m m", "c t b"]


def test_an_empty_transaction_moves_the_position(mysql_db: Database) -> None:
    """What a filter or an operator leaves behind: a GTID around nothing."""
    mysql_db.execute(f"create table t {TABLE}")
    number = int(mysql_db.name[2:], 16) % 10**12
    uuid = f"bbbbbbbb-0000-0000-0000-{number:012d}"
    with Tap(mysql_source(mysql_db)) as tap:
        mysql_db.execute(
            f"set gtid_next = '{uuid}:1'; begin; commit; set gtid_next = '{uuid}:2'; commit;"
            "set gtid_next = 'automatic'; insert into t values (1, 'a', 1)"
        )
        assert said(tap.drain()) == ["c t a"]
        assert f"{uuid}:1-2" in str(tap.position)


def test_heartbeats_are_no_changes(database: Database) -> None:
    """An idle stream gives a beat each second, whatever the server sends meanwhile."""
    with Tap(mysql_source(database)) as tap:
        tap.drain()
        position = tap.position
        beats = [next(tap.pieces) for _ in range(3)]
        assert all(b.commit and not b.rows and b.commit.transactions == 0 for b in beats)
        database.execute("insert into t values (1, 'a', 1)")
        assert said(tap.drain()) == ["c t a"]
        assert tap.position != position


@pytest.mark.parametrize("width", [63, 64, 65, 130, 300])
def test_wide_tables_have_every_null_in_its_place(database: Database, width: int) -> None:
    names = [f"c{i}" for i in range(width)]
    columns = ", ".join(f"{n} {('int', 'varchar(9)')[i % 2]}" for i, n in enumerate(names))
    database.execute(f"create table w (sync_id varchar(9) primary key, {columns})")

    def row(key: str, step: int) -> dict[str, Any]:
        values = [None if i % step == 0 else (i if i % 2 == 0 else f"v{i}") for i in range(width)]
        return {"sync_id": key, **dict(zip(names, values, strict=True))}

    rows = [row("a", 7), row("b", 2), row("c", 1), row("d", 10**6)]
    with Tap(mysql_source(database)) as tap:
        for one in rows:
            values = ", ".join("null" if v is None else repr(v) for v in one.values())
            database.execute(f"insert into w values ({values})")
        assert [c.after for c in tap.drain()] == rows
        database.execute(f"update w set c{width - 1} = null")
        changed = [c for c in tap.drain() if c.op == "u"]
        assert [c.before for c in changed] == [r for r in rows if r[f"c{width - 1}"] is not None]
        assert all(c.after == c.before | {f"c{width - 1}": None} for c in changed)
        found = tap.source.chunk(
            next(t for t in tap.source.describe() if t.name == "w"), None, 9, epoch=1, run=1
        )
        assert [json.loads(image) for image in afters(found)] == [
            r | {f"c{width - 1}": None} for r in rows
        ]


def test_rows_and_transactions_longer_than_a_packet(database: Database) -> None:
    """H13: events of several packets, between small ones, in one transaction of 60 MB."""
    (limit,) = database.query("select @@global.max_allowed_packet")[0]
    size = min(int(limit) // 2, 17_000_000)
    database.execute("create table w (sync_id varchar(9) primary key, a longtext, b longtext)")
    with Tap(mysql_source(database)) as tap:
        database.execute(
            f"begin; insert into t values (1, 'a', 1); insert into w values"
            f" ('x', repeat('x', {size}), repeat('y', {size})); insert into t values (2, 'b', 1);"
            f" update w set a = 'z'; insert into t values (3, 'c', 1); commit"
        )
        changes = tap.drain()
        assert said(changes) == ["c t a", "c w x", "c t b", "u w x", "c t c"]
        assert (len(changes[1].after["a"]), len(changes[3].before["b"])) == (size, size)
        assert len([b for b in tap.batches if any(p.rows for p in b)]) == 1


@pytest.fixture(params=["mysql", "mariadb"])
def private(request: pytest.FixtureRequest, server_dir: Path) -> Iterator[Server]:
    module = mysqld if request.param == "mysql" else mariadbd
    with module.start(server_dir) as server:
        yield server


def test_a_servers_restart_is_a_lost_connection_and_then_nothing(private: Server) -> None:
    """Table ids begin anew, the log has another file, and a stop stands between."""
    with fresh(private) as database:
        database.execute(f"create table t {TABLE}; create table u {TABLE}")
        with Tap(mysql_source(database)) as tap:
            start = tap.position
            database.execute("insert into u values (1, 'x', 1); insert into t values (1, 'a', 1)")
            assert said(tap.drain()) == ["c u x", "c t a"]
            position = tap.position
            private.restart()
            with pytest.raises(Transient):
                list(tap.pieces)
        database.execute("insert into t values (2, 'b', 1); insert into u values (2, 'y', 1)")
        for after, expected in ((position, []), (start, ["c u x", "c t a"])):
            with Tap(mysql_source(database), after=after) as tap:
                assert said(tap.drain()) == [*expected, "c t b", "c u y"]
