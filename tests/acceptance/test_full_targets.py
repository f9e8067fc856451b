"""A target that takes nothing for a while: its disk is full, it is read-only, or has no connection
to give.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from ops.applying import run_apply
from ops.compose import opened_target
from ops.supervise import Signals, Stop
from schemas.errors import Misconfigured, Transient
from schemas.kinds import Kind
from tests.acceptance.test_child_names import Child
from tests.conformance.targets import c, column, table
from tests.faults.pipeline import until, user_url
from tests.services import mariadb
from tests.services.database import Database, fresh
from tests.services.server import Server

USERS = table("users", column("name", Kind(name="text")))
BIG = "x" * 40_000


@dataclass(frozen=True, slots=True)
class Trouble:
    """A child's target, and ways to bring it into trouble and out of it again."""

    child: Child
    begin: Callable[[], None]
    end: Callable[[], None]


def rows(child: Child) -> int:
    with opened_target(child.config, "branch") as target:
        return sum(len(block) for _, block in target.rows(USERS))


def write(child: Child, first: int, last: int) -> None:
    """One batch of long rows."""
    users = (c(USERS, id=n, sync_id=f"u{n}", name=BIG) for n in range(first, last))
    child.stream.batch(*users)


@contextmanager
def sqlite_pragma(pragma: str) -> Iterator[Callable[[bool], None]]:
    """Has every new connection to a SQLite target obey it, while it is on."""
    is_on = False

    def connected(connection: Any, record: Any) -> None:
        if is_on and connection.__class__.__module__.startswith("sqlite3"):
            (pages,) = connection.execute("pragma page_count").fetchone()
            connection.execute(f"pragma {pragma.format(pages=pages)}")

    def turn(on: bool) -> None:
        nonlocal is_on
        is_on = on

    sa.event.listen(sa.engine.Engine, "connect", connected)
    try:
        yield turn
    finally:
        sa.event.remove(sa.engine.Engine, "connect", connected)


@contextmanager
def sqlite_full(folder: Path) -> Iterator[Trouble]:
    """The file may not grow: https://sqlite.org/pragma.html#pragma_max_page_count."""
    child = Child(folder, f"sqlite:///{folder}/branch.db")
    with sqlite_pragma("max_page_count = {pages}") as turn:
        yield Trouble(child, lambda: turn(True), lambda: turn(False))


@contextmanager
def sqlite_read_only(folder: Path) -> Iterator[Trouble]:
    child = Child(folder, f"sqlite:///{folder}/branch.db")
    with sqlite_pragma("query_only = on") as turn:
        yield Trouble(child, lambda: turn(True), lambda: turn(False))


@contextmanager
def no_connection(folder: Path, database: Database) -> Iterator[Trouble]:
    """The account's sessions are ended, and it gets no new one."""
    role = f"r_{secrets.token_hex(5)}"
    database.execute(f"create role {role} login password 'branch'")
    database.execute(f"grant all on schema public to {role}")
    url = sa.make_url(user_url(database)).set(username=role, password="branch")
    child = Child(folder, url.render_as_string(hide_password=False))

    def begin() -> None:
        database.execute(f"alter role {role} connection limit 0")
        database.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", role
        )

    try:
        yield Trouble(child, begin, lambda: _unlimited(database, role))
    finally:
        database.execute(f"drop owned by {role}")
        database.execute(f"drop role {role}")


def _unlimited(database: Database, role: str) -> None:
    database.execute(f"alter role {role} connection limit -1")


@contextmanager
def mariadb_full(folder: Path, database: Database) -> Iterator[Trouble]:
    """InnoDB's one data file may not grow, and a table fills what it has."""
    child = Child(folder, user_url(database))
    database.execute("create table ballast (id int auto_increment primary key, pad longblob)")

    def begin() -> None:
        for size in (1 << 20, 1 << 16, 1 << 13):
            with suppress(pymysql.err.OperationalError), closing(database.connect()) as connection:
                while True:
                    connection.cursor().execute(
                        "insert into ballast (pad) values (repeat('x', %s))", (size,)
                    )

    yield Trouble(child, begin, lambda: _emptied(database))


def _emptied(database: Database) -> None:
    database.execute("drop table ballast")


def holds_until_mended(trouble: Trouble, *, before: bool = True) -> None:
    """A running apply waits, tries again by itself, and loses nothing. before: the trouble begins
    before it runs.
    """
    child, signals, ended = trouble.child, Signals(), list[BaseException]()

    def run() -> None:
        try:
            run_apply(child.config, "branch", signals)
        except BaseException as error:
            ended.append(error)

    write(child, 1, 3)
    child.says("apply", "branch", "--once")
    assert rows(child) == 2
    with capture_logs() as said:
        thread = threading.Thread(target=run)
        if before:
            trouble.begin()
        thread.start()
        try:
            if not before:
                write(child, 3, 4)
                until(lambda: rows(child) == 3, "the apply to run")
                trouble.begin()
            for n in range(4, 8):
                write(child, 20 * n, 20 * n + 20)
            until(lambda: _retries(said) >= 2, "two attempts in vain")
            assert ended == []
            trouble.end()
            until(lambda: rows(child) == 83 - before, "all rows")
        finally:
            signals.note(SIGTERM)
            thread.join(60)
    assert [type(error) for error in ended] == [Stop]


def _retries(said: list[Any]) -> int:
    return sum(entry["event"] == "will_retry" for entry in said)


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """H103: and an apply that ends by itself says so, with nothing half."""
    with sqlite_full(tmp_path) as trouble, closing(trouble.child.stream.log):
        holds_until_mended(trouble)
        trouble.begin()
        write(trouble.child, 900, 950)
        with pytest.raises(Transient, match="SQLITE_FULL"):
            run_apply(trouble.child.config, "branch", Signals(), once=True, tries=1)
        trouble.end()
        assert rows(trouble.child) == 82
        trouble.child.says("apply", "branch", "--once")
        assert rows(trouble.child) == 132


def test_a_target_without_a_connection_to_give_is_waited_for(
    tmp_path: Path, postgres: Server, new_database: Callable[[Server], Database]
) -> None:
    """H103"""
    database = new_database(postgres)
    with no_connection(tmp_path, database) as trouble, closing(trouble.child.stream.log):
        holds_until_mended(trouble, before=False)


def test_a_read_only_target_ends_the_apply_with_what_to_mend(tmp_path: Path) -> None:
    """H103: tried again by nobody, and gone on with when a person has mended it."""
    with sqlite_read_only(tmp_path) as trouble, closing(trouble.child.stream.log):
        _stops_until_mended(trouble)


def _stops_until_mended(trouble: Trouble) -> None:
    child = trouble.child
    write(child, 1, 3)
    child.says("apply", "branch", "--once")
    write(child, 3, 5)
    trouble.begin()
    with pytest.raises(Misconfigured, match="cannot use target branch") as refused:
        child.says("apply", "branch", "--once")
    assert "accepts writes" in refused.value.hint
    trouble.end()
    assert rows(child) == 2
    child.says("apply", "branch", "--once")
    assert rows(child) == 4


@pytest.mark.full
def test_a_server_that_is_full_and_then_read_only(server_dir: Path, tmp_path: Path) -> None:
    """H103: on a server of its own, whose space ends."""
    flags = [
        "--innodb-file-per-table=OFF",
        "--innodb-data-file-path=ibdata1:12M:autoextend:max:48M",
    ]
    with mariadb.start(server_dir, flags) as server, fresh(server) as database:
        (tmp_path / "full").mkdir()
        filled = mariadb_full(tmp_path / "full", database)
        with filled as trouble, closing(trouble.child.stream.log):
            holds_until_mended(trouble, before=False)
        database.execute("create user plain@'%' identified by 'branch'")
        database.execute("grant all on *.* to plain@'%'")
        database.execute("revoke super, read_only admin on *.* from plain@'%'")
        with fresh(server) as other:
            url = sa.make_url(user_url(other)).set(username="plain", password="branch")
            child = Child(tmp_path, url.render_as_string(hide_password=False))
            with closing(child.stream.log):
                on, off = (f"set global read_only = {value}" for value in (1, 0))
                _stops_until_mended(
                    Trouble(child, lambda: _run(other, on), lambda: _run(other, off))
                )


def _run(database: Database, statement: str) -> None:
    database.execute(statement)
