"""Row by row: which rows of a range differ, while both sides move.

Rows that are unequal are suspects; they are looked at again by their identities, the source first,
and the target once it has applied all that the source had at that look. Different is what STEADY
such looks in a row saw the same and unequal. What settles is equal; what an applier has not reached
within the time given, or what changes at every look, is unknown: never counted as different.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from ops.verify_fence import Fence
from ops.verify_incomplete import Incomplete
from ops.verify_looks import Looks, Suspect
from ops.verify_ranges import Pair, Seen, SideRows
from ops.verify_report import Difference
from schemas.ranges import ALONE, Compared, Key

MAX_LOOKS = 8


class Found(NamedTuple):
    """Rows that differ, each with its identity's wire values; how many are not known, and how many
    differ in nothing but references to placeholders.
    """

    differences: Sequence[tuple[Difference, Key]]
    unsettled: int
    incomplete: int


def judged(
    pair: Pair,
    fence: Fence,
    read: Callable[[SideRows], Iterable[list[Seen]]],
    incomplete: Callable[[], Incomplete],
    *,
    values: bool,
) -> Found:
    """Compare the rows that `read` gives of each side until nothing more can be told; incomplete:
    asked after the last look.
    """
    table = pair.compared.table.full_name
    with closing(Looks()) as looks:
        looks.begin()
        for side in (pair.source, pair.target):
            for block in read(side):
                looks.note(side.side, block)
        looks.end(judge=True)
        shown: Callable[[], bool] = lambda: True  # noqa: E731
        for _ in range(MAX_LOOKS - 1):
            count, steady = looks.counts()
            # A target may hold what no look at the source could see yet.
            if count == steady or not fence.comes(shown) or not _look(looks, pair, fence, table):
                break
            shown = fence.shown()
        count, steady = looks.counts()
        of = incomplete()
        wrong = [(s, key) for s, key in looks.steady() if not of.is_placeholder(key)]
        different = [(s, key) for s, key in wrong if not of.leads_to_one(s)]
        found = [(_difference(pair.compared, s, values), key) for s, key in different]
        return Found(found, count - steady, len(wrong) - len(different))


def _look(looks: Looks, pair: Pair, fence: Fence, table: str) -> bool:
    """Look at the suspects; False when the applier did not pass."""
    looks.begin()
    for keys in list(looks.keys(ALONE)):
        looks.note("source", pair.source.rows_of(keys))
    passed = fence.passes([table])
    if passed:
        for keys in list(looks.keys(ALONE)):
            looks.note("target", pair.target.rows_of(keys))
    looks.end(judge=passed)
    return passed


def _difference(compared: Compared, suspect: Suspect, values: bool) -> Difference:
    table, key = compared.table.full_name, suspect.key
    if suspect.source is None:
        return Difference(table=table, key=key, kind="extra")
    if suspect.target is None:
        return Difference(table=table, key=key, kind="missing")
    names = compared.names
    pairs = dict(zip(names, zip(suspect.source, suspect.target, strict=True), strict=True))
    unequal = {n: (a, b) for n, (a, b) in pairs.items() if a != b}
    return Difference(
        table=table,
        key=key,
        kind="different",
        # Twice the same row: what is wrong is the identity itself.
        columns=tuple(unequal) or compared.table.identity,
        values=unequal if values else None,
    )
