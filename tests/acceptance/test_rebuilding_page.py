"""The example of docs/rebuilding.md, run as it stands there."""

from __future__ import annotations

import re
import shlex
from contextlib import closing
from pathlib import Path

from tests.acceptance.test_command import USERS, arrived
from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.faults.pipeline import ROOT, Pipeline, pipeline
from tests.services import postgres as driver
from tests.services.server import Server

PAGE = (ROOT / "docs" / "rebuilding.md").read_text()
EXAMPLE = PAGE.partition("## An example")[2].partition("\n## ")[0]


def run(flow: Pipeline, line: str) -> str:
    """A line of the page; the databases have names of their own here."""
    words = shlex.split(line)
    target = flow.targets["branch"]
    if words[0] == "headwater":
        return flow.run(*words[1:])
    statement = {"dropdb": "drop database", "createdb": "create database"}[words[0]]
    with closing(driver.connect(target.server.url)) as connection:
        connection.cursor().execute(f"{statement} {target.name}")
    return ""


def test_its_commands_do_what_it_says(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    source, target = new_database(postgres), new_database(postgres)
    source.execute(USERS)
    source.execute("insert into users (name) values ('Ada'), ('Grace')")
    with pipeline(tmp_path, "shop", source, {"branch": target}, "sqlite") as flow:
        # Other tests' sources may be called so too.
        flow.configure(slot=a_name(), publication=a_name())
        running = flow.start("run")
        arrived(flow, 2, running)
        assert running.stop() == 0
        blocks = re.findall(r"```sh\n(.*?)```", EXAMPLE, re.DOTALL)
        (shown,) = re.findall(r"```\n(branch.*?)```", EXAMPLE, re.DOTALL)
        said = []
        for number, block in enumerate(blocks):
            if number == len(blocks) - 1:
                target.execute("update users set name = 'Eve' where name = 'Ada'")
            said += [run(flow, line) for line in block.splitlines()]
        assert re.sub(r"\d+", "N", shown) in re.sub(r"\d+", "N", said[2])
        assert target.query("select name from users order by name") == [("Ada",), ("Grace",)]
