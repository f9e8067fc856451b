"""Which columns lead to a table whose keys are the target's own, from descriptions alone."""

from __future__ import annotations

import pytest

from apply.declared import ByType
from apply.declared_fit import idle, suspected, unusable
from apply.placement import own_key
from apply.references import translated_keys
from apply.target import Placement
from schemas.table import Table
from tests.conformance.targets import INT, column, foreign_key, table

USERS = table("users", column("name"))
CITIES = table("cities", column("name"))
NOTES = table(
    "notes",
    column("user_id", INT),
    column("cityId", INT),
    column("writer_id", INT),
    column("user", INT),
    column("User_ID"),
    column("reader", INT),
    foreign_keys=(foreign_key("reader", "users"),),
)
KNOWN = {t.full_name: t for t in (USERS, CITIES, NOTES)}


def suspects(table: Table, placement: Placement) -> dict[str, str]:
    return {f.where: f.fix for f in suspected(table, KNOWN, placement)}


def test_a_column_named_for_a_table_with_keys_of_its_own_is_suspected() -> None:
    """Not one of another type, nor one that a foreign key tells of."""
    found = suspects(NOTES, Placement())
    assert set(found) == {"app.notes.user_id", "app.notes.cityId"}
    assert found["app.notes.user_id"].count('{ "app.notes.user_id" = "app.users.id" }') == 1
    assert not any(f.refused for f in suspected(NOTES, KNOWN, Placement()))
    assert suspects(NOTES, Placement(primary_keys="copy")) == {}
    assert set(suspects(NOTES, Placement(exclude_columns=["*.cityId"]))) == {"app.notes.user_id"}


def test_a_declaration_of_a_table_that_is_not_captured_is_warned_of() -> None:
    told = {"app.nots.user_id": "app.users.id", "app.notes.user_id": "app.users.id"}
    (found,) = idle(KNOWN, Placement(references=told))
    assert found.where == 'references "app.nots.user_id"'
    assert not found.refused


def test_columns_that_are_named_like_references_in_other_ways_are_suspected() -> None:
    """The last words of a name, a tree's parent, and an owner with a type beside it."""
    things = table(
        "things",
        column("billing_user_id", INT),
        column("homeCityId", INT),
        column("parent_id", INT),
        column("owner_id", INT),
        column("owner_type"),
        column("user_id", INT),
        column("user_type", INT),
        column("tax_id", INT),
        column("parent_type_id"),
        column("abuser_id", INT),
    )
    known = KNOWN | {things.full_name: things}
    found = {f.where.rpartition(".")[2]: f for f in suspected(things, known, Placement())}
    assert set(found) == {"billing_user_id", "homeCityId", "parent_id", "owner_id", "user_id"}
    assert '"app.things.parent_id" = "app.things.id"' in found["parent_id"].fix
    assert 'by = "owner_type", to = {' in found["owner_id"].fix
    assert 'by = "user_type", to = {' in found["user_id"].fix
    assert not any(f.refused for f in found.values())
    declared = {"app.things.owner_id": ByType(by="owner_type", to={"U": "app.users.id"})}
    assert "app.things.owner_id" not in {
        f.where for f in suspected(things, known, Placement(references=declared))
    }


def test_a_declared_reference_is_translated_and_not_suspected() -> None:
    told = Placement(references={"app.notes.user_id": "app.users.id"})
    assert set(suspects(NOTES, told)) == {"app.notes.cityId"}
    found = translated_keys(NOTES, KNOWN, told)
    assert {n: k.parent for n, k in found.items()} == {
        "user_id": "app.users",
        "reader": "app.users",
    }
    # A primary key that is declared to be another table's is not the target's own.
    shared = Placement(references={"app.cities.id": "app.users.id"})
    assert own_key(CITIES, shared) is None
    assert translated_keys(CITIES, KNOWN, shared)["id"].parent == "app.users"


def test_a_declaration_of_a_column_that_is_not_there_is_refused() -> None:
    (found,) = unusable(NOTES, KNOWN, Placement(references={"app.notes.usr": "app.users.id"}))
    assert found.where == "app.notes.usr"


@pytest.mark.parametrize("name", ["a", "b"])
def test_keys_that_lead_in_a_circle_are_nobodys(name: str) -> None:
    a = table("a", primary_key=("id",), foreign_keys=(foreign_key("id", "b"),))
    b = table("b", primary_key=("id",), foreign_keys=(foreign_key("id", "a"),))
    known = {t.full_name: t for t in (a, b)}
    assert translated_keys(known[f"app.{name}"], known, Placement()) == {}
