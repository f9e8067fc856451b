"""What a rebuild asks of a log: what it holds, and all rows of some tables, in any order."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.conformance.logs import (
    FACTORIES,
    ORDERS,
    USERS,
    USERS_WIDENED,
    Place,
    Writer,
    batches,
    rows_of,
    users,
)
from transport.batch import PLACE_BITS
from transport.log import Log

BEGUN = {"what": "rows", "after": None, "done": False}
DONE = {"what": "rows", "after": None, "done": True}


@pytest.fixture(params=FACTORIES)
def place(request: pytest.FixtureRequest) -> Place:
    return FACTORIES[request.param](request)


def scanned(log: Log, first: dict[str, int], until: int) -> list[tuple[int, int, str, bytes]]:
    """(batch, ordinal, op, key), in order."""
    return sorted(
        (ordinal >> PLACE_BITS, ordinal & ((1 << PLACE_BITS) - 1), op, key)
        for rows in log.scan(first, until)
        for ordinal, op, key in zip(rows.ordinals, rows.ops, rows.keys, strict=True)
    )


def test_every_row_that_counts_comes_once(place: Place) -> None:
    with closing(place.connect()) as log:
        writer = Writer(log)
        begun = {"public.users": BEGUN, "public.orders": BEGUN}
        writer.write("1", users(*range(20), op="r"), progress=begun)
        orders = [("c", ORDERS, n) for n in range(30)]
        writer.write("2", [*orders, *users(3, 4, op="u"), "public.orders"], size=7,
                     progress={"public.users": DONE, "public.orders": DONE})  # fmt: skip
        # A crash, and a capture that sends its rows again.
        writer.begin(users(99))
        writer = Writer(place.connect())
        writer.write("3", [("d", USERS, 3), ("u", USERS_WIDENED, 5), ("s", ORDERS, 1)])
        writer.write("4", users(77))
        with closing(place.connect()) as reader:
            read = [
                (batch.batch, ordinal, op, key, table)
                for batch in batches(reader)
                for ordinal, table, op, key, _ in rows_of(batch)
                if op != "s"
            ]
            known = {t.fingerprint for t in reader.described()}
            assert known == {USERS.fingerprint, USERS_WIDENED.fingerprint, ORDERS.fingerprint}
            history = reader.history("eu", 3)
            assert history.record is not None
            assert (history.record.batch, history.rows_from(1)) == (3, 55)
            assert (history.starts("public.users"), history.compacted) == ([1], frozenset())
            assert history.truncates == [("public.orders", 2, 32)]
            for first in ({"public.users": 1}, {"public.users": 2, "public.orders": 1}, {}):
                assert scanned(reader, first, 3) == sorted(
                    row[:4] for row in read if first.get(row[4], 4) <= row[0] <= 3
                )
            (found,) = [b for b in reader.read(history.place(1), follow=False, until=1) if b]
            assert found.batch == 1


def test_a_row_that_is_gone_is_an_error(place: Place) -> None:
    with closing(place.connect()) as log:
        writer = Writer(log)
        for number in range(1, 9):
            progress = {"public.users": BEGUN if number < 3 else DONE}
            writer.write(str(number), users(*range(number * 10, number * 10 + 10)),
                         progress=progress)  # fmt: skip
        place.trim()
        with closing(place.connect()) as reader:
            history = reader.history("eu")
            assert history.starts("public.users") == []
            assert history.record is not None
            assert len(scanned(reader, {"public.users": 8}, 8)) == 10


def test_two_batches_side_by_side_in_a_partition_are_told_apart(place: Place) -> None:
    """Rows of one run lie between those of another, and each is counted for its own batch."""
    with closing(place.connect()) as log:
        writer = Writer(log)
        one, other = writer.pieces(users(*range(60)), size=20), writer.pieces(
            users(*range(100, 160)), size=20
        )  # fmt: skip
        for left, right in zip(one, other, strict=True):
            writer.log.append(left)
            writer.log.append(right)
        writer.end(one[0].run, "1", progress={"public.users": BEGUN})
        writer.end(other[0].run, "2", progress={"public.users": DONE})
        log.flush()
        found = scanned(log, {"public.users": 1}, 2)
        assert [row[0] for row in found] == [1] * 60 + [2] * 60
