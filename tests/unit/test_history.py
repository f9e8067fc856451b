"""From which batch on a log has every row of a table, told from commit records alone."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.change import Offset, Position
from schemas.progress import REQUESTS
from transport.history import History
from transport.record import Record

BEGUN = {"what": "rows", "after": None, "done": False}
HALF = {"what": "rows", "after": 7, "done": False}
DONE = {"what": "rows", "after": None, "done": True}
SEEDED = {"what": "identities", "after": None, "done": True}


def history(*states: dict[str, Any] | None, first: int = 1, lost: int = 0) -> History:
    """Of records from number `first` on, each with one table's state; lost: up to this one, some of
    its rows are gone.
    """
    found = History(target="eu", begin=Offset(str(first - 1)))
    for number, state in enumerate(states, start=first):
        record = Record(
            epoch=0,
            batch=number,
            run=number,
            from_position=Position(""),
            position=Position(""),
            accepted=None,
            progress={"t": state} if state else {},
        )
        found.take(record, Offset(str(number)), ["t"] if number <= lost else [])
    return found


@pytest.mark.parametrize(
    ("states", "first", "starts"),
    [
        ((BEGUN, HALF, DONE, DONE), 1, [1]),
        ((DONE, DONE), 1, [1]),  # copied within the log's first batch
        ((BEGUN, HALF), 1, [1]),  # goes on later
        ((BEGUN, DONE), 5, [5]),  # what came before has copied nothing
        ((HALF, DONE), 5, []),
        ((DONE, DONE), 5, []),
        ((DONE, BEGUN, HALF, DONE), 5, [6]),
        ((BEGUN, DONE, HALF, DONE), 1, [1, 3]),  # copied anew, its first chunk with it
        ((BEGUN, DONE, BEGUN, HALF), 1, [1]),  # the copy that is not done is not needed
        ((BEGUN, HALF, BEGUN, DONE), 1, [3]),  # begun anew half-way
        ((None, None, BEGUN, DONE), 1, [3]),
        ((None, None), 1, []),
        ((SEEDED, SEEDED), 1, []),
        ((SEEDED, BEGUN, DONE), 1, [2]),
    ],
)
def test_a_table_is_whole_from_where_a_copy_of_all_its_rows_begins(
    states: tuple[dict[str, Any] | None, ...], first: int, starts: list[int]
) -> None:
    found = history(*states, first=first)
    assert found.starts("t") == starts
    assert [found.place(batch) for batch in starts] == [str(batch - 1) for batch in starts]
    assert found.starts("another") == []


def test_where_rows_are_gone_it_is_not_whole() -> None:
    states = (BEGUN, DONE, BEGUN, DONE)
    assert history(*states, lost=1).starts("t") == [3]
    assert history(*states, lost=3).starts("t") == []


def asked(state: str, target: str | None, **of_table: Any) -> dict[str, Any]:
    """What a record says of a copy that was asked for."""
    table = {"after": None, "open": [], "done": state == "done", **of_table}
    copy = {"for": target, "state": state, "tables": {"t": table}, "from": {}}
    return {"t": DONE, REQUESTS: {"upto": 7, "copies": {"7": copy}}}


@pytest.mark.parametrize(
    ("target", "of_table", "starts"),
    [
        (None, {}, [6]),
        ("eu", {}, [6]),
        ("us", {}, []),  # others step over it
        (None, {"until": ["9"]}, []),
        (None, {"keys": ["k"]}, []),
    ],
)
def test_a_copy_that_was_asked_for_counts_where_it_is_whole_and_for_this_target(
    target: str | None, of_table: dict[str, Any], starts: list[int]
) -> None:
    states = [
        {"t": DONE},
        asked("copying", target, **of_table),
        asked("done", target, **of_table),
    ]
    found = History(target="eu", begin=Offset("4"))
    for number, progress in enumerate(states, start=5):
        record = Record(
            epoch=0,
            batch=number,
            run=number,
            from_position=Position(""),
            position=Position(""),
            accepted=None,
            progress=progress,
        )
        found.take(record, Offset(str(number)))
    assert found.starts("t") == starts
