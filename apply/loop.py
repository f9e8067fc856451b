"""Apply: log -> target, one target transaction per batch, or for several that wait already, its
place in the log inside it.

No retry, no logging, no stop flag here: ops/supervise.py reopens after Transient errors and stops
between batches.
"""

from collections.abc import Callable
from time import monotonic

from apply.target import Target
from schemas.change import Batch
from schemas.errors import Operator, Poison
from transport.log import Log

EMPTY_EVERY_S = 10.0
"""Batches without rows move the checkpoint with the next write, at the latest after this."""
TOGETHER = 20_000
"""Rows of several batches in one target transaction: when behind, large; when quiet, small."""

Seen = Callable[[Batch | None, int], None]


def apply(
    log: Log,
    target: Target,
    *,
    follow: bool = True,
    seen: Seen = lambda batch, rows: None,
) -> None:
    """Apply the log's batches until its end (`follow=False`) or until an error or the supervisor
    ends it.
    """
    if not _apply(log, target, TOGETHER, follow, seen):
        # One at a time: what comes before the fault is applied, and nothing with it.
        _apply(log, target, 0, follow, seen)


def _apply(log: Log, target: Target, together: int, follow: bool, seen: Seen) -> bool:
    """False when one of several batches that were applied as one cannot be."""
    at, waiting, last = target.checkpoint(), None, monotonic()
    for batch in log.read(at, follow=follow, together=together):
        waiting = batch or waiting
        if waiting is None or (waiting.is_empty and monotonic() - last < EMPTY_EVERY_S):
            seen(None, 0)
            continue
        try:
            written = target.apply(waiting, expect=at)
        except (Poison, Operator):
            if waiting.batches == 1:
                raise
            return False
        seen(waiting, written)
        at, waiting, last = waiting.offset, None, monotonic()
    if waiting is not None:
        target.apply(waiting, expect=at)
    return True
