"""Every target: rows found by a natural key, and what becomes of one that changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import SchemaConflict
from schemas.table import ForeignKey
from tests.conformance.targets import (
    INT,
    Change,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
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
