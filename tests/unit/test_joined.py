"""Which records are given as one batch, and what comes before a fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from schemas.change import Offset, Position, Rows
from schemas.errors import LogTruncated
from transport.joined import Link, batches
from transport.record import Record, Span


def link(number: int, first: int, last: int) -> Link:
    record = Record(
        epoch=1,
        batch=number,
        run=number,
        from_position=Position(f"p{number - 1}"),
        position=Position(f"p{number}"),
        accepted=None,
        spans={"t": {0: Span(first, last, 1)}},
    )
    return Link(record, Offset(str(number)))


def no_rows(records: Sequence[Record]) -> Iterator[Rows]:
    return iter(())


def positions(links: Iterator[Link | None], together: int = 100) -> list[list[Position] | None]:
    found = batches(links, together, lambda records: lambda: no_rows(records), None)
    return [[r.position for r in batch.records] if batch else None for batch in found]


def test_a_pause_gives_out_what_is_held_and_is_passed_on_only_when_nothing_is() -> None:
    links = iter([None, link(1, 0, 0), link(2, 1, 1), None, None, link(3, 2, 2)])
    assert positions(links) == [None, ["p1", "p2"], None, ["p3"]]


def test_a_stretch_that_overlaps_an_earlier_one_begins_a_batch() -> None:
    """Its offsets were not told, so that it is as wide as what the partition held."""
    links = iter([link(1, 0, 0), link(2, 5, 9), link(3, 7, 12), link(4, 13, 13)])
    assert positions(links) == [["p1", "p2"], ["p3", "p4"]]


def test_what_came_before_a_fault_is_given_before_it_is_raised() -> None:
    def faulty() -> Iterator[Link | None]:
        yield link(1, 0, 0)
        yield link(2, 1, 1)
        raise LogTruncated("found rows gone")

    found = batches(faulty(), 100, lambda records: lambda: no_rows(records), None)
    first = next(found)
    assert first is not None
    assert first.batches == 2
    with pytest.raises(LogTruncated):
        next(found)
