"""The commands of the pages on importing and replicating, run as they stand there, on real servers.

What is exchanged: the configuration's URLs, and the option files that a page tells its reader to
keep. The tools are found on a PATH of the test's own. Somebody writes to the source until the page
asks whether the target is level.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.test_operator_errors import NewDatabase, with_users
from tests.faults.pipeline import ROOT, scheme, user_url
from tests.services import install, mariadb, mysql, postgres
from tests.services.database import Database
from tests.services.server import Server, free_port

PAGES = ROOT / "docs"
WITHIN_S = 120
BACKGROUND = "trap 'kill $(jobs -p) 2> kill.log || true; wait' EXIT\n"


def blocks(page: str, heading: str, language: str) -> list[str]:
    """The fenced blocks of a language under a heading, in order."""
    text = (PAGES / page).read_text()
    under = re.split(r"^## ", text, flags=re.M)
    section = next(s for s in under if s.startswith(heading))
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


def tools() -> Mapping[str, Sequence[str]]:
    """Every program that the pages name, by the words that run it here."""
    oracle = {t: install.sid("mysql-client-core", t) for t in ("mysql", "mysqldump")}
    loader = {t: install.sid("mydumper", t) for t in ("mydumper", "myloader")}
    wheel = {t: [str(postgres.tool(t))] for t in ("pg_dump", "psql")}
    maria = {t: [install.apt("mariadb-client", t)] for t in ("mariadb", "mariadb-dump")}
    plain = {t: [install.apt(t, t)] for t in ("jq", "sqlite3")}
    return {**oracle, **loader, **wheel, **maria, **plain}


class Reader:
    """A person in a folder of their own who types what the page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, words in tools().items():
            self._tool(name, " ".join(words))
        # From here on nobody writes any more: what is compared next stands still.
        calm = '[ "$1" = catch-up ] && touch calm\n'
        self._tool("headwater", f"{sys.executable} -P -m ops", before=calm)

    def _tool(self, name: str, words: str, before: str = "") -> None:
        path = self.folder / "bin" / name
        path.write_text(f'#!/bin/sh\n{before}exec {words} "$@"\n')
        path.chmod(0o755)

    def keeps(self, name: str, database: Database) -> None:
        """The option files that a page speaks of, under that name."""
        server = database.server
        (self.folder / f"{name}.cnf").write_text(
            f"[client]\nhost={server.host}\nport={server.port}\nuser={server.user}\n"
            f"password={server.password}\n"
        )
        with (self.folder / "services").open("a") as services:
            services.write(
                f"[{name}]\nhost={server.host}\nport={server.port}\nuser={server.user}\n"
                f"password={server.password}\ndbname={database.name}\n"
            )

    def configures(self, toml: str, urls: Sequence[str]) -> None:
        """Write the page's configuration, its URLs one by one exchanged."""
        given = iter(urls)
        written = re.sub(r'^url = ".*"', lambda m: f'url = "{next(given)}"', toml, flags=re.M)
        assert next(given, None) is None
        (self.folder / "headwater.toml").write_text(written)

    def types(self, *scripts: str) -> str:
        """Run the commands; each must end well. What they printed."""
        (self.folder / "typed.sh").write_text(BACKGROUND + "\n".join(scripts))
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        services = str(self.folder / "services")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "typed.sh"],
            cwd=self.folder, stdin=subprocess.DEVNULL, text=True, capture_output=True, check=False,
            timeout=WITHIN_S,
            env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "PGSERVICEFILE": services},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def writing(source: Database, calm: Path) -> Iterator[None]:
    """Somebody inserts, changes and deletes users, until the file is there."""
    over, failed = threading.Event(), []

    def write() -> None:
        try:
            n = 0
            while not over.wait(0.01) and not calm.exists():
                n += 1
                source.execute(f"insert into users (name) values ('{n}')")
                source.execute(f"update users set name = 'once {n}' where name = '{n // 2}'")
                source.execute(f"delete from users where name = 'once {n // 3}'")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed, failed


@pytest.fixture(scope="module")
def private() -> Iterator[Callable[[str], Server]]:
    """A MySQL or a MariaDB whose databases may have the names that the pages use."""
    with ExitStack() as stack:
        running: dict[str, Server] = {}

        def serve(kind: str) -> Server:
            if kind not in running:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"hw-{kind}-"))
                start = {"mysql": mysql.start, "mariadb": mariadb.start}[kind]
                running[kind] = stack.enter_context(start(Path(folder)))
            return running[kind]

        yield serve


@contextmanager
def named(server: Server, *names: str) -> Iterator[list[Database]]:
    """Databases of these names."""
    admin = Database(server=server, name="mysql")
    for name in names:
        admin.execute(f"create database {name}")
    try:
        yield [Database(server=server, name=name) for name in names]
    finally:
        for name in names:
            mysql.drop_database(server.url, name)


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        ("mysql", "From MySQL: mysqldump"),
        ("mariadb", "From MariaDB: mariadb-dump"),
        ("mariadb", "From MySQL or MariaDB: mydumper"),
    ],
)
def test_a_dump_of_mysql_or_mariadb(
    kind: str, heading: str, private: Callable[[str], Server], tmp_path: Path
) -> None:
    reader = Reader(tmp_path)
    with named(private(kind), "shop", "branch") as (shop, branch):
        with_users(shop)
        for name, database in (("shop", shop), ("branch", branch)):
            reader.keeps(name, database)
        (toml,) = blocks("importing.md", "Before", "toml")
        reader.configures(toml, [user_url(shop), user_url(branch)])
        recipe, *own = blocks("importing.md", heading, "sh")
        with writing(shop, tmp_path / "calm"):
            said = reader.types(recipe)
        assert "as new as" in said
        assert "0 differences" in said
        for script in own:
            assert re.search(r"[0-9a-f]+[:-][0-9]", reader.types(script))


@pytest.mark.parametrize("heading", ["pg_dump with a snapshot", "pg_dump without"])
def test_a_dump_of_postgresql(
    heading: str, postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    reader = Reader(tmp_path)
    shop, branch = with_users(new_database(postgres)), new_database(postgres)
    for name, database in (("shop", shop), ("branch", branch)):
        reader.keeps(name, database)
    (toml,) = blocks("importing.md", "From PostgreSQL: pg_dump with a snapshot", "toml")
    reader.configures(toml, [shop.url, branch.url])
    (recipe,) = blocks("importing.md", f"From PostgreSQL: {heading}", "sh")
    with writing(shop, tmp_path / "calm"):
        said = reader.types(recipe)
    assert ("as new as" in said) == (heading == "pg_dump without")
    assert "0 differences" in said


def test_a_copy_of_a_target_goes_on_where_the_original_stood(
    mysql: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """T53 too: a target that was restored from a backup is such a copy."""
    reader = Reader(tmp_path)
    shop = with_users(new_database(mysql))
    (toml,) = blocks("importing.md", "A copy of files", "toml")
    source = f'[sources.shop]\nurl = ""\ninclude = ["{shop.name}.*"]\n'
    files = [f"sqlite:///{name}.db" for name in ("branch", "second")]
    reader.configures(f"{toml}\n{source}", [*files, user_url(shop)])
    reader.types("headwater prepare branch\nheadwater snapshot shop\nheadwater apply branch --once")
    shop.execute("insert into users (name) values ('later')")
    (recipe,) = blocks("importing.md", "A copy of files", "sh")
    capture = "headwater capture shop &\nheadwater catch-up branch"
    copy, *rest = recipe.splitlines()
    said = reader.types(copy, capture, *rest)
    assert "0 differences" in said


def test_children(
    private: Callable[[str], Server], postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    reader = Reader(tmp_path)
    with named(private("mysql"), "shop") as (shop,):
        with_users(shop)
        (toml,) = blocks("replicating.md", "", "toml")
        branch = new_database(postgres)
        reader.configures(toml, [user_url(shop), branch.url, "sqlite:///branch_2.db"])
        with writing(shop, tmp_path / "calm"):
            said = reader.types(*blocks("replicating.md", "", "sh"))
        assert "0 differences" in said
        assert scheme(branch) == "postgresql"
        assert '"targets":[' in (tmp_path / "status.json").read_text()


def test_children_that_poll(postgres: Server, new_database: NewDatabase, tmp_path: Path) -> None:
    """In the order of the page; the child sleeps in the background from its second part on."""
    reader = Reader(tmp_path)
    shop, branch = with_users(new_database(postgres)), new_database(postgres)
    port = str(free_port())
    headings = ["From a scheduler", "Woken by a prompt", "Update all children", "A pause of one"]
    (toml,) = blocks("polling.md", headings[1], "toml")
    reader.configures(toml.replace("8130", port), [shop.url, branch.url])
    scripts = [script for heading in headings for script in blocks("polling.md", heading, "sh")]
    said = reader.types(
        "export PROMPT_TOKEN=0123456789abcdef",
        "headwater prepare shop; headwater prepare branch; headwater capture shop &",
        *(script.replace("8130", port) for script in scripts),
    )
    assert "branch is paused" in said
    assert "applied nothing: paused since" in said
    assert "stocktaking until noon" in said
    assert "branch is resumed" in said
    applied = json.loads((tmp_path / "applied.json").read_text())
    assert (applied["target"], applied["paused"]) == ("branch", None)
    assert branch.query("select count(*) from users") == [(2,)]


def test_a_source_that_is_polled(
    mysql: Server, postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    reader = Reader(tmp_path)
    shop, branch = new_database(mysql), new_database(postgres)
    shop.execute(
        "create table users (id bigint auto_increment primary key, name varchar(50),"
        " sync_id char(36) not null unique default (uuid()),"
        " updated_at timestamp(6) not null default current_timestamp(6), deleted_at timestamp null)"
    )
    shop.execute("insert into users (name, deleted_at) values ('Ada', null), ('Bob', now())")
    heading = "A source whose log cannot be had"
    (toml,) = blocks("polling.md", heading, "toml")
    named = toml.replace('"shop.', f'"{shop.name}.').replace("{ shop =", f"{{ {shop.name} =")
    reader.configures(named, [shop.url, branch.url])
    said = reader.types(*blocks("polling.md", heading, "sh"))
    assert "0 differences" in said
    assert branch.query("select name from users") == [("Ada",)]


def test_two_databases_that_already_exist(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    reader = Reader(tmp_path)
    shop, branch = new_database(postgres), new_database(postgres)
    page = partial(blocks, "enrolling.md", "An example")
    for database, sql in zip((shop, branch), page("sql"), strict=True):
        database.execute(sql)
    (toml,) = page("toml")
    reader.configures(toml, [shop.url, branch.url])
    look, rest = page("sh")
    assert "nothing was written" in reader.types(look)
    (shown,) = page("text")
    for line in shown.splitlines()[1:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert f"| {' | '.join(cells)} |" in (tmp_path / "report.md").read_text()
    assert "0 differences" in reader.types(rest)
    old = "case when {0} < 100 then {0} end"
    users = f"select {old.format('id')}, email, name, sync_id is null from users order by id"
    assert branch.query(users) == [
        (11, "ann@example.org", "Ann", False),
        (12, "cy@example.org", "Cy", False),
        (13, "cy@example.org", "Cyril", True),
        (14, None, "Jos\u00e9", False),
        (15, "zoe@example.org", "Zoe", True),
        (None, "bob@example.org", "Bob", False),
    ]
    orders = (
        f"select {old.format('o.id')}, u.name, o.sync_id is null from orders o join users u"
        " on u.id = user_id order by o.id"
    )
    assert branch.query(orders) == [
        (21, "Jos\u00e9", False), (22, "Ann", False), (23, "Zoe", True), (None, "Bob", False)
    ]  # fmt: skip
