"""Apply: log -> target, one target transaction per batch, its place in the log inside it.

No retry, no logging, no stop flag here: ops/supervise.py reopens after Transient errors and stops
between batches.
"""

from collections.abc import Callable
from time import monotonic

from apply.target import Target
from schemas.change import Batch
from transport.log import Log

EMPTY_EVERY_S = 10.0
"""Batches without rows move the checkpoint with the next write, at the latest after this."""


def apply(
    log: Log,
    target: Target,
    *,
    follow: bool = True,
    seen: Callable[[Batch | None, int], None] = lambda batch, rows: None,
) -> None:
    """Apply the log's batches until its end (`follow=False`) or until an error or the supervisor
    ends it.
    """
    at, waiting, last = target.checkpoint(), None, monotonic()
    for batch in log.read(at, follow=follow):
        waiting = batch or waiting
        if waiting is None or (waiting.is_empty and monotonic() - last < EMPTY_EVERY_S):
            seen(None, 0)
            continue
        written = target.apply(waiting, expect=at)
        seen(waiting, written)
        at, waiting, last = waiting.offset, None, monotonic()
    if waiting is not None:
        target.apply(waiting, expect=at)
