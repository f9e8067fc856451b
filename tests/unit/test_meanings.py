"""Which row a key meant, as readers tell it who stand at other places of one log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from apply.meanings import Meaning, Moment, meant

Met = tuple[str, Moment, bool]
"""Which row, where it is met, and whether it was made there."""

READS_ALL: Sequence[Met] = [("a", (3, 0), True), ("b", (7, 1), True), ("c", (9, 4), True)]
JOINED_LATER: Sequence[Met] = [("a", (5, 2), False), *READS_ALL[1:]]
TAKES_SOME: Sequence[Met] = [("b", (7, 1), True)]


def merged(one: Sequence[Met], other: Sequence[Met]) -> Iterator[list[Met]]:
    """Both readers' rows in every order in which they may come."""
    if not one or not other:
        yield [*one, *other]
        return
    yield from ([one[0], *rest] for rest in merged(one[1:], other))
    yield from ([other[0], *rest] for rest in merged(one, other[1:]))


@pytest.mark.parametrize("other", [READS_ALL, JOINED_LATER, TAKES_SOME])
def test_a_row_has_one_sync_id_whoever_comes_first(other: Sequence[Met]) -> None:
    """T6: a key that is given to another row means another sync_id, to each reader at its place."""
    for order in merged(READS_ALL, other):
        known: list[Meaning] = []
        names: dict[str, set[str]] = {}
        for row, at, is_new in order:
            names.setdefault(row, set()).add(meant(known, at, is_new=is_new).sync_id)
        assert all(len(found) == 1 for found in names.values()), order
        assert len(set.union(*names.values())) == 3
        assert len([m for m in known if m.until is None]) == 1
        spans = sorted((m.since, m.until or (99, 0)) for m in known)
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), spans


def test_an_end_that_was_seen_is_kept_by_who_is_behind() -> None:
    known = [Meaning(1, "old", (3, 0), True, (6, 0))]
    assert meant(known, (4, 0), is_new=False).sync_id == "old"
    assert meant(known, (7, 0), is_new=False).sync_id != "old"
