"""GTID sets and lists: parsing, holes, order, canonical text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.binlog_gtid import GtidList, GtidSet

A = "aaaaaaaa-0000-0000-0000-000000000001"
B = "bbbbbbbb-0000-0000-0000-000000000002"


def test_a_set_keeps_its_holes_and_fills_them() -> None:
    """H1."""
    held = GtidSet(f"{A}:1-7:9-10")
    assert not held.holds(A, 8, 8)
    held.add(A, 8)
    assert str(held) == f"{A}:1-10"


def test_the_text_is_canonical() -> None:
    text = f"{B.upper()}:5-6:1-3:4,\n{A}:2"
    assert str(GtidSet(text)) == f"{A}:2,{B}:1-6"
    assert str(GtidSet("")) == ""


@pytest.mark.parametrize(
    "text",
    [f"{A}:tag:1-3", f"{A}", "binlog.000001:4", f"{A}:3-1", f"{A}:0", f"{A}:x", "0-1-100"],
)
def test_what_is_no_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is never shown)
        GtidSet(text)


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 60)), max_size=60))
def test_a_set_is_what_was_added_whatever_the_order(pairs: list[tuple[str, int]]) -> None:
    grown = GtidSet()
    for uuid, number in pairs:
        grown.add(uuid, number)
    for uuid in (A, B):
        for number in range(1, 62):
            assert grown.holds(uuid, number, number) == ((uuid, number) in pairs)
    again = GtidSet(str(grown))
    assert str(again) == str(grown)
    assert again <= grown <= again
    some = GtidSet(",".join(f"{u}:{n}" for u, n in pairs[::2]))
    assert some <= grown
    assert (grown <= some) == (set(pairs) == set(pairs[::2]))


def test_domains_advance_independently() -> None:
    """H5."""
    place = GtidList("0-1-100,1-2-7")
    place.add(0, 3, 101)
    assert str(place) == "0-3-101,1-2-7"
    assert GtidList("0-1-100") <= place
    assert not GtidList("0-1-100,2-1-1") <= place
    assert not GtidList("1-2-8") <= place
    place.add(5, 1, 1)
    assert str(place) == "0-3-101,1-2-7,5-1-1"


def test_of_several_servers_in_a_domain_the_newest_counts() -> None:
    assert str(GtidList("0-1-5,0-2-9,0-3-7")) == "0-2-9"


def test_a_server_has_had_what_its_state_covers() -> None:
    state = "0-1-100,0-2-150, 1-2-7"
    assert GtidList("0-1-90,1-2-7").is_within(state)
    assert GtidList("").is_within("")
    assert not GtidList("0-1-101").is_within(state)
    assert not GtidList("0-3-5").is_within(state)
    assert not GtidList("2-1-1").is_within(state)
