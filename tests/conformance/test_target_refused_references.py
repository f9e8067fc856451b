"""Every target: references that copying would turn to another row are refused, before anything is
written and again when rows come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from apply.references import translated_keys
from ops.compose import opened_source, opened_target
from ops.config import Config
from schemas.errors import SchemaConflict
from schemas.kinds import Kind
from schemas.table import CompositeKey, ForeignKey, Table
from tests.conformance.targets import (
    INT,
    Place,
    Stream,
    c,
    column,
    deliver,
    foreign_key,
    held,
    place,
    table,
)
from tests.faults.pipeline import schema_of, user_url
from tests.services.database import Database
from tests.services.server import Server

__all__ = ["place"]

USERS = table("users", column("name"))
ROLES = table(
    "roles",
    column("user_id", INT, nullable=False),
    column("role", INT, nullable=False),
    identity=("user_id", "role"),
    primary_key=("user_id", "role"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
ACCOUNTS = table(
    "accounts",
    column("user_id", INT),
    column("code"),
    uniques=(("user_id",), ("code",), ("user_id", "code"), ("user_id", "id")),
    foreign_keys=(foreign_key("user_id", "users"),),
)


def to(name: str, parent: str, parent_column: str) -> ForeignKey:
    return ForeignKey(column=name, parent=f"app.{parent}", parent_column=parent_column)


def both(columns: tuple[str, ...], parent_columns: tuple[str, ...]) -> CompositeKey:
    return CompositeKey(columns=columns, parent="app.accounts", parent_columns=parent_columns)


def child(name: str, *keys: ForeignKey, composite: tuple[CompositeKey, ...] = ()) -> Table:
    return table(
        "children", column(name, INT), column("code"), foreign_keys=keys, composite_keys=composite
    )


def without(of: Table, name: str) -> Table:
    """The description of a source that keeps a column to itself."""
    columns = tuple(c for c in of.columns if c.name != name)
    return replace(of, columns=columns, primary_key=())


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([USERS, ROLES], "app.roles.user_id is part of the identity"),
        (
            [USERS, ACCOUNTS, child("of", to("of", "users", "id"), to("of", "accounts", "id"))],
            "app.children.of references app.users.id",
        ),
        (
            [
                USERS,
                ACCOUNTS,
                child("of", to("of", "accounts", "id"), to("of", "profiles", "user_id")),
            ],
            "app.children.of references app.profiles",
        ),
        (
            [
                USERS,
                ACCOUNTS,
                child(
                    "of", to("of", "users", "id"), composite=(both(("code", "of"), ("code", "id")),)
                ),
            ],
            "app.children.of references app.accounts.id",
        ),
    ],
)
def test_a_reference_to_other_values_is_refused_at_every_step(
    place: Place, tables: list[Table], message: str
) -> None:
    """Identities of the target's keys, one column for two parents' keys, parents not captured."""
    target = place.target()
    with pytest.raises(SchemaConflict, match=message) as caught:
        target.prepare(tables)
    assert "primary_keys" in caught.value.hint
    assert any(message in f"{f.where} {f.problem}" for f in target.check(tables) if f.refused)
    # Prepared by a version, or under a placement, that let it pass: rows are refused as well.
    place.target(primary_keys="copy").prepare(tables)
    last = tables[-1]
    row: dict[str, Any] = {x.name: 1 if x.kind == INT else "a" for x in last.columns}
    batch = Stream().batch(c(last, **row))
    with pytest.raises(SchemaConflict, match=message):
        deliver(target, batch)
    with pytest.raises(SchemaConflict, match=message):
        list(target.rows(last))
    assert target.checkpoint() is None


@pytest.mark.parametrize("primary_keys", ["local", "copy"])
def test_a_reference_to_a_column_that_the_source_keeps_is_refused(
    place: Place, primary_keys: str
) -> None:
    users, orders = without(USERS, "id"), child("of", to("of", "users", "id"))
    with pytest.raises(SchemaConflict, match=r"app.users.id, which is not copied"):
        place.target(primary_keys=primary_keys).prepare([users, orders])
    codes = child("of", to("code", "accounts", "code"))
    target = place.target(primary_keys=primary_keys, exclude_columns=["app.accounts.code"])
    with pytest.raises(SchemaConflict, match=r"app.accounts.code, which is not copied"):
        target.prepare([USERS, ACCOUNTS, codes])
    place.target(exclude_columns=["app.children.of"]).prepare([users, orders])


def test_a_reference_of_another_type_than_its_parent_is_refused(place: Place) -> None:
    """PostgreSQL lets a numeric reference an int: 7.00 is not the text of the key 7."""
    kind = Kind(name="decimal", precision=12, scale=2)
    notes = table("notes", column("of", kind), foreign_keys=(to("of", "users", "id"),))
    with pytest.raises(SchemaConflict, match=r"app.notes.of references app.users.id, .* type"):
        place.target().prepare([USERS, notes])


def test_references_to_copied_values_are_kept(place: Place) -> None:
    """A unique column of plain values; a composite key whose columns mean the same on both ends."""
    children = table(
        "children",
        column("owner", INT),
        column("code"),
        foreign_keys=(foreign_key("owner", "users"), to("code", "accounts", "code")),
        composite_keys=(both(("owner", "code"), ("user_id", "code")),),
    )
    stream, target = Stream(), place.target()
    target.prepare([USERS, ACCOUNTS, children])
    deliver(
        target,
        stream.batch(
            c(children, id=1, sync_id="c", owner=7, code="x"),
            c(ACCOUNTS, id=9, sync_id="a", user_id=7, code="x"),
            c(USERS, id=7, sync_id="u", name="U"),
        ),
    )
    (row,) = held(target, children)
    assert (row["owner"], row["code"]) == ('{"sync_id":"u"}', "x")
    joined = "a.user_id = c.owner and a.code = c.code"
    assert place.query(f"select count(*) from children c join accounts a on {joined}") == [(1,)]


SYNC_ID = {"postgres": "uuid not null unique", "mysql": "char(36) not null unique"}
DOCUMENTS = """
create table tenants (id int primary key, sync_id {sync_id});
create table people (id int primary key, sync_id {sync_id}, tenant int not null, code int not null,
  foreign key (tenant) references tenants (id), unique (tenant, id), unique (tenant, code));
create table documents (id int primary key, sync_id {sync_id}, tenant int not null,
  person int not null, foreign key (tenant) references tenants (id),
  foreign key (tenant, person) references people (tenant, id));
"""


@pytest.mark.parametrize("kind", ["postgres", "mysql", "mariadb"])
def test_sources_tell_of_composite_keys(
    kind: str, request: pytest.FixtureRequest, new_database: Callable[[Server], Database]
) -> None:
    source, target = (new_database(request.getfixturevalue(k)) for k in (kind, "postgres"))
    family = "postgres" if kind == "postgres" else "mysql"
    source.execute(DOCUMENTS.format(sync_id=SYNC_ID[family]))
    config = configured(source, target)
    with opened_source(config, "shop") as opened, opened_target(config, "mirror") as mirror:
        # Not prepared: a slot would wait for every transaction of the shared server.
        tables = opened.describe()
        by_name = {t.full_name: t for t in tables}
        (documents,) = (t for t in tables if t.name == "documents")
        found = translated_keys(documents, by_name, config.targets["mirror"].placement)
        assert {n: k.parent.split(".")[1] for n, k in found.items()} == {
            "tenant": "tenants",
            "person": "people",
        }
        assert mirror.prepare(tables)


def configured(source: Database, target: Database) -> Config:
    """A source named shop, and its target."""
    schema = schema_of(source)
    mirror = {"url": user_url(target), "source": "shop", "schemas": {schema: schema_of(target)}}
    shop = {"url": user_url(source), "include": [f"{schema}.*"]}
    return Config.model_validate({"sources": {"shop": shop}, "targets": {"mirror": mirror}})
