"""Batches that die again and again after their rows were sent: found in the log itself, so that a
process which is killed each time is found too.

An attempt is an effective claim after the newest accepted record; its rows are those stored until
the next claim. An outage of brokers or of the source leaves claims without rows, or none at all,
and is never counted.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from schemas.errors import Operator
from transport.kafka_commits import Commits

ATTEMPTS = 3
ORPHAN_ROWS = 10_000
"""Fewer rows than this an attempt may leave as often as it likes: a restart amid small batches."""


def refuse_endless(
    commits: Commits, topics: Iterable[str], claimed_at_ms: Sequence[int], after: str | None
) -> None:
    """Raise Operator if each of the last attempts before the newest claim left many rows.

    claimed_at_ms: when the effective claims after the newest accepted record were stored, at least
    ATTEMPTS + 1 of them. The newest has no rows yet, so that a person who starts again is let
    through.
    """
    borders = claimed_at_ms[-ATTEMPTS - 1 :]
    borders = claimed_at_ms[-ATTEMPTS - 1 :]
    counts = [0] * ATTEMPTS
    for place in commits.partitions(topics):
        for at, (earlier, later) in enumerate(pairwise(commits.offsets_at(place, borders))):
            counts[at] += later - earlier
    if min(counts) >= ORPHAN_ROWS:
        raise Operator(
            f"failed {ATTEMPTS} times to write the batch after {after or 'the start'}: "
            f"{sum(counts)} rows of it lie in the log for nothing",
            hint="see in the capture's journal what ended them, mend it and start again; rows that "
            "no record names stay until retention takes them",
        )
