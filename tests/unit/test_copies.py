"""How a table's copy is handed out in ranges, and what the log learns of it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from capture import pace
from capture.copies import FEWEST_ROWS, Copy, Range, begun
from capture.pace import Throttle
from capture.requests import is_paused, sweeps, taken_in
from capture.source import Chunk
from schemas.change import Position, Progress
from schemas.kinds import Kind
from schemas.progress import REQUESTS, asked_copies, pending
from schemas.table import Column, Table
from transport.record import Request

ID = Column(name="id", kind=Kind(name="int", bits=64), nullable=False)
TABLE = Table(
    family="postgres",
    schema="public",
    name="t",
    columns=(ID,),
    primary_key=("id",),
    identity=("id",),
)
TABLES = {"public.t": TABLE}
LAST = 25


def find(table: Table, after: Any, rows: int, until: Any) -> Future[Any]:
    """A table of the numbers 1 to LAST."""
    found: Future[Any] = Future()
    border = (after[0] if after else 0) + rows
    end = until[0] if until else LAST
    found.set_result([border] if border <= end else None)
    return found


def chunk(of: Range, next_key: Any = None, rows: int = 5, size_bytes: int = 500) -> Chunk:
    keys = [b"%d" % n for n in range(rows)]
    return Chunk(
        table=TABLE,
        keys=keys,
        values=keys,
        after=of.after,
        until=of.until,
        next_key=next_key,
        seen="",
        high=Position("0"),
        read_at=0,
        size_bytes=size_bytes,
    )


def copy_of(state: dict[str, Any], rows: int = 10) -> Copy:
    return Copy(TABLE, state, None, None, most_rows=rows, most_bytes=1 << 20, rows=rows)


def handed_out(copy: Copy) -> list[Range]:
    return list(iter(lambda: copy.next(find), None))


def test_ranges_share_the_table_and_what_is_not_placed_is_read_again() -> None:
    """H126: a capture that dies repeats the ranges that it had begun."""
    copy = copy_of(begun())
    ranges = handed_out(copy)
    assert ranges == [(None, [10]), ([10], [20]), ([20], None)]
    state = copy.place(ranges[1], chunk(ranges[1]), 5, 0.01)
    assert (state["open"], state["after"], state["ended"]) == (
        [[None, [10]], [[20], None]],
        [20],
        True,
    )
    assert not state["done"]
    again = copy_of(state)
    assert handed_out(again) == [(None, [10]), ([20], None)]
    again.place(ranges[0], chunk(ranges[0]), 5, 0.01)
    last = again.place(ranges[2], chunk(ranges[2]), 4, 0.01)
    # Every commit record holds it from now on.
    assert last == {"after": None, "rows": 14, "done": True}


def test_rows_that_came_into_a_range_meanwhile_are_read_too() -> None:
    copy = copy_of(begun(after=[3], until=[9]))
    (whole,) = handed_out(copy)
    assert list(whole) == [[3], [9]]
    assert not copy.place(whole, chunk(whole, next_key=[7]), 5, 0.01)["done"]
    assert handed_out(copy) == [([7], [9])]


def test_a_chunk_that_was_too_large_or_too_slow_makes_the_next_ones_smaller() -> None:
    copy = Copy(TABLE, begun(), None, None, most_rows=10_000, most_bytes=1 << 20, rows=10_000)
    of = Range(None, [10])
    for size_bytes, took_s, wanted in ((100 << 20, 0.1, FEWEST_ROWS), (1_000, 0.1, 10_000)):
        copy.read.append(of)
        copy.place(of, chunk(of, rows=1_000, size_bytes=size_bytes), 1_000, took_s)
        assert copy.rows == wanted
    copy.read.append(of)
    copy.place(of, chunk(of, rows=1_000), 1_000, 5.0)
    assert copy.rows == 200


def test_a_rate_leaves_time_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    throttle = Throttle(1_000)
    assert throttle.is_open
    throttle.took(5_000)
    # Two seconds of credit, then a thousand rows a second.
    assert not throttle.is_open
    now[0] += 3.1
    assert throttle.is_open
    assert Throttle(None).is_open


def test_requests_are_taken_in_once_and_in_order() -> None:
    asked = [
        (4, Request(what="copy", tables={"public.t": {}}, for_target="eu")),
        (5, Request(what="copy", tables={"public.t": {"keys": ["k"]}})),
        (6, Request(what="copy", tables={"public.gone": {}})),
        (7, Request(what="pause")),
        (8, Request(what="cancel", number=5)),
    ]
    once = taken_in({}, asked, TABLES, {"public.t": 7})
    assert taken_in(once, asked, TABLES, {}) == once
    assert {n: c["state"] for n, c in asked_copies(once).items()} == {
        "4": "copying",
        "5": "cancelled",
        "6": "failed",
    }
    assert (once[REQUESTS]["upto"], is_paused(once)) == (8, True)
    assert asked_copies(once)["4"]["tables"]["public.t"]["of"] == 7
    assert (pending(once, "eu"), pending(once, "us")) == (frozenset({"public.t"}), frozenset())
    assert pending(once, None) == {"public.t"}
    assert not is_paused(taken_in(once, [(9, Request(what="resume"))], TABLES, {}))


def test_only_whole_tables_and_ranges_of_numbers_are_swept() -> None:
    def swept(only: dict[str, Any], table: Table = TABLE) -> list[tuple[Any, Any]]:
        known: Progress = taken_in(
            {}, [(1, Request(what="copy", tables={"public.t": only}))], {"public.t": table}, {}
        )
        found = sweeps(known, "1", {"public.t": table}, "begins")
        return [(sweep.after, sweep.until) for sweep in found]

    text = Table(
        family="postgres",
        schema="public",
        name="t",
        columns=(Column(name="id", kind=Kind(name="text"), nullable=False),),
        primary_key=("id",),
        identity=("id",),
    )
    assert swept({}) == swept({}, text) == [(None, None)]
    assert swept({"after": ["3"], "until": ["9"]}) == [(3, 9)]
    assert swept({"until": ["9"]}) == [(None, 9)]
    assert swept({"after": ["a"]}, text) == []
    assert swept({"keys": ["k"]}) == []
