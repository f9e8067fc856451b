"""A source that is polled, on every server, by an account that may SELECT and nothing else."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from capture.polling import Polling, PollingSource
from capture.polling_mysql import MySQLReader
from capture.polling_position import before
from capture.polling_postgres import PostgresReader
from capture.polling_reader import Reader
from ops.prepare import prepare_all
from schemas.change import Position
from schemas.errors import Misconfigured, Operator, Poison
from schemas.kinds import Kind
from schemas.selection import Selection
from tests.acceptance.test_operator_errors import a_name, family
from tests.conformance.sources import Tap
from tests.faults.pipeline import pipeline, schema_of, until
from tests.services.database import Database
from tests.services.server import Server

NewDatabase = Callable[[Server], Database]
KINDS = ("postgres", "mysql", "mariadb")
TABLES = """
create table parents (id int primary key, sync_id varchar(40) not null unique, name varchar(20),
  changed timestamp(6) not null default current_timestamp(6), gone boolean not null default false);
create table children (id int primary key, sync_id varchar(40) not null unique, parent_id int,
  changed timestamp(6) not null default current_timestamp(6), gone boolean not null default false,
  foreign key (parent_id) references parents (id));
create index parents_changed on parents (changed);
"""
ADD = "insert into parents (id, sync_id, name) values ({0}, 'p{0}', '{1}')"


@dataclass
class Shop:
    """A database with two tables, and the URL of an account that may read them."""

    database: Database
    url: str

    def execute(self, sql: str) -> None:
        self.database.execute(sql)

    @property
    def schema(self) -> str:
        return schema_of(self.database)

    def source(self, *, window: float = 60.0, batch_rows: int = 3, **columns: str) -> PollingSource:
        """As the configuration makes it."""
        opens: Any = PostgresReader if family(self.database) == "postgresql" else MySQLReader
        reader: Reader = opens("s", self.url, Selection(include=[f"{self.schema}.*"]))
        polling = Polling(
            version={"*": columns.get("version", "changed")},
            tombstone={"*": columns.get("tombstone", "gone")},
            every_s=0.01,
            window=window,
        )
        return PollingSource("s", reader, polling, batch_rows=batch_rows)


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    """TABLES, and an account of its own."""
    database: Database = request.getfixturevalue(f"{request.param}_db")
    database.execute(TABLES)
    name = f"reads_{secrets.token_hex(4)}"
    url = make_url(database.url).set(username=name, password="reads")
    text = url.render_as_string(hide_password=False)
    if family(database) == "postgresql":
        database.execute(f"create role {name} login password 'reads'")
        database.execute(f"grant select on all tables in schema public to {name}")
        yield Shop(database, text)
        database.execute(f"drop owned by {name}; drop role {name}")
    else:
        database.execute(f"create user {name}@'%' identified by 'reads'")
        # Without REFERENCES MariaDB hides the foreign keys.
        grants = "select, references" if database.server.kind == "mariadb" else "select"
        database.execute(f"grant {grants} on {database.name}.* to {name}@'%'")
        yield Shop(database, text)
        database.execute(f"drop user {name}@'%'")


def seen(tap: Tap) -> list[tuple[str, Any]]:
    """The op and the identity of every change up to now."""
    return [(change.op, change.key["sync_id"]) for change in tap.drain()]


def test_what_is_inserted_changed_and_marked_as_deleted_comes_once(shop: Shop) -> None:
    """Idle means no traffic: what the window shows again as it was is left out."""
    shop.execute(ADD.format(0, "Zoe"))
    with Tap(shop.source()) as tap:
        assert seen(tap) == [("r", "p0")]  # of the window before the start
        for n in range(1, 8):
            shop.execute(ADD.format(n, "Ann"))
        shop.execute("insert into children (id, sync_id, parent_id) values (1, 'c1', 7)")
        assert seen(tap) == [*(("r", f"p{n}") for n in range(1, 8)), ("r", "c1")]
        assert seen(tap) == []
        shop.execute("update parents set name = 'Eve', changed = current_timestamp(6) where id = 2")
        (change,) = tap.drain()
        assert (change.op, change.after["name"], change.before) == ("r", "Eve", None)
        shop.execute(
            "update parents set gone = true, changed = current_timestamp(6) where id in (3, 4)"
        )
        assert seen(tap) == [("d", "p3"), ("d", "p4")]
        shop.execute("update parents set gone = false, changed = current_timestamp(6) where id = 3")
        assert seen(tap) == [("r", "p3")]
        assert seen(tap) == []
        position = tap.position
    with Tap(shop.source(), Position(str(position))) as tap:
        # After a restart the window comes once more; applied again, it changes nothing.
        again = seen(tap)
        assert ("d", "p4") in again
        assert ("r", "p3") in again
        assert seen(tap) == []


def test_a_commit_that_becomes_visible_late_is_in_the_window(shop: Shop) -> None:
    """Its version is older than what was polled meanwhile. Beyond the window it is not seen, which
    the documentation says.
    """
    for key, window in ((5, 60.0), (7, 1.0)):
        with Tap(shop.source(window=window)) as tap, closing(shop.database.connect()) as late:
            late.autocommit = False if family(shop.database) == "postgresql" else late.autocommit
            with late.cursor() as cursor:
                if family(shop.database) == "mysql":
                    cursor.execute("begin")
                past = "timestamp '2026-01-01 00:00:10'"
                cursor.execute(
                    "insert into parents (id, sync_id, name, changed) "
                    f"values ({key}, 'p{key}', 'late', {past})"
                )
                shop.execute(
                    "insert into parents (id, sync_id, name, changed) values "
                    f"({key + 1}, 'p{key + 1}', 'early', timestamp '2026-01-01 00:00:40')"
                )
                assert ("r", f"p{key + 1}") in seen(tap)
                cursor.execute("commit")
            assert seen(tap) == ([("r", f"p{key}")] if window == 60.0 else [])


def test_a_version_from_the_future_hides_nothing(shop: Shop) -> None:
    """One server's clock was wrong once: all that is of today comes all the same, and once."""
    with Tap(shop.source()) as tap:
        shop.execute(
            "insert into parents (id, sync_id, name, changed) values "
            "(1, 'p1', 'Future', timestamp '2037-01-01 00:00:00')"
        )
        assert seen(tap) == [("r", "p1")]
        shop.execute(ADD.format(2, "Now"))
        assert seen(tap) == [("r", "p2")]
        assert seen(tap) == []


def test_versions_may_be_numbers(shop: Shop) -> None:
    shop.execute("alter table parents add version bigint not null default 0")
    shop.execute("alter table children add version bigint not null default 0")
    shop.execute(ADD.format(1, "One"))
    with Tap(shop.source(version="version", window=2)) as tap:
        assert seen(tap) == [("r", "p1")]
        shop.execute("update parents set name = 'Two', version = 10 where id = 1")
        assert seen(tap) == [("r", "p1")]
        shop.execute("insert into parents (id, sync_id, version) values (2, 'p2', 9)")
        assert seen(tap) == [("r", "p2")]
        shop.execute("insert into parents (id, sync_id, version) values (3, 'p3', 7)")
        assert seen(tap) == []


def test_many_rows_of_one_version_come_in_pages_and_one_batch(shop: Shop) -> None:
    with Tap(shop.source(batch_rows=3)) as tap:
        rows = ", ".join(f"({n}, 'p{n}', 'x')" for n in range(20))
        shop.execute(f"insert into parents (id, sync_id, name) values {rows}")
        assert sorted(key for _, key in seen(tap)) == sorted(f"p{n}" for n in range(20))
        filled = [batch for batch in tap.batches if any(piece.rows for piece in batch)]
        assert [sum(bool(piece.rows) for piece in batch) for batch in filled] == [7]
        # A parent and its child in one transaction: one snapshot, parents first.
        shop.execute(
            "begin; insert into parents (id, sync_id) values (90, 'p90'); "
            "insert into children (id, sync_id, parent_id) values (91, 'c91', 90); commit"
        )
        assert seen(tap) == [("r", "p90"), ("r", "c91")]


def test_chunks_leave_out_what_is_marked_as_deleted(shop: Shop) -> None:
    for n in range(5):
        shop.execute(ADD.format(n, "x"))
    shop.execute("update parents set gone = true where id in (0, 3)")
    with closing(shop.source()) as source:
        (table,) = [t for t in source.describe() if t.name == "parents"]
        chunk = source.chunk(table, None, 2, epoch=1, run=1)
        assert [json.loads(k)["sync_id"] for k in chunk.keys] == ["p1", "p2"]
        rest = source.chunk(table, chunk.next_key, 10, epoch=1, run=1)
        assert [json.loads(k)["sync_id"] for k in rest.keys] == ["p4"]
        assert rest.next_key is None
        assert source.boundary(table, None, 2) == chunk.next_key
        listed = source.chunk_of(table, [b'{"sync_id":"p3"}', b'{"sync_id":"p4"}'], epoch=1, run=1)
        assert [json.loads(k)["sync_id"] for k in listed.keys] == ["p4"]
        now, _ = source.now()
        assert source.reached(chunk.high, now)


def test_what_preflight_refuses_and_warns_of(shop: Shop) -> None:
    with closing(shop.source()) as source:
        assert source.check() == []
    with closing(shop.source(version="name")) as source:
        problems = {f.where: f.problem for f in source.check() if f.refused}
        assert "of kind text" in problems[f"{shop.schema}.parents.name"]
        assert "is missing" in problems[f"{shop.schema}.children.name"]
        with pytest.raises(Misconfigured, match="found no column name on"):
            next(source.stream(None, Any))  # type: ignore[arg-type]
    with closing(shop.source(tombstone="dead")) as source:
        assert [f.refused for f in source.check()] == [True, True]
    shop.execute("alter table parents add seen timestamp(6) null")
    shop.execute("alter table children add seen timestamp(6) null")
    shop.execute(ADD.format(1, "x"))
    with closing(shop.source(version="seen")) as source:
        (found,) = source.check()
        assert "NULL in some rows" in found.problem
    with Tap(shop.source(version="seen")) as tap, pytest.raises(Poison, match="is null"):
        tap.drain()


def test_mariadb_hides_foreign_keys_from_who_may_only_select(
    mariadb_db: Database,
) -> None:
    """Then their numbers would be copied as they are: refused, with the grant that is missing."""
    mariadb_db.execute(TABLES)
    name = f"reads_{secrets.token_hex(4)}"
    mariadb_db.execute(f"create user {name}@'%' identified by 'reads'")
    mariadb_db.execute(f"grant select on {mariadb_db.name}.* to {name}@'%'")
    try:
        url = make_url(mariadb_db.url).set(username=name, password="reads")
        shop = Shop(mariadb_db, url.render_as_string(hide_password=False))
        with closing(shop.source()) as source:
            (found,) = source.check()
            assert found.refused
            assert found.fix == f"run: GRANT REFERENCES ON {mariadb_db.name}.* TO the source's user"
    finally:
        mariadb_db.execute(f"drop user {name}@'%'")


def test_positions_that_are_none(shop: Shop) -> None:
    with closing(shop.source()) as source:
        (noted,) = source.note(hold=False)
        assert noted is not None
        assert source.given(noted.position) == noted.position
        for text in ("0/16B3748", "[]", '{"at": "x", "of": {}}'):
            with pytest.raises(Misconfigured, match="of a source that is polled"):
                source.given(text)
    kind = Kind(name="timestamp")
    with pytest.raises(Operator, match="is no instant"):
        before(kind, "infinity", window=1, clock=0, where="a.b.c")


def test_from_end_to_end(
    shop: Shop,
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
) -> None:
    """First copy, changes, a capture that was killed, tombstones, a hard delete and its repair."""
    others = {"postgres": "mysql", "mysql": "mariadb", "mariadb": "postgres"}
    target = new_database(request.getfixturevalue(others[shop.database.server.kind]))
    for n in range(30):
        shop.execute(ADD.format(n, "old"))
    shop.execute("update parents set gone = true where id = 29")
    with pipeline(tmp_path, a_name(), shop.database, {"branch": target}, "sqlite") as flow:
        flow.configure(
            url=shop.url.replace("mysql://", f"{shop.database.server.url.partition(':')[0]}://"),
            kind="polling",
            version={"*": "changed"},
            tombstone={"*": "gone"},
            poll_seconds=0.2,
            chunk_rows=10,
        )
        prepare_all(flow.config, [flow.name], ["branch"])
        capture, apply = flow.capture(), flow.apply("branch")
        count = "select count(*) from parents"
        until(lambda: target.query(count) == [(29,)], "the first copy")
        shop.execute("insert into children (id, sync_id, parent_id) values (1, 'c1', 3)")
        capture.kill()
        shop.execute("update parents set name = 'new', changed = current_timestamp(6) where id = 3")
        shop.execute("update parents set gone = true, changed = current_timestamp(6) where id = 4")
        capture = flow.capture()
        assert flow.run("catch-up", "branch", "--watch")
        assert target.query(count) == [(28,)]
        assert target.query("select name from parents where sync_id = 'p3'") == [("new",)]
        assert flow.verify("branch").exit_code == 0
        shop.execute("delete from parents where id = 5")
        flow.run("snapshot", flow.name)
        until(lambda: target.query(count) == [(27,)], "the delete that no poll has seen")
        assert flow.verify("branch").exit_code == 0
        assert [capture.stop(), apply.stop()] == [0, 0]
