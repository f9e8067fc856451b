"""Every target: composite foreign keys, keys to unique columns and shared primary keys (T20)."""

from __future__ import annotations

from typing import Any

from schemas.table import CompositeKey, ForeignKey, Table
from tests.conformance.targets import (
    INT,
    SOURCE,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    place,
    table,
    u,
)

__all__ = ["SOURCE", "place"]

USERS = table("users", column("tenant", INT), column("name"), uniques=(("tenant", "id"),))
PROFILES = table(
    "profiles",
    column("user_id", INT, nullable=False),
    primary_key=("user_id",),
    foreign_keys=(foreign_key("user_id", "users"),),
)
ACCOUNTS = table(
    "accounts",
    column("user_id", INT),
    column("code"),
    uniques=(("user_id",), ("code",), ("user_id", "code"), ("code", "id")),
    foreign_keys=(foreign_key("user_id", "users"),),
)
LINES = table(
    "order_lines",
    column("order_id", INT, nullable=False),
    column("line", INT, nullable=False),
    primary_key=("order_id", "line"),
    foreign_keys=(foreign_key("order_id", "users"),),
)


def to(name: str, parent: str, parent_column: str) -> ForeignKey:
    return ForeignKey(column=name, parent=f"app.{parent}", parent_column=parent_column)


def composite(columns: tuple[str, ...], parent: str, keys: tuple[str, ...]) -> CompositeKey:
    return CompositeKey(columns=columns, parent=f"app.{parent}", parent_columns=keys)


def child(*keys: ForeignKey, whole: tuple[CompositeKey, ...] = ()) -> Table:
    return table(
        "children",
        column("of", INT),
        column("code"),
        column("line", INT),
        foreign_keys=keys,
        composite_keys=whole,
    )


def row(of: Table, number: int, sync_id: str, /, **more: Any) -> Any:
    """A new row; columns that are not named are NULL."""
    return c(of, **{x.name: None for x in of.columns} | {"id": number, "sync_id": sync_id} | more)


def people(*numbers: int) -> list[Any]:
    """Users whose local keys become other ones: later numbers come first."""
    return [row(USERS, n, f"u{n}", tenant=5, name="n") for n in sorted(numbers, reverse=True)]


def parents(place: Place, join: str) -> dict[str, Any]:
    """Children's sync_ids and those of the rows they point at."""
    return dict(place.query(f"select c.sync_id, p.sync_id from children c left join {join}"))


def test_a_composite_key_with_the_parents_own_key_is_translated(place: Place) -> None:
    """T20: (tenant, id): the tenant is copied, the key is the target's."""
    children = child(whole=(composite(("line", "of"), "users", ("tenant", "id")),))
    stream, target = Stream(), place.target()
    target.prepare([USERS, children])
    deliver(target, stream.batch(*people(1, 2, 3), row(children, 1, "a", of=3, line=5)))
    join = "users p on p.id = c.of and p.tenant = c.line"
    assert parents(place, join) == {"a": "u3"}
    assert place.query("select c.of from children c") == [(1,)]
    deliver(
        target,
        stream.batch(
            u(children, id=1, sync_id="a", of=1, line=5, code=None),
            row(children, 2, "b", of=None, line=5),
        ),
    )
    assert parents(place, join) == {"a": "u1", "b": None}


def test_a_key_that_is_shared_with_a_parent_leads_to_it(place: Place) -> None:
    """T20: profiles.user_id is the profile's primary key and the user's."""
    children = child(to("of", "profiles", "user_id"))
    stream, target = Stream(), place.target()
    target.prepare([USERS, PROFILES, children])
    deliver(
        target,
        stream.batch(
            *people(1, 2),
            row(PROFILES, 0, "p2", user_id=2),
            row(PROFILES, 0, "p1", user_id=1),
            row(children, 1, "a", of=2),
            row(children, 2, "b", of=1),
        ),
    )
    join = "profiles p on p.user_id = c.of"
    assert parents(place, join) == {"a": "p2", "b": "p1"}
    deliver(
        target,
        stream.batch(
            d(children, sync_id="a"), d(PROFILES, sync_id="p2"), d(USERS, id=2, sync_id="u2")
        ),
    )
    assert parents(place, join) == {"b": "p1"}


def test_a_key_to_a_unique_reference_is_translated_to_whom_that_leads(place: Place) -> None:
    """T20: accounts.user_id is unique, and the target's key of a user."""
    whole = (composite(("of", "code"), "accounts", ("user_id", "code")),)
    stream, target = Stream(), place.target()
    children = child(to("of", "accounts", "user_id"), whole=whole)
    target.prepare([USERS, ACCOUNTS, children])
    deliver(
        target,
        stream.batch(
            row(children, 1, "a", of=3, code="x"),
            row(ACCOUNTS, 8, "k", user_id=3, code="x"),
            *people(1, 2, 3),
        ),
    )
    assert parents(place, "accounts p on p.user_id = c.of and p.code = c.code") == {"a": "k"}


def test_a_key_to_a_composite_primary_key_takes_what_each_column_means(place: Place) -> None:
    """T20: (order, line): the first is a translated reference, the second a number of the row."""
    children = child(whole=(composite(("of", "line"), "order_lines", ("order_id", "line")),))
    stream, target = Stream(), place.target()
    target.prepare([USERS, LINES, children])
    deliver(
        target,
        stream.batch(
            *people(1, 2),
            row(LINES, 0, "l", order_id=2, line=1),
            row(LINES, 0, "m", order_id=1, line=1),
            row(children, 1, "a", of=2, line=1),
        ),
    )
    join = "order_lines p on p.order_id = c.of and p.line = c.line"
    assert parents(place, join) == {"a": "l"}


def test_a_composite_key_within_a_table_waits_for_its_parent(place: Place) -> None:
    """T16 with T20: a tree by (code, boss), leaves first, and a cycle."""
    tree = table(
        "children",
        column("of", INT),
        column("code"),
        uniques=(("code", "id"),),
        composite_keys=(composite(("code", "of"), "children", ("code", "id")),),
    )
    stream, target = Stream(), place.target()
    target.prepare([tree])
    rows = [row(tree, n, f"s{n}", of=n + 1 if n < 9 else None, code="x") for n in range(5, 10)]
    deliver(target, stream.batch(*rows))
    deliver(target, stream.batch(row(tree, 3, "s3", of=4), row(tree, 4, "s4", of=3)))
    expected = {f"s{n}": f"s{n + 1}" for n in range(5, 9)} | {"s9": None, "s3": "s4", "s4": "s3"}
    assert parents(place, "children p on p.id = c.of") == expected


def test_one_column_that_two_keys_lead_to_the_same_parent_is_translated_once(place: Place) -> None:
    children = child(to("of", "users", "id"), to("of", "accounts", "user_id"))
    stream, target = Stream(), place.target()
    target.prepare([USERS, ACCOUNTS, children])
    deliver(
        target,
        stream.batch(*people(1, 2), row(ACCOUNTS, 8, "k", user_id=2), row(children, 1, "a", of=2)),
    )
    assert parents(place, "users p on p.id = c.of") == {"a": "u2"}


def test_a_declared_reference_is_translated_like_a_foreign_key(place: Place) -> None:
    """The source has no foreign key; a parent that comes later in the batch is waited for."""
    stream, children = Stream(), child()
    target = place.target(references={"app.children.of": "app.users.id"})
    target.prepare([USERS, children])
    deliver(
        target,
        stream.batch(
            row(children, 1, "a", of=3),
            *people(1, 2),
            row(children, 2, "b", of=1),
            *people(3),
        ),
    )
    assert parents(place, "users p on p.id = c.of") == {"a": "u3", "b": "u1"}
    deliver(target, stream.batch(u(children, id=1, sync_id="a", of=2, code=None, line=None)))
    assert parents(place, "users p on p.id = c.of") == {"a": "u2", "b": "u1"}
