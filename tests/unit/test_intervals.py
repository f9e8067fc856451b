"""What keys meant and when: facts of one block over the pairs that were active before it."""

from __future__ import annotations

from itertools import pairwise

from apply.intervals import Fact, Interval, intervals


def run(
    *facts: Fact, active: list[tuple[str, str]] | None = None, touched: set[str] | None = None
) -> tuple[list[tuple[str, int]], list[Interval]]:
    return intervals(facts, active or [], -1, touched if touched is not None else set())


def test_an_insert_begins_an_interval() -> None:
    assert run(Fact(5, "a", "10", None)) == ([], [Interval("10", "a", 5, None)])


def test_what_is_known_is_not_written_again() -> None:
    assert run(Fact(5, "a", "10", "10"), active=[("10", "a")]) == ([], [])


def test_an_unknown_row_s_update_tells_what_its_key_meant_before() -> None:
    assert run(Fact(5, "a", "10", "10")) == ([], [Interval("10", "a", -1, None)])


def test_a_delete_ends_it() -> None:
    assert run(Fact(5, "a", None, "10"), active=[("10", "a")]) == ([("10", 5)], [])
    assert run(Fact(5, "a", None, "10")) == ([], [Interval("10", "a", -1, 5)])


def test_a_moved_row_ends_one_key_and_begins_another() -> None:
    ends, new = run(Fact(5, "a", "11", "10"), active=[("10", "a")])
    assert (ends, new) == ([("10", 5)], [Interval("11", "a", 5, None)])
    # Without the before-image the active pair tells the same.
    assert run(Fact(5, "a", "11", "11"), active=[("10", "a")])[1][0].source_key == "11"


def test_a_key_used_again_means_the_new_row_from_then_on() -> None:
    ends, new = run(
        Fact(1, "a", "10", None),
        Fact(3, "a", None, "10"),
        Fact(4, "b", "10", None),
        Fact(6, "c", "10", None),
    )
    assert ends == []
    assert new == [
        Interval("10", "a", 1, 3),
        Interval("10", "b", 4, 6),
        Interval("10", "c", 6, None),
    ]


def test_intervals_of_one_key_never_overlap() -> None:
    _, new = run(
        Fact(1, "a", "10", None),
        Fact(2, "a", "11", "10"),
        Fact(3, "b", "10", None),
        Fact(4, "a", "12", "11"),
        Fact(5, "b", "11", "10"),
        Fact(6, "a", "10", "12"),
    )
    by_key: dict[str, list[tuple[int, int]]] = {}
    for interval in new:
        by_key.setdefault(interval.source_key, []).append(
            (interval.start, interval.end if interval.end is not None else 99)
        )
    for spans in by_key.values():
        ordered = sorted(spans)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))


def test_a_key_that_changed_with_no_key_before_in_the_log_begins_at_that_row() -> None:
    """PostgreSQL, whose replica identity has no primary key; a seed was read after the change."""
    facts = (Fact(5, "a", "1", "1"), Fact(9, "a", "2", "2"))
    ends, new = run(*facts, active=[("2", "a")])
    assert ends == [("2", -1)]
    assert sorted(new) == [Interval("1", "a", -1, 9), Interval("2", "a", 9, None)]
