"""What lies in the log behind a target's checkpoint: what a child that was away has missed.

Read from the commit records; no row is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from schemas.change import Offset
from schemas.errors import LogTruncated
from transport.log import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """batches: those without rows included. since: the source's commit time of the oldest one with
    rows; until: of the newest one (microseconds since 1970 UTC; None: no commit has a time).
    """

    batches: int = 0
    rows: int = 0
    since: int | None = None
    until: int | None = None


def backlog(log: Log, target: str, after: Offset | None) -> Backlog:
    """What the log holds for the target after its checkpoint.

    Raises LogTruncated, with the commands to run, where the log no longer holds all of that.
    """
    batches = rows = 0
    since = until = None
    with named(target):
        for batch in log.read(after, follow=False, target=target):
            if batch is None:
                continue
            batches, rows = batches + 1, rows + batch.row_count
            until = batch.committed_at or until
            since = since if batch.is_empty else since or batch.committed_at
    return Backlog(batches=batches, rows=rows, since=since, until=until)


@contextmanager
def named(target: str) -> Iterator[None]:
    """Let the log's errors, which cannot know the reader, say what to run for this target."""
    try:
        yield
    except LogTruncated as error:
        if "TARGET" not in error.hint:
            raise
        raise LogTruncated(
            f"{error}: target {target} was away for longer than the log is kept",
            hint=f"run: {error.hint.replace('TARGET', target)}",
        ) from error
