"""The example of docs/conflicts.md, run as it stands there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from tests.acceptance.test_command import arrived
from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.faults.pipeline import ROOT, pipeline, until
from tests.services.server import Server

PAGE = (ROOT / "docs" / "conflicts.md").read_text()
USERS = (
    "create table users (id serial primary key, sync_id uuid not null default gen_random_uuid() "
    "unique, mail text unique, name text not null, stock int, price int, "
    "changed_at timestamptz default now())"
)


def test_its_commands_do_what_it_says(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    toml, same = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    rules, one = (
        tomllib.loads(text.replace('"shop.', '"public.'))["targets"]["branch"]["conflicts"]
        for text in (toml, same)
    )
    rules["public.users"] |= one["public.users"]
    source, target = new_database(postgres), new_database(postgres)
    source.execute(USERS + "; alter table users replica identity full")
    source.execute("insert into users (name, stock, price) values ('a', 10, 1)")
    with pipeline(tmp_path, "shop", source, {"branch": target}, "sqlite") as flow:
        # Other tests' sources may be called so too.
        flow.target_settings["conflicts"] = rules
        flow.configure(slot=a_name(), publication=a_name())
        running = flow.start("run")
        arrived(flow, 1, running)
        target.execute("update users set name = 'b', stock = 8, price = 2, changed_at = '2000-1-1'")
        source.execute("update users set name = 'c', stock = 11, price = 3, changed_at = now()")
        source.execute("insert into users (name) values ('last')")
        arrived(flow, 2, running)
        assert target.query("select name, stock, price from users where name <> 'last'") == [
            ("c", 9, 2)
        ]
        said = [flow.run(*shlex.split(line, comments=True)[1:]) for line in block.splitlines()]
        assert "newest_wins by changed_at" in said[0]
        assert "merged" in said[1]
        assert "1 of 1 conflicts would have ended otherwise" in said[2]
        local = "insert into users (id, sync_id, mail, name) values (50, gen_random_uuid(), "
        target.execute(f"{local} 'ada@x', 'Ada L.')")
        source.execute("insert into users (mail, name) values ('ada@x', 'Ada')")
        ada = "select name from users where id = 50"
        until(lambda: target.query(ada) == [("Ada",)], "one Ada")
        assert running.stop() == 0
