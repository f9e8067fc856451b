"""The apply's loop over batches that wait already: one target transaction, and the same rows."""

from __future__ import annotations

from typing import Any

import pytest

from apply import loop
from schemas.change import Batch
from schemas.errors import Poison
from schemas.kinds import Kind
from tests.conformance.targets import (
    INT,
    Change,
    Place,
    Stream,
    c,
    column,
    d,
    foreign_key,
    held,
    place,
    table,
    u,
)

__all__ = ["place"]

ITEMS = table("items", column("name"))
USERS = table("users", column("name"))
ORDERS = table("orders", column("user_id", INT), foreign_keys=(foreign_key("user_id", "users"),))


def user(key: int, sync_id: str) -> Change:
    return c(USERS, id=key, sync_id=sync_id, name=sync_id)


def order(key: int, sync_id: str, of: int) -> Change:
    return c(ORDERS, id=key, sync_id=sync_id, user_id=of)


def apply(stream: Stream, place: Place) -> list[tuple[int, int]]:
    """Apply to the log's end; each transaction's newest batch and number of batches."""
    target, done = place.target(), []

    def seen(batch: Batch | None, rows: int) -> None:
        if batch is not None:
            done.append((batch.batch, batch.batches))

    loop.apply(stream.log, target, follow=False, seen=seen)
    return done


def test_waiting_batches_are_one_transaction(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    for number in range(5):
        stream.batch(
            c(ITEMS, id=number, sync_id=f"s{number}", name="new"),
            u(ITEMS, id=0, sync_id="s0", name=f"version {number}"),
        )
    stream.batch(d(ITEMS, sync_id="s3"))
    assert apply(stream, place) == [(6, 6)]
    names = {row["sync_id"]: row["name"] for row in held(target, ITEMS)}
    assert names == {"s0": "version 4", "s1": "new", "s2": "new", "s4": "new"}
    assert target.checkpoint() == stream.batches()[-1].offset
    stream.batch(d(ITEMS, sync_id="s4"))
    assert apply(stream, place) == [(7, 1)]


def test_a_key_used_again_in_a_later_batch_is_another_parent(place: Place) -> None:
    """Children follow what the key meant at their moment, also where batches are one."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    stream.batch(user(1, "a"), user(2, "other"))
    stream.batch(order(1, "o1", 1), order(2, "o2", 1))
    stream.batch(u(ORDERS, id=2, sync_id="o2", user_id=2), d(ORDERS, sync_id="o1"))
    stream.batch(d(USERS, id=1, sync_id="a"))
    stream.batch(user(1, "b"))
    stream.batch(order(3, "o3", 1))
    assert apply(stream, place) == [(6, 6)]
    assert [row["sync_id"] for row in held(target, USERS)] == ["b", "other"]
    parents = {row["sync_id"]: row["user_id"] for row in held(target, ORDERS)}
    assert {name: key.split('"')[3] for name, key in parents.items()} == {
        "o2": "other",
        "o3": "b",
    }
    stream.batch(order(4, "o4", 1), d(USERS, id=2, sync_id="other"), d(ORDERS, sync_id="o2"))
    assert apply(stream, place) == [(7, 1)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (INT, (1, 2)),
        (Kind(name="date"), ("2026-11-22", "2026-11-23")),
        (Kind(name="text", length=4), ("a", "b")),
    ],
)
def test_unique_values_swapped_in_a_later_batch(
    place: Place, kind: Kind, values: tuple[Any, Any]
) -> None:
    """H93."""
    items = table("items", column("code", kind, nullable=False), uniques=(("code",),))
    stream, target = Stream(), place.target()
    target.prepare([items])
    stream.batch(*(c(items, id=n, sync_id=f"s{n}", code=values[n]) for n in (0, 1)))
    assert apply(stream, place) == [(1, 1)]
    stream.batch(c(items, id=2, sync_id="s2", code=values[0]), d(items, sync_id="s2"))
    stream.batch(*(u(items, id=n, sync_id=f"s{n}", code=values[1 - n]) for n in (0, 1)))
    assert apply(stream, place) == [(3, 2)]
    assert {row["sync_id"]: row["code"] for row in held(target, items)} == {
        "s0": values[1],
        "s1": values[0],
    }


def test_what_comes_before_a_poisoned_batch_is_applied(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    bad = c(ITEMS, id=4, sync_id=None, name="D")
    first = stream.batch(c(ITEMS, id=1, sync_id="a", name="A"))
    stream.batch(c(ITEMS, id=2, sync_id="b", name="B"), bad)
    stream.batch(c(ITEMS, id=3, sync_id="c", name="C"))
    with pytest.raises(Poison, match=r"batch 2, ordinal 1"):
        apply(stream, place)
    assert target.checkpoint() == first.offset
    assert [row["sync_id"] for row in held(target, ITEMS)] == ["a"]


def test_after_a_fault_of_being_together_batches_are_together_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No value is free for a swap that the source made in three steps."""
    monkeypatch.setattr(loop, "TOGETHER", 3)
    items = table("items", column("code", nullable=False), uniques=(("code",),))
    stream, target = Stream(), place.target()
    target.prepare([items])
    place.check("items", "code", "in ('a', 'b', 'c')")

    def changed(number: int, code: str) -> Change:
        return u(items, id=number, sync_id=f"s{number}", code=code)

    stream.batch(*(c(items, id=n, sync_id=f"s{n}", code=code) for n, code in ((1, "a"), (2, "b"))))
    assert apply(stream, place) == [(1, 1)]
    for number, code in ((1, "c"), (2, "a"), (1, "b"), (2, "a"), (1, "b")):
        stream.batch(changed(number, code))
    assert apply(stream, place) == [(2, 1), (3, 1), (4, 1), (6, 2)]
    assert {row["sync_id"]: row["code"] for row in held(target, items)} == {"s1": "b", "s2": "a"}
