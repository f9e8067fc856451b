"""Identities that are derived, from a source without a column for them to targets and back by way
of verify and repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.pipeline import scheme
from tests.faults.replica import Replica, replica
from tests.services.database import Database
from tests.services.server import Server
from transport.record import Request

PAIRS = [("mysql", "postgres"), ("postgres", "mysql")]
FULL = [("mariadb", "mysql"), ("postgres", "sqlite"), ("mysql", "mariadb")]
IDENTITY = {
    "*.users": {"derived": "email"},
    "*.parts": {"derived": ["order_id", "line"]},
    "*": {"derived": "primary_key"},
}
KEYS = {"postgresql": "serial primary key", "sqlite": "integer primary key"}
UNKNOWN = "00000000-0000-4000-8000-00000000000a"
OTHER = "00000000-0000-4000-8000-00000000000b"


def key(database: Database) -> str:
    return KEYS.get(scheme(database), "int auto_increment primary key")


@dataclass
class Sides:
    source: Database
    target: Database
    flow: Replica

    def ids(self, table: str, what: str) -> dict[object, str]:
        """The target's identities, by a column's value."""
        found = self.target.query(f"select {what}, sync_id from {table} where sync_id is not null")
        return {value: str(identity) for value, identity in found}

    def found(self, **options: Any) -> list[tuple[str, str]]:
        """What verify finds: table without schema, and kind."""
        report = self.flow.verify(**options)
        assert all(t.verdict != "unknown" for t in report.tables)
        return sorted((d.table.rpartition(".")[2], d.kind) for d in report.differences)


@pytest.fixture(
    params=[*PAIRS, *(pytest.param(pair, marks=pytest.mark.full) for pair in FULL)],
    ids=lambda pair: "-to-".join(pair),
)
def sides(
    request: pytest.FixtureRequest, new_database: Callable[[Server], Database]
) -> Iterator[Sides]:
    source, target = (new_database(request.getfixturevalue(name)) for name in request.param)
    for sql in (
        f"create table users (id {key(source)}, email varchar(80) not null unique, "
        "name varchar(50))",
        f"create table orders (id {key(source)}, user_id int, number int, "
        "foreign key (user_id) references users (id))",
        "create table parts (order_id int not null, line int not null, amount int, "
        "primary key (order_id, line), foreign key (order_id) references orders (id))",
    ):
        source.execute(sql)
    for n in range(1, 9):
        source.execute(f"insert into users (email, name) values ('u{n}@x.org', 'U {n}')")
        source.execute(f"insert into orders (user_id, number) values ({n}, {n})")
        source.execute(f"insert into parts values ({n}, 1, 5), ({n}, 2, 6)")
    # A row of the target's own stands first, so that keys differ.
    target.execute(
        f"create table users (id {key(target)}, sync_id char(36) unique, "
        "email varchar(80) not null unique, name varchar(50))"
    )
    target.execute("insert into users (email) values ('ours')")
    with replica(source.name, source, target, {"identity": IDENTITY}) as flow:
        flow.catch_up()
        yield Sides(source, target, flow)


def test_rows_come_with_their_identity_and_find_each_other_by_it(sides: Sides) -> None:
    """T1, T13, T10, T5: copied, streamed, changed; references lead to the target's own keys."""
    source, target, flow = sides.source, sides.target, sides.flow
    before = sides.ids("users", "email")
    assert len(before) == 8
    local = dict(target.query("select email, id from users"))
    assert local["u1@x.org"] != 1
    source.execute("update users set name = 'other' where id = 1")
    source.execute("update users set email = 'new@x.org' where id = 2")
    source.execute("insert into users (email, name) values ('u9@x.org', 'U 9')")
    source.execute("update orders set user_id = 3 where id = 1")
    flow.catch_up()
    after = sides.ids("users", "email")
    assert {k: v for k, v in after.items() if k in before} == {
        k: v for k, v in before.items() if k != "u2@x.org"
    }
    assert after["new@x.org"] not in before.values()
    assert dict(target.query("select email, id from users"))["u1@x.org"] == local["u1@x.org"]
    owners = target.query(
        "select o.number, u.email from orders o join users u on u.id = o.user_id order by o.number"
    )
    assert [email for _, email in owners[:3]] == ["u3@x.org", "new@x.org", "u3@x.org"]
    assert sides.found() == []
    assert flow.target.parked() == []


def test_what_differs_is_found_and_mended_by_identity(sides: Sides) -> None:
    """T66: another value, a row too few, one too many, a wrong identity; T10: not the local one."""
    target, flow = sides.target, sides.flow
    target.execute("update users set name = 'wrong' where email = 'u1@x.org'")
    target.execute("update orders set number = 99 where number = 2")
    of = "order_id = (select id from orders where number = {}) and line = 1"
    target.execute(f"delete from parts where {of.format(3)}")
    target.execute(f"update parts set sync_id = '{OTHER}' where {of.format(4)}")
    target.execute(f"insert into users (sync_id, email) values ('{UNKNOWN}', 'extra')")

    def send(keys: dict[str, list[str]]) -> int:
        tables = {name: {"keys": listed} for name, listed in keys.items()}
        flow.log.ask(Request(what="copy", tables=tables))
        flow.catch_up()
        return 0

    found = sides.found(repair=send)
    assert found == [
        ("orders", "different"), ("parts", "extra"), ("parts", "missing"), ("parts", "missing"),
        ("users", "different"), ("users", "extra"),
    ]  # fmt: skip
    assert sides.found() == []
    assert target.query("select count(*) from users where email = 'extra'") == [(0,)]
    assert target.query("select count(*) from users where email = 'ours'") == [(1,)]
