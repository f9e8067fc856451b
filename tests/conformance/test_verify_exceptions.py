"""Tables that differ at a target by configuration, from real sources to real targets: what the
stream brings is what verify expects, and only what is wrong is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apply import exempt
from tests.conformance.test_verify import Sides, key, named
from tests.faults.pipeline import schema_of, scheme
from tests.faults.replica import replica
from tests.services.database import Database
from tests.services.server import Server

PAIRS = [
    ("postgres", "mysql"),
    ("mysql", "postgres"),
    ("mariadb", "sqlite"),
    ("postgres", "mariadb"),
]

POSTGRES = """
create table tenants (id bigserial primary key, sync_id uuid not null unique, name text);
create table people (id bigserial primary key, sync_id uuid not null unique,
  tenant bigint not null references tenants (id), region text, active boolean,
  email varchar(50) unique, price numeric(9,2));
create table pets (id bigserial primary key, sync_id uuid not null unique,
  owner bigint references people (id));
"""
MYSQL = """
create table tenants (id bigint auto_increment primary key, sync_id char(36) not null unique,
  name varchar(50));
create table people (id bigint auto_increment primary key, sync_id char(36) not null unique,
  tenant bigint not null, region varchar(50), active tinyint(1), email varchar(50) unique,
  price decimal(9,2), foreign key (tenant) references tenants (id));
create table pets (id bigint auto_increment primary key, sync_id char(36) not null unique,
  owner bigint, foreign key (owner) references people (id));
"""
HERE = {4, 6, 10, 12}
"""Who meets the condition at first."""


def exceptions(schema: str, **more: Any) -> dict[str, Any]:
    people = {
        "where": "region in ('EU', 'UK') and active and tenant = 8",
        "rename": {"email": "mail"},
        "set": {"label": "concat(lower(region), ':', coalesce(email, '-'))", "origin": "'shop'"},
        "own": ["price"],
    }
    return {f"{schema}.people": people | more}


@pytest.fixture(params=PAIRS, ids="-to-".join)
def databases(
    request: pytest.FixtureRequest, new_database: Callable[[Server], Database]
) -> tuple[Database, Database]:
    source, target = (new_database(request.getfixturevalue(name)) for name in request.param)
    source.execute(POSTGRES if scheme(source) == "postgresql" else MYSQL)
    source.execute(
        f"insert into tenants values (7, '{key(201)}', 'seven'), (8, '{key(202)}', 'eight')"
    )
    for n in range(1, 13):
        region = ("'EU'", "'UK'", "'eu'", "null")[n // 2 % 4]
        tenant, active = 7 + (n % 2 == 0), "false" if n == 2 else "true"
        source.execute(
            f"insert into people values ({900 + n}, '{key(n)}', {tenant}, {region}, {active},"
            f" 'A{n}@X', {n})"
        )
        source.execute(f"insert into pets values ({n}, '{key(100 + n)}', {900 + n})")
    return source, target


def sides(databases: tuple[Database, Database], **people: Any) -> Iterator[Sides]:
    source, target = databases
    settings: dict[str, Any] = {"exceptions": exceptions(schema_of(source), **people)}
    with replica(source.name, source, target, **settings) as flow:
        flow.catch_up()
        yield Sides(source, target, flow)


def here(target: Database) -> set[str]:
    return {str(value) for (value,) in target.query("select sync_id from people")}


def test_a_filtered_target_is_valid_and_only_what_is_wrong_is_found(
    databases: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T71, T91, T20: with renamed, computed and own columns, and a reference in the condition."""
    for side in sides(databases):
        source, target = side.source.execute, side.target.execute

        assert side.verify().verdict == "valid"
        # In, out, and what stays.
        source(f"update people set region = 'UK' where sync_id = '{key(6)}'")
        source(f"update people set active = false where sync_id = '{key(10)}'")
        source(f"update people set tenant = 8, region = 'EU' where sync_id = '{key(1)}'")
        source(f"update people set email = 'B@X' where sync_id = '{key(2)}'")
        source("update people set price = price + 1")
        target("update people set price = 1.25")
        side.flow.catch_up()
        assert side.verify().verdict == "valid"
        joined = "select p.sync_id, o.sync_id from pets p left join people o on o.id = p.owner"
        owners = {str(pet): owner and str(owner) for pet, owner in side.target.query(joined)}
        assert owners[key(101)] == key(1)
        assert owners[key(110)] is None
        report = side.verify()
        # What is wrong: a row that should not be here, a computed and a renamed column.
        tenant = "(select min(id) from tenants)"
        target(f"insert into people (sync_id, tenant, region) select '{key(3)}', {tenant}, 'US'")
        target(f"update people set label = 'x' where sync_id = '{key(1)}'")
        found = side.found()
        assert ("people", named(3), "extra", ()) in found
        assert ("people", named(1), "different", ("label",)) in found
        assert len(found) == 2, found
        people = next(t for t in report.tables if t.table.endswith("people"))
        assert people.source_rows == people.target_rows == len(here(side.target)) - 1
        side.source.execute(f"update pets set owner = null where sync_id = '{key(103)}'")
        # Excluded: neither is any of verify's business.
        monkeypatch.setattr(exempt, "LOOK_S", 0.0)
        table = f"{schema_of(side.source)}.people"
        side.flow.catch_up()
        keys = [named(1).encode(), named(3).encode()]
        side.flow.target.exempt(table, "excluded", keys)
        assert side.found() == []
        side.flow.target.exempt(table, "none", keys)
        assert len(side.found()) == 2


def test_rows_that_were_kept_are_no_differences(databases: tuple[Database, Database]) -> None:
    """T71: what left and was kept or marked; a row that the source does not have is extra still."""
    for side in sides(databases, on_leave="mark", mark="gone"):
        before = here(side.target)
        assert before
        side.source.execute("update people set region = 'US'")
        side.flow.catch_up()
        assert here(side.target) == before
        assert side.verify().verdict == "valid"
        tenant = "(select min(id) from tenants)"
        side.target.execute(
            f"insert into people (sync_id, tenant, gone) select '{key(77)}', {tenant},"
            f" {'true' if scheme(side.target) == 'postgresql' else '1'}"
        )
        assert side.found() == [("people", named(77), "extra", ())]
