"""Several batches that wait already, given as one: what a target that is behind reads."""

from __future__ import annotations

import pytest

from schemas.change import Batch, Offset
from tests.conformance.logs import (
    FACTORIES,
    ORDERS,
    USERS,
    USERS_WIDENED,
    Change,
    Place,
    Writer,
    batches,
    ids,
    rows_of,
    users,
)
from transport.log import Log


@pytest.fixture(params=FACTORIES)
def place(request: pytest.FixtureRequest) -> Place:
    return FACTORIES[request.param](request)


def together(log: Log, rows: int, after: Offset | None = None) -> list[Batch]:
    read = log.read(after, follow=False, together=rows)
    return [batch for batch in read if batch is not None]


def test_batches_that_wait_come_as_one_in_their_order(place: Place) -> None:
    writer = Writer(place.connect())
    for number in range(40):
        changes: list[Change] = [("u", ORDERS, number), ("c", USERS, number), ("u", ORDERS, number)]
        writer.write(f"p{number}", changes)
    log = place.connect()
    single = batches(log)
    (one,) = together(log, 1_000)
    assert (one.batches, one.batch, one.row_count, one.transactions) == (40, 40, 120, 40)
    assert (one.from_position, one.position, one.offset) == ("", "p39", single[-1].offset)
    assert [row[1:] for row in rows_of(one, 7)] == [row[1:] for b in single for row in rows_of(b)]
    assert [one.place(row[0]) for row in rows_of(one)] == [
        (b.batch, row[0]) for b in single for row in rows_of(b)
    ]
    assert rows_of(one) == rows_of(one, 1)
    assert together(log, 1_000, one.offset) == []
    assert ids(together(log, 1_000, single[20].offset)[0]) == [
        c for b in single[21:] for c in ids(b)
    ]


def test_no_more_rows_come_as_one_than_were_asked_for(place: Place) -> None:
    writer = Writer(place.connect())
    for number, size in enumerate([3, 3, 3, 20, 1, 0, 4]):
        writer.write(f"p{number}", users(*range(size)))
    sizes = [b.row_count for b in together(place.connect(), 6)]
    assert sizes == [6, 3, 20, 5]
    assert [b.batches for b in together(place.connect(), 0)] == [1] * 7


def test_a_truncate_and_a_seed_are_given_alone(place: Place) -> None:
    """Their place is one among their own batch's rows."""
    writer = Writer(place.connect())
    writer.write("a", users(1))
    writer.write("b", ["public.users", *users(2)])
    writer.write("c", users(3))
    writer.write("d", users(4, op="s"))
    writer.write("e", users(5))
    writer.write("f", users(6))
    found = together(place.connect(), 100)
    assert [b.position for b in found] == ["a", "b", "c", "d", "f"]
    assert [b.seeds for b in found] == [False, False, False, True, False]


def test_batches_of_a_first_copy_are_given_alone(place: Place) -> None:
    """What may be missing during a copy may not afterwards, and its rows may come twice."""
    writer = Writer(place.connect())
    for number, done in enumerate([False, False, True, True]):
        progress = {"public.users": {"after": number, "done": done}}
        writer.write(f"p{number}", users(number, op="r"), progress=progress)
    found = together(place.connect(), 100)
    assert [(b.position, sorted(b.pending)) for b in found] == [
        ("p0", ["public.users"]),
        ("p1", ["public.users"]),
        ("p3", []),
    ]


def test_a_block_holds_no_table_in_two_descriptions(place: Place) -> None:
    """Rows of the older one would be written after newer rows of the same keys, or before."""
    writer = Writer(place.connect())
    order = [USERS, USERS_WIDENED, ORDERS, USERS_WIDENED, USERS, USERS]
    for number, table in enumerate(order):
        writer.write(f"p{number}", [("u", table, 1), ("u", ORDERS, number)])
    (one,) = together(place.connect(), 100)
    assert len(rows_of(one)) == 12
    for block in one.blocks():
        names = [rows.table.full_name for rows in block]
        assert len(names) == len(set(names))
