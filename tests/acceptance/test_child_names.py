"""Who reads a log as which child: clones that come online, and children that are given up."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from structlog.testing import capture_logs
from typer.testing import CliRunner

from ops import cli
from ops.compose import opened_log, opened_target
from ops.config import Config
from ops.config_file import load
from ops.readers import Reading
from schemas.errors import Fenced, Misconfigured, Operator
from schemas.progress import REQUESTS
from tests.acceptance.test_children_page import commands, section
from tests.conformance.targets import Stream, c, column, table
from tests.faults.pipeline import user_url
from tests.services.database import Database
from tests.services.server import Server
from transport.sqlite import SqliteLog

USERS = table("users", column("name"))
COPYING = {
    REQUESTS: {
        "upto": 4,
        "copies": {
            "3": {"for": "depot", "state": "copying", "tables": {}},
            "4": {"for": "branch", "state": "copying", "tables": {}},
        },
    }
}


class Child:
    """A source's log, and a child `branch` whose commands are given in this process."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self._n = folder, 0
        self.stream = Stream()
        self.stream.log = SqliteLog(folder / "log.db", "shop")  # type: ignore[assignment]
        self.stream._stamp = self.stream.log.open().stamp
        self.at(url)
        self.says("prepare", "branch")

    def at(self, url: str) -> None:
        """Let the configuration name this database."""
        path = self.folder / "log.db"
        (self.folder / "headwater.toml").write_text(
            f'[log]\nkind = "sqlite"\npath = "{path}"\n'
            f'[targets.branch]\nsource = "shop"\nurl = "{url}"\n'
        )

    @property
    def config(self) -> Config:
        return load(self.folder / "headwater.toml").config

    def says(self, *words: str) -> Any:
        """Run a command; its document. Raises what it raises."""
        path = str(self.folder / "headwater.toml")
        result = CliRunner().invoke(cli.app, [*words, "--json", "-c", path])
        structlog.reset_defaults()  # it would write to what the runner has closed
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return orjson.loads(result.stdout.splitlines()[-1])

    def applies(self, times: int = 1) -> int:
        """Write a row and apply it, so many times; how many rows are there."""
        for _ in range(times):
            self._n += 1
            self.stream.batch(c(USERS, id=self._n, sync_id=f"u{self._n}", name="Ada"))
            self.says("apply", "branch", "--once")
        with opened_target(self.config, "branch") as target:
            return sum(len(block) for _, block in target.rows(USERS))


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    monkeypatch.setattr("ops.readers.DRAW_S", -1.0)
    made = Child(tmp_path, f"sqlite:///{tmp_path}/branch.db")
    with closing(made.stream.log):
        yield made


def test_a_clone_that_comes_online_is_refused_until_it_takes_the_name(child: Child) -> None:
    """T95: the clone is of any earlier moment; nothing is written to it."""
    first, clone = (f"sqlite:///{child.folder}/{name}.db" for name in ("branch", "clone"))
    assert child.applies(2) == 2
    shutil.copy(child.folder / "branch.db", child.folder / "clone.db")
    child.applies(2)
    child.at(clone)
    with pytest.raises(Operator, match="another database reads this log as branch") as refused:
        child.says("apply", "branch", "--once")
    assert "headwater child adopt branch" in refused.value.hint
    with opened_target(child.config, "branch") as target:
        assert sum(len(block) for _, block in target.rows(USERS)) == 2
    child.at(first)
    assert child.applies() == 5
    child.at(clone)
    for line in commands(section("Clones, and two children of one name")):
        child.says(*line.split()[1:])
    assert child.applies() == 6
    child.at(first)
    with pytest.raises(Operator, match="another database reads this log"):
        child.says("apply", "branch", "--once")


@pytest.mark.full
def test_a_clone_of_a_server_is_refused_too(
    postgres: Server,
    new_database: Callable[[Server], Database],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T95"""
    monkeypatch.setattr("ops.readers.DRAW_S", -1.0)
    database, admin = new_database(postgres), new_database(postgres)
    child = Child(tmp_path, user_url(database))
    child.applies(2)
    name = f"{database.name}_clone"
    with closing(admin.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"create database {name} template {database.name}")
    child.applies(2)
    child.at(user_url(database).replace(database.name, name))
    with pytest.raises(Operator, match="another database reads this log as branch"):
        child.says("apply", "branch", "--once")
    with closing(admin.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"drop database {name}")


def test_a_restart_a_crash_and_a_fail_over_are_not_refused(child: Child) -> None:
    """T95: a crash between the two notes; a replica that lost the last seconds."""
    child.applies(2)
    with opened_target(child.config, "branch") as target:
        target.add_session("1.drawn, and the log not told", kept=20)
    assert child.applies() == 3
    shutil.copy(child.folder / "branch.db", child.folder / "replica.db")
    with opened_target(child.config, "branch") as target:
        Reading(target, partial(opened_log, child.config, "shop")).look()
    child.at(f"sqlite:///{child.folder}/replica.db")
    assert child.applies(3) == 6


def test_a_running_child_notices_that_another_took_its_name(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T95: without a restart; one that is prompted again and again draws no session each time."""
    child.applies()
    with opened_target(child.config, "branch") as target:
        reading = Reading(target, partial(opened_log, child.config, "shop"))
        for _ in range(30):
            reading.look()
        assert len(target.sessions()) == 20
        monkeypatch.setattr("ops.readers.DRAW_S", 60.0)
        drawn = target.sessions()
        Reading(target, partial(opened_log, child.config, "shop")).look()
        assert target.sessions() == drawn
        monkeypatch.setattr("ops.readers.DRAW_S", -1.0)
        with opened_log(child.config, "shop") as log:
            log.read_by("branch", "another's")
        with pytest.raises(Operator, match="another database"):
            reading.look()


def test_a_log_that_may_only_be_read_is_read_unnoted(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T95: as of a Kafka user without a right to groups; said once."""
    child.applies()

    def denied(*of: object) -> None:
        raise Misconfigured("was denied the right to note who reads")

    monkeypatch.setattr(SqliteLog, "read_by", denied)
    with opened_target(child.config, "branch") as target, capture_logs() as said:
        reading = Reading(target, partial(opened_log, child.config, "shop"))
        reading.look()
        reading.look()
    assert [entry["event"] for entry in said] == ["reader_not_noted"]


def test_two_children_of_one_name(child: Child) -> None:
    """T95: a new database under the name of one that lives is refused; of one that is silent for
    long, or was dropped, it takes the name over.
    """
    child.applies()
    for n, forget in enumerate(("age", "drop", "child drop")):
        child.at(f"sqlite:///{child.folder}/new{n}.db")
        child.says("prepare", "branch")
        with pytest.raises(Operator, match="another database reads this log as branch"):
            child.says("apply", "branch", "--once")
        if forget == "age":
            with closing(sqlite3.connect(child.folder / "log.db")) as log, log:
                log.execute('update "shop.readers" set noted_at = noted_at - 61')
        elif forget == "drop":
            child.says("drop", "branch", "--yes")
            child.says("prepare", "branch")
        else:
            child.says("child", "drop", "branch", "--gone", "--yes")
        assert child.applies() == n + 2


def test_a_child_is_given_up(child: Child) -> None:
    """Its rows stay; a copy for it alone is cancelled, another child's is not."""
    child.applies()
    child.stream.batch(progress=COPYING)
    first, second = commands(section("Giving a child up"))
    shown = child.says(*first.split()[1:])
    assert (shown["done"], shown["cancelled"], shown["statements"]) == (False, [4], [])
    shown = child.says("child", "drop", "branch", "--own-tables")
    assert child.applies() == 2
    with opened_target(child.config, "branch") as target:
        target.hold()
        with pytest.raises(Fenced, match="applies to branch already"):
            child.says("child", "drop", "branch", "--yes")
    done = child.says(*second.split()[1:])
    assert (done["done"], done["cancelled"], done["was_noted"]) == (True, [4], True)
    assert done["statements"] == shown["statements"]
    with closing(sqlite3.connect(child.folder / "branch.db")) as database:
        assert database.execute("select count(*) from users").fetchone() == (2,)
        left = database.execute("select name from sqlite_master where name like 'headwater%'")
        assert left.fetchall() == []
    assert not child.says("child", "drop", "branch")["was_noted"]
    child.at("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(Operator, match="could not reach branch") as refused:
        child.says("child", "drop", "branch", "--yes")
    assert "--gone" in refused.value.hint
    child.says("child", "drop", "branch", "--gone", "--yes")
