"""The example of docs/parking.md, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.acceptance.test_command import arrived
from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.faults.pipeline import ROOT, pipeline
from tests.services.server import Server

PAGE = (ROOT / "docs" / "parking.md").read_text()
EXAMPLE = PAGE.partition("## An example")[2].partition("\n## ")[0]
USERS = (
    "create table users (id serial primary key, sync_id uuid not null default gen_random_uuid() "
    "unique, name text not null, price int)"
)


def test_its_commands_do_what_it_says(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    source, target = new_database(postgres), new_database(postgres)
    source.execute(USERS)
    target.execute(USERS.replace("price int", "price int check (price > 0)"))
    source.execute("insert into users (name, price) values ('a', 1)")
    with pipeline(tmp_path, "shop", source, {"branch": target}, "sqlite") as flow:
        # Other tests' sources may be called so too.
        flow.configure(slot=a_name(), publication=a_name())
        running = flow.start("run")
        arrived(flow, 1, running)
        source.execute("insert into users (name, price) values ('b', -1), ('c', -1), ('d', 4)")
        arrived(flow, 2, running)
        codes = []
        (block,) = re.findall(r"```sh\n(.*?)```", EXAMPLE, re.DOTALL)
        for line in block.splitlines():
            command = flow.start(*shlex.split(line, comments=True)[1:])
            codes.append(command.wait())
        assert codes == [1, 0, 0, 65, 0, 0]
        assert "a test row, ours stays" in command.said
        assert target.query("select name, price from users order by name") == [
            ("a", 1), ("b", 1), ("d", 4),
        ]  # fmt: skip
        assert '"parked":0' in flow.run("status", "--json")
        assert running.stop() == 0
