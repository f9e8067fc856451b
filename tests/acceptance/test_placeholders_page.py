"""The example of docs/parking.md's placeholders, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.faults.pipeline import ROOT, pipeline, until
from tests.services.server import Server

PAGE = (ROOT / "docs" / "parking.md").read_text()
EXAMPLE = PAGE.partition("## Placeholders")[2].partition("\n## ")[0]
ID = "id serial primary key, sync_id uuid not null default gen_random_uuid() unique"
TABLES = (
    f"create table users ({ID}, name text not null, age int)",
    f"create table orders ({ID}, user_id int not null references users (id))",
)


def test_its_commands_do_what_it_says(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """T15: counted as incomplete, none is left at the end."""
    source, target = new_database(postgres), new_database(postgres)
    source.execute(";".join(TABLES))
    target.execute(";".join(TABLES).replace("age int", "age int check (age >= 0)"))
    policy = {"missing_parents": {"public.orders.user_id": "placeholder"}}
    with pipeline(tmp_path, "shop", source, {"branch": target}, "sqlite") as flow:
        flow.target_settings |= policy
        flow.configure(slot=a_name(), publication=a_name())
        running = flow.start("run")
        source.execute("insert into users (name, age) values ('a', -1)")
        source.execute("insert into orders (user_id) select id from users")
        until(lambda: target.query("select count(*) from orders") == [(1,)], "the order")
        codes, said = [], []
        (block,) = re.findall(r"```sh\n(.*?)```", EXAMPLE, re.DOTALL)
        for line in block.splitlines():
            command = flow.start(*shlex.split(line, comments=True)[1:])
            codes.append(command.wait())
            said.append(command.said)
        assert "incomplete: 0 differences; 1 rows are incomplete" in said[1]
        assert codes == [1, 3, 0, 0, 0, 0]
        assert running.stop() == 0
