"""Apply: log -> target, one target transaction per batch, or for several that wait already, its
place in the log inside it.

No retry, no logging, no stop flag here: ops/supervise.py reopens after Transient errors and stops
between batches.
"""

from collections.abc import Callable
from time import monotonic

from apply.target import Target
from schemas.change import Batch, Offset
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
    last: int | None = None,
) -> None:
    """Apply the log's batches until its end (`follow=False`), until the batch `last`, or until an
    error or the supervisor ends it.
    """
    until, is_done = None, False
    while not is_done:
        until, is_done = _apply(log, target, until, follow, seen, last)


def _apply(
    log: Log,
    target: Target,
    until: Offset | None,
    follow: bool,
    seen: Seen,
    last: int | None,
) -> tuple[Offset | None, bool]:
    """Apply batches that wait together, or up to `until` one at a time: then what comes before a
    fault is applied, and nothing with it.

    Gives where several that were applied as one and cannot be end (None: `until` was passed), and
    whether the log's end was reached.
    """
    at, waiting, wrote_at, passed = target.checkpoint(), None, monotonic(), False
    together = TOGETHER if until is None else 0
    for batch in log.read(at, follow=follow, together=together, target=target.name, until=last):
        waiting = batch or waiting
        passed = passed or (batch is not None and batch.offset == until)
        if waiting is None or (waiting.is_empty and monotonic() - wrote_at < EMPTY_EVERY_S):
            seen(None, 0)
            continue
        try:
            written = target.apply(waiting, expect=at)
        except (Poison, Operator):
            if waiting.batches == 1:
                raise
            return waiting.offset, False
        seen(waiting, written)
        at, waiting, wrote_at = waiting.offset, None, monotonic()
        if passed:
            return None, False
    if waiting is not None:
        target.apply(waiting, expect=at)
    return None, True
