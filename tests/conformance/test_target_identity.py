"""Every target: rows found by a natural key or a UUID in another form, and what becomes of one
that changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from apply.target import Target
from schemas.errors import SchemaConflict
from schemas.kinds import Kind
from schemas.table import ForeignKey
from tests.conformance.targets import (
    ID,
    INT,
    SYNC_ID,
    Change,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    held,
    place,
    table,
    u,
)

__all__ = ["place"]

PRICES = table(
    "prices",
    column("country", nullable=False),
    column("article", INT, nullable=False),
    column("price", INT),
    identity=("country", "article"),
    uniques=(("country", "article"),),
)
PRICES = replace(PRICES, columns=tuple(x for x in PRICES.columns if x.name != "sync_id"))
LISTS = table(
    "lists",
    column("price_id", INT),
    foreign_keys=(ForeignKey(column="price_id", parent="app.prices", parent_column="id"),),
)


def price(number: int, country: str, article: int, price: int) -> dict[str, Any]:
    return {"id": number, "country": country, "article": article, "price": price}


def gone(number: int, country: str, article: int, before: int) -> Change:
    return d(PRICES, **price(number, country, article, before))


def rows(place: Place) -> list[tuple[Any, ...]]:
    return place.query("select id, country, article, price from prices order by id")


def test_rows_are_found_by_all_columns_of_a_natural_key(place: Place) -> None:
    """T1, T10: local keys and rows stay, whatever the source's keys are."""
    place.execute(
        f"create table prices (id {place.serial}, country varchar(50), article int,"
        " price int, unique (country, article))",
        "insert into prices (country, article, price) values"
        " ('de', 7, 1), (null, 7, 2), ('fr', 7, 3)",
    )
    stream, target = Stream(), place.target()
    target.prepare([PRICES])
    first = [c(PRICES, **price(10, "de", 7, 100)), c(PRICES, **price(11, "de", 8, 200))]
    batches = [
        stream.batch(*first),
        stream.batch(u(PRICES, **price(10, "de", 7, 101)), u(PRICES, **price(12, "de", 8, 201))),
        stream.batch(gone(10, "de", 7, 101)),
    ]
    deliver(target, batches[0])
    assert rows(place)[:3] == [(1, "de", 7, 100), (2, None, 7, 2), (3, "fr", 7, 3)]
    (own,) = [row[0] for row in rows(place)[3:]]
    deliver(target, batches[1])
    assert rows(place) == [
        (1, "de", 7, 101), (2, None, 7, 2), (3, "fr", 7, 3), (own, "de", 8, 201),
    ]  # fmt: skip
    deliver(target, batches[2])
    place.execute(f"update headwater_checkpoint set log_offset = '{batches[0].offset}'")
    for batch in batches[1:]:
        deliver(target, batch)
    assert rows(place) == [(2, None, 7, 2), (3, "fr", 7, 3), (own, "de", 8, 201)]


def test_a_natural_key_that_changes_leaves_one_row(place: Place) -> None:
    """T5: also where keys swap, move in a chain, and come back in one batch."""
    stream, target = Stream(), place.target()
    target.prepare([PRICES])
    deliver(target, stream.batch(*(c(PRICES, **price(n, "de", n, n)) for n in (1, 2, 3))))
    swap = [
        gone(1, "de", 1, 1), c(PRICES, **price(1, "xx", 0, 1)),
        gone(2, "de", 2, 2), c(PRICES, **price(2, "de", 1, 2)),
        gone(1, "xx", 0, 1), c(PRICES, **price(1, "de", 2, 1)),
        gone(3, "de", 3, 3), c(PRICES, **price(3, "de", 4, 3)),
    ]  # fmt: skip
    deliver(target, stream.batch(*swap))
    found = {(r["country"], r["article"]): r["price"] for r in held(target, PRICES)}
    assert found == {("de", 1): 2, ("de", 2): 1, ("de", 4): 3}
    deliver(target, stream.batch(gone(3, "de", 4, 3), c(PRICES, **price(3, "DE", 4, 3))))
    found = {(r["country"], r["article"]): r["price"] for r in held(target, PRICES)}
    assert found == {("de", 1): 2, ("de", 2): 1, ("DE", 4): 3}


def test_keys_of_rows_with_several_identifying_columns_are_not_translated(place: Place) -> None:
    target = place.target()
    with pytest.raises(SchemaConflict, match="identified by several columns"):
        target.prepare([PRICES, LISTS])
    target = place.target(primary_keys="copy")
    target.prepare([PRICES, LISTS])
    change = c(LISTS, id=1, sync_id="l", price_id=10)
    deliver(target, Stream().batch(c(PRICES, **price(10, "de", 7, 100)), change))
    assert place.query("select price_id from lists") == [(10,)]


USERS = table("users", column("name"))
ORDERS = table(
    "orders",
    column("user_id", INT, nullable=False),
    foreign_keys=(foreign_key("user_id", "users"),),
)
ONE = "0c5d0a4e-0000-4000-8000-0000000000aa"
TWO = "0c5d0a4e-0000-4000-8000-0000000000bb"


def as_uuids(place: Place) -> Target:
    """A target whose identities are UUIDs or their bytes; the source's are texts."""
    form = "uuid" if place.kind in ("postgres", "mariadb") else "binary(16)"
    form = "blob" if place.is_sqlite else form
    place.execute(
        f"create table users (id {place.serial}, sync_id {form} unique, name varchar(50))",
        f"create table orders (id {place.serial}, sync_id {form} unique, user_id int not null,"
        " foreign key (user_id) references users (id))",
    )
    target = place.target(parked_limit=10)
    target.prepare([USERS, ORDERS])
    return target


def test_an_identity_in_another_letter_case_is_the_same_row(place: Place) -> None:
    """T5, H106: a UUID that is a text at the source changes its case, and then itself."""
    stream, target = Stream(), as_uuids(place)
    first = [
        c(USERS, id=10, sync_id=ONE.upper(), name="a"),
        c(ORDERS, id=1, sync_id=TWO, user_id=10),
    ]
    deliver(target, stream.batch(*first))
    before = place.query("select id from users")
    again = [
        d(USERS, id=10, sync_id=ONE.upper(), name="a"),
        c(USERS, id=10, sync_id=ONE, name="b"),
        u(USERS, id=10, sync_id=ONE, name="c"),
        d(USERS, id=10, sync_id=ONE, name="c"),
        c(USERS, id=10, sync_id=ONE.title(), name="d"),
    ]
    deliver(target, stream.batch(*again))
    assert place.query("select id, name from users") == [(*before[0], "d")]
    changed = [
        d(USERS, id=10, sync_id=ONE.title(), name="d"),
        c(USERS, id=10, sync_id=TWO.upper(), name="e"),
    ]
    deliver(target, stream.batch(*changed))
    assert target.parked() == []
    assert place.query("select u.name from orders o join users u on u.id = o.user_id") == [("e",)]
    assert place.query("select count(*) from users") == [(1,)]


def test_an_identity_that_is_no_uuid_is_parked_where_it_must_be_one(place: Place) -> None:
    stream, target = Stream(), as_uuids(place)
    changes = [c(USERS, id=n, sync_id=i, name="a") for n, i in ((1, ONE), (2, "no-uuid"), (3, TWO))]
    deliver(target, stream.batch(*changes))
    assert [change.reason for change in target.parked()] == ["value"]
    assert place.query("select count(*) from users") == [(2,)]


@pytest.mark.parametrize("place", ["mysql", "postgres"], indirect=True)
def test_columns_that_hold_no_uuid_are_refused(place: Place) -> None:
    """What would be padded or cut, and what is bytes but not an identity."""
    raw = replace(USERS, columns=(ID, replace(SYNC_ID, kind=Kind(name="binary", length=16))))
    for declared, table_ in (("varchar(32)", raw), ("binary(20)", USERS), ("varbinary(9)", USERS)):
        if place.kind == "postgres" and declared != "varchar(32)":
            continue
        place.execute(f"create table users (id {place.serial}, sync_id {declared} unique)")
        with pytest.raises(SchemaConflict, match="does not hold UUIDs"):
            place.target().prepare([replace(table_, columns=table_.columns[:2])])
        place.execute("drop table users")
