"""`verify` on real servers where references are declared: compared through the translation."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pipeline import schema_of, scheme
from tests.faults.replica import replica
from tests.services.database import Database
from tests.services.server import Server

PAGE = Path(__file__).parents[2] / "docs" / "replicating.md"

POSTGRES = """
create table users (id serial primary key, sync_id uuid not null unique, name text);
create table posts (id serial primary key, sync_id uuid not null unique, name text);
create table comments (id serial primary key, sync_id uuid not null unique,
  owner_type varchar(40), owner_id int, facts jsonb);
create table orders (id serial primary key, sync_id uuid not null unique, referred_by int);
"""
MYSQL = """
create table users (id int auto_increment primary key, sync_id char(36) not null unique, name text);
create table posts (id int auto_increment primary key, sync_id char(36) not null unique, name text);
create table comments (id int auto_increment primary key, sync_id char(36) not null unique,
  owner_type enum('User','Post'), owner_id int, facts json);
create table orders (id int auto_increment primary key, sync_id char(36) not null unique,
  referred_by int);
"""
PAIRS = [
    ("mysql", "postgres"),
    pytest.param(("postgres", "sqlite"), marks=pytest.mark.full),
    pytest.param(("postgres", "mysql"), marks=pytest.mark.full),
    pytest.param(("mariadb", "mysql"), marks=pytest.mark.full),
    pytest.param(("mysql", "mariadb"), marks=pytest.mark.full),
]


def key(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


def example(schema: str) -> Any:
    """What docs/replicating.md declares, of tables of that schema."""
    blocks = PAGE.read_text().split("```toml\n")
    (block,) = (b.split("```")[0] for b in blocks if "owner_type" in b.split("```")[0])
    parsed = tomllib.loads(block.replace('"shop.', f'"{schema}.'))
    return parsed["targets"]["branch_1"]["references"]


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
def test_references_of_several_tables_and_in_documents_are_compared(
    pair: tuple[str, str],
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
) -> None:
    """T71: no false difference after a first copy under other keys, whose tables come in the order
    of what is declared: none waits; T66: a reference to another row, in either, is one.
    """
    source, target = (new_database(request.getfixturevalue(name)) for name in pair)
    source.execute(POSTGRES if scheme(source) == "postgresql" else MYSQL)
    for n in range(1, 8):
        source.execute(f"insert into users values ({n * 10}, '{key(n)}', 'u{n}')")
        source.execute(f"insert into posts values ({n * 10}, '{key(n)}', 'p{n}')")
        source.execute(f"insert into orders values ({n}, '{key(n)}', {n * 10})")
        kind = "'User'" if n % 2 else "'Post'"
        posts = f'[{{"id": {n * 10}, "price": 1.50}}, {{"id": "10"}}, {{"id": null}}]'
        source.execute(
            f"insert into comments values ({n}, '{key(n)}', {kind}, {n * 10}, "
            f"""'{{"user": {n * 10}, "posts": {posts}}}'),"""
            f"({n + 100}, '{key(n + 100)}', {kind}, null, null)"
        )
    told = {"references": example(schema_of(source)), "parked_limit": 0}
    with replica(source.name, source, target, **told) as flow:
        flow.catch_up()
        assert flow.target.parked() == []
        (two,) = target.query(f"select owner_id from comments where sync_id = '{key(2)}'")
        assert two != (20,), "a key of its own"
        report = flow.verify()
        assert (report.verdict, report.differences) == ("valid", [])
        other = f"(select id from posts where sync_id = '{key(1)}')"
        target.execute(f"update comments set owner_id = {other} where sync_id = '{key(2)}'")
        target.execute(f"update comments set owner_id = -1 where sync_id = '{key(3)}'")
        target.execute(f"update comments set owner_id = -1 where sync_id = '{key(101)}'")
        again = f"(select facts from (select * from comments) c where sync_id = '{key(4)}')"
        target.execute(f"update comments set facts = {again} where sync_id = '{key(5)}'")
        found = [(d.key, d.kind, d.columns) for d in flow.verify().differences]
        assert found == [
            (f'{{"sync_id":"{key(2)}"}}', "different", ("owner_id",)),
            (f'{{"sync_id":"{key(3)}"}}', "different", ("owner_id",)),
            (f'{{"sync_id":"{key(5)}"}}', "different", ("facts",)),
            (f'{{"sync_id":"{key(101)}"}}', "different", ("owner_id",)),
        ]
