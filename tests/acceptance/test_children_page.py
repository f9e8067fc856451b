"""The example of docs/children.md, run as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from tests.acceptance.test_operator_errors import a_name
from tests.faults.pipeline import ROOT, Worker, schema_of, scheme, until, user_url
from tests.services.database import Database
from tests.services.server import Server

PAGE = (ROOT / "docs" / "children.md").read_text()
PAIRS = [("mysql", "postgres")]

POSTGRES = """
create table users (id bigserial primary key, sync_id uuid not null unique, region text,
  active boolean, email text, price numeric(9,2));
create table orders (id bigserial primary key, sync_id uuid not null unique,
  user_id bigint references users (id));
"""
MYSQL = """
create table users (id bigint auto_increment primary key, sync_id char(36) not null unique,
  region varchar(50), active tinyint(1), email varchar(50), price decimal(9,2));
create table orders (id bigint auto_increment primary key, sync_id char(36) not null unique,
  user_id bigint, foreign key (user_id) references users (id));
"""


def section(title: str) -> str:
    """A section of the page."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(text: str) -> list[str]:
    """What a section says to type."""
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return str(block).splitlines()


class Reader:
    """A person in a folder of their own who types what the page says."""

    def __init__(self, folder: Path, source: Database, target: Database, example: str = "") -> None:
        """example: what the page says, with a configuration; by default this page's."""
        self.folder, self.source, self.target = folder, source, target
        given = iter([user_url(source), user_url(target)])
        (toml,) = re.findall(r"```toml\n(.*?)```", example or section("An example"), re.DOTALL)
        written = re.sub(r'^url = ".*"', lambda m: f'url = "{next(given)}"', toml, flags=re.M)
        place = f'{{ {schema_of(source)} = "{schema_of(target)}" }}'
        written = written.replace('{ shop = "public" }', place)
        if scheme(source) == "postgresql":
            own = f'slot = "{a_name()}"\npublication = "{a_name()}"\n'
            written = written.replace("[targets.branch]", f"{own}\n[targets.branch]", 1)
        (folder / "headwater.toml").write_text(self.here(written))

    def here(self, text: str) -> str:
        """The page's tables, as they are called in this test."""
        return re.sub(r"\bshop\.(?=users|orders|\*)", f"{schema_of(self.source)}.", text)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT)}

    def types(self, line: str, *, code: int = 0) -> str:
        """Run a command; what it printed."""
        words = [sys.executable, "-P", "-m", "ops", *shlex.split(self.here(line))[1:]]
        done = subprocess.run(
            words, cwd=self.folder, text=True, capture_output=True, check=False, timeout=90,
            env=self.environment,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def starts(self, line: str) -> Worker:
        """Run a command in the background."""
        words = [sys.executable, "-P", "-m", "ops", *shlex.split(line)[1:]]
        log = self.folder / "started.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, cwd=self.folder, stdout=out, stderr=out, env=self.environment
            )
        return Worker(words, log, process)

    def sees(self) -> list[tuple[str, str, str]]:
        """The branch's users: number, label, mail."""
        rows = self.target.query("select sync_id, label, mail from users order by sync_id")
        return [(str(UUID(str(key)).int), label, mail) for key, label, mail in rows]


@pytest.fixture(params=PAIRS, ids="-to-".join)
def reader(
    request: pytest.FixtureRequest, new_database: Callable[[Server], Database], tmp_path: Path
) -> Reader:
    source, target = (new_database(request.getfixturevalue(name)) for name in request.param)
    source.execute(POSTGRES if scheme(source) == "postgresql" else MYSQL)
    for n, region in enumerate(("EU", "US", "UK", "EU"), start=1):
        source.execute(
            f"insert into users values ({n}, '{UUID(int=n)}', '{region}', true, 'u{n}', {n});"
            f"insert into orders values ({n}, '{UUID(int=100 + n)}', {n})"
        )
    return Reader(tmp_path, source, target)


def test_its_commands_do_what_it_says(reader: Reader) -> None:
    """T93, T91: and the child began in the middle of a log, and was stopped on its way up."""
    (begin, exempt, end) = re.findall(r"```sh\n(.*?)```", section("An example"), re.DOTALL)
    reader.types("headwater prepare shop")
    capture = reader.starts("headwater capture shop")
    try:
        db = reader.folder / "headwater.db"
        until(lambda: db.exists() and db.stat().st_size > 0, "the log")
        # Of before the child: the copies that it asks for hold it.
        reader.source.execute(f"update users set email = 'late' where sync_id = '{UUID(int=3)}'")
        for line in begin.splitlines():
            said = reader.types(line)
        late = ("3", "uk:late", "late")
        assert reader.sees() == [("1", "eu:u1", "u1"), late, ("4", "eu:u4", "u4")]
        assert reader.target.query("select count(*) from orders where user_id is null") == [(1,)]
        reader.target.execute("update users set price = 50")
        for line in exempt.splitlines():
            said = reader.types(line)
        assert "excluded" in said
        assert "pinned" in said
        reader.source.execute("update users set email = 'new', price = 9 where id in (1, 2, 4)")
        reader.types("headwater child add branch")  # once more: it is only made level
        assert reader.sees() == [
            ("1", "eu:u1", "u1"),
            ("2", "us:new", "new"),
            late,
            ("4", "eu:new", "new"),
        ]
        reader.types("headwater verify branch --once")
        listed = orjson.loads(reader.types("headwater child list branch --json"))
        assert [row["is"] for row in listed] == ["excluded", "pinned"]
        for line in end.splitlines():
            reader.types(line)
        assert reader.sees() == [("1", "eu:new", "new"), late, ("4", "eu:new", "new")]
        assert reader.target.query("select min(price), max(price) from users") == [(50, 50)]
        (more,) = re.findall(
            r"(\[targets\.branch\.exceptions.\"shop\.orders.*?)```", section("Ancestors"), re.DOTALL
        )
        with (reader.folder / "headwater.toml").open("a") as toml:
            toml.write(reader.here(more))
        for line in commands(section("Ancestors")):
            reader.types(line)
        assert reader.sees() == [
            ("1", "eu:new", "new"),
            ("2", "us:new", "new"),
            late,
            ("4", "eu:new", "new"),
        ]
        assert reader.target.query("select count(*) from orders where user_id is null") == [(0,)]
        reader.source.execute("update orders set user_id = 1 where user_id = 2")
        reader.types("headwater catch-up branch")
        assert reader.sees() == [("1", "eu:new", "new"), late, ("4", "eu:new", "new")]
    finally:
        capture.alive()
        capture.stop()
