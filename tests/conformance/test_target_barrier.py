"""A check in the stream, compared at exactly its place (T73)."""

from __future__ import annotations

from typing import Any

import pytest

from apply.target import Target
from schemas.change import Batch, Sweep
from schemas.errors import Fenced
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
    r,
    table,
    u,
)

__all__ = ["place"]

USERS = table("users", column("n", INT))
ORDERS = table("orders", column("user_id", INT), foreign_keys=(foreign_key("user_id", "users"),))


def sweep(what: Any, of: str) -> Sweep:
    return Sweep(f"app.{of}", "7.0", what, check=True)


def results(target: Target) -> dict[str, tuple[int, int, int | None, list[list[str]]]]:
    return {
        found.table: (found.rows, found.different, found.extra, [list(x) for x in found.listed])
        for found in target.checked()
    }


def begun(place: Place) -> tuple[Stream, Target]:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    users = [c(USERS, id=i, sync_id=f"u{i}", n=i) for i in range(1, 6)]
    deliver(target, stream.batch(*users, c(ORDERS, id=1, sync_id="o1", user_id=2)))
    both = ("users", "orders")
    deliver(target, stream.batch(sweeps=tuple(sweep("begins", name) for name in both)))
    return stream, target


def check(stream: Stream, *, n: int = 3) -> list[Batch]:
    """The check's batches: a change of the stream between its chunks is part of neither."""
    users = [r(USERS, id=i, sync_id=f"u{i}", n=i) for i in (1, 2, 4)]
    first = stream.batch(*users, r(USERS, id=3, sync_id="u3", n=n), check=True)
    between = stream.batch(u(USERS, id=5, sync_id="u5", n=50))
    ends = tuple(sweep("ends", name) for name in ("users", "orders"))
    last = stream.batch(r(ORDERS, id=1, sync_id="o1", user_id=2), check=True, sweeps=ends)
    return [first, between, last]


def test_equal_rows_are_valid_at_that_place_and_nothing_is_written(place: Place) -> None:
    """T73."""
    stream, target = begun(place)
    for batch in check(stream):
        deliver(target, batch)
    assert results(target) == {"app.users": (4, 0, 0, []), "app.orders": (1, 0, 0, [])}
    assert [row["n"] for row in held(target, USERS)] == [1, 2, 3, 4, 50]


@pytest.mark.parametrize(
    ("damage", "users", "orders"),
    [
        ("update users set n = 9 where sync_id = 'u2'", ("different", "u2"), None),
        ("update users set n = null where sync_id = 'u4'", ("different", "u4"), None),
        ("delete from users where sync_id = 'u1'", ("different", "u1"), None),
        ("insert into users (id, sync_id, n) values (99, 'u9', 9)", ("extra", "u9"), None),
        (
            "update orders set user_id = (select id from users where sync_id = 'u1')",
            None,
            ("different", "o1"),
        ),
    ],
)
def test_what_is_wrong_is_found_and_named(
    place: Place, damage: str, users: tuple[str, str] | None, orders: tuple[str, str] | None
) -> None:
    """T66, T73: one value, a row too few, a row too many, a reference to another parent."""
    stream, target = begun(place)
    place.execute(damage)
    before = held(target, USERS)
    batches = check(stream)
    for batch in batches:
        deliver(target, batch)
    found = results(target)
    for name, wrong in (("app.users", users), ("app.orders", orders)):
        _, different, extra, listed = found[name]
        assert (different, extra) == (
            int(wrong is not None and wrong[0] == "different"),
            int(wrong is not None and wrong[0] == "extra"),
        )
        assert [kind for kind, _ in listed] == ([wrong[0]] if wrong else [])
        assert all(wrong is not None and wrong[1] in key for _, key in listed)
    assert [row for row in held(target, USERS) if row["sync_id"] != "u5"] == [
        row for row in before if row["sync_id"] != "u5"
    ]


def test_a_check_that_comes_out_of_its_order_is_refused(place: Place) -> None:
    """T73: it would compare the rows of another moment."""
    stream, target = begun(place)
    at = target.checkpoint()
    first, between, last = check(stream)
    deliver(target, first)
    deliver(target, between)
    with pytest.raises(Fenced):
        target.apply(last, expect=at)
    target = place.target()
    deliver(target, last)
    assert results(target)["app.users"][:3] == (4, 0, 0)


def test_a_target_that_began_to_read_later_has_no_result(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    for batch in check(stream):
        deliver(target, batch)
    assert results(target) == {}
