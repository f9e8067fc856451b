"""The example of docs/referee.md, run as it stands there, in several directions."""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.acceptance.test_children_page import Reader
from tests.faults.pipeline import ROOT, Pipeline, schema_of, scheme, types, until, user_url
from tests.services.database import Database
from tests.services.server import Server

PAGE = (ROOT / "docs" / "referee.md").read_text()
EXAMPLE = PAGE.partition("## An example")[2].partition("\n## ")[0]
SHARED = PAGE.partition("## Shared by several environments")[2].partition("\n## ")[0]
PAIRS = [("mysql", "postgres"), ("postgres", "mariadb")]

POSTGRES = """
create table users (id bigserial primary key, name varchar(50));
create table orders (id bigserial primary key, user_id bigint references users (id), price int);
"""
MYSQL = """
create table users (id bigint auto_increment primary key, name varchar(50));
create table orders (id bigint auto_increment primary key, user_id bigint, price int,
  foreign key (user_id) references users (id));
"""


def tables(of: Database) -> str:
    return POSTGRES if scheme(of) == "postgresql" else MYSQL


@pytest.fixture(params=PAIRS, ids="-to-".join)
def reader(
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
    tmp_path: Path,
) -> Reader:
    source, target = (new_database(request.getfixturevalue(name)) for name in request.param)
    source.execute(tables(source))
    target.execute(tables(target))
    source.execute("insert into users (name) values ('ann'), ('bob'), ('cy')")
    source.execute("insert into orders (user_id, price) values (1, 10), (2, 20), (3, 30), (2, 40)")
    target.execute("insert into users (id, name) values (501, 'bob'), (502, 'local')")
    if scheme(target) == "postgresql":
        target.execute("select setval('users_id_seq', 502)")
    target.execute("insert into orders (user_id, price) values (502, 99)")
    return Reader(tmp_path, source, target, EXAMPLE)


def sees(reader: Reader) -> list[tuple[str, int]]:
    """Names and prices, as the branch's applications see them."""
    joined = "select u.name, o.price from orders o join users u on u.id = o.user_id order by 2"
    return [(str(name), int(price)) for name, price in reader.target.query(joined)]


def test_its_commands_do_what_it_says(reader: Reader) -> None:
    """T1, T13, without a column of ours anywhere."""
    begin, look, mend = re.findall(r"```sh\n(.*?)```", EXAMPLE, re.DOTALL)
    lines = [line.partition("#")[0].strip() for line in begin.splitlines()]
    prepare, check, run, verify = lines
    reader.types(prepare)
    reader.types(check)
    running = reader.starts(run)
    try:
        until(lambda: len(sees(reader)) == 5, "the copy")
        assert sees(reader) == [("ann", 10), ("bob", 20), ("cy", 30), ("bob", 40), ("local", 99)]
        reader.types(verify)
        assert [len(row) for row in reader.target.query("select * from users limit 1")] == [2]
        one, export = look.splitlines()
        (shown,) = orjson.loads(reader.types(f"{one} --json"))["pairs"]
        ann = shown["local_key"]
        assert reader.target.query(f"select name from users where id = {ann}") == [("ann",)]
        rows = list(csv.DictReader(reader.types(export.partition(" >")[0]).splitlines()))
        pairs = {int(row["source_key"]): int(row["local_key"]) for row in rows}
        assert pairs[1] == ann
        reader.source.execute("update users set name = 'bo' where id = 2")
        reader.source.execute("delete from orders where id = 3")
        reader.source.execute("delete from users where id = 3")
        until(lambda: len(sees(reader)) == 4, "the deletes")
        assign, repair, again = mend.splitlines()
        assert f"row {pairs[2]} is the target's own now" in reader.types(assign)
        reader.types(repair, code=1)
        reader.types(again)
        assert sees(reader) == [("ann", 10), ("bo", 20), ("bo", 40), ("local", 99)]
        reader.target.execute(f"delete from users where id = {pairs[2]}")
        users = reader.target.query("select id, name from users order by name")
        assert [(int(key), str(name)) for key, name in users] == [
            (ann, "ann"), (501, "bo"), (502, "local"),
        ]  # fmt: skip
    finally:
        running.alive()
        running.stop()


def test_what_it_says_of_several_environments(
    new_database: Callable[[Server], Database],
    mysql: Server,
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T31: a branch and a depot, and what is theirs alone."""
    source, branch, third = new_database(mysql), new_database(postgres), new_database(postgres)
    source.execute(tables(source) + "insert into users (name) values ('ann'), ('bob')")
    branch.execute(tables(branch) + "select setval('users_id_seq', 500)")
    (toml,) = re.findall(r"```toml\n(.*?)```", SHARED, re.DOTALL)
    for was, now in (
        (r'"mysql:.*?"', f'"{user_url(source)}"'),
        (r'"postgresql:[^"]*/branch"', f'"{user_url(branch)}"'),
        (r'"postgresql:[^"]*/referee"', f'"{user_url(third)}"'),
        (r"\bshop\.\*", f"{schema_of(source)}.*"),
        (r"\{ shop = ", f"{{ {schema_of(source)} = "),
    ):
        toml = re.sub(was, now, toml)
    (tmp_path / "headwater.toml").write_text(toml)
    monkeypatch.chdir(tmp_path)
    flow = Pipeline(tmp_path, "shop", source, {}, {})

    def typed(line: str) -> str:
        words = line.partition("#")[0].partition(">")[0].replace("shop.", f"{schema_of(source)}.")
        done = types(tmp_path, *words.split()[1:])
        assert done.exit_code == 0, done.output
        return done.stdout

    begin, correct = re.findall(r"```sh\n(.*?)```", SHARED, re.DOTALL)
    prepare, capture, *catch_up, look, export = begin.splitlines()
    typed(prepare)
    running = flow.start(*capture.removesuffix("&").split()[1:])
    try:
        for line in catch_up:
            typed(line)
        found = orjson.loads(typed(f"{look} --json"))["mappings"]
        assert [(m["environment"], m["local_key"], m["state"]) for m in found] == [
            ("shop", 1, "active"), ("branch", 501, "active"), ("depot", 1, "active"),
        ]  # fmt: skip
        assert len({m["sync_id"] for m in found}) == 1
        assert len(list(csv.DictReader(typed(export).splitlines()))) == 2 * 3
        with closing(sqlite3.connect(tmp_path / "depot.db")) as depot, depot:
            depot.execute("insert into users (id, name) values (4, 'Ann')")
        assign, again = correct.splitlines()
        typed(assign)
        now = orjson.loads(typed(f"{again} --json"))["mappings"]
        assert [(m["local_key"], m["state"]) for m in now if m["environment"] == "depot"] == [
            (1, "ended"), (4, "active"),
        ]  # fmt: skip
        assert {m["sync_id"] for m in now} == {found[0]["sync_id"]}
        running.alive()
    finally:
        flow.close()
