"""The mark of a rebuild that is under way, in the target: who finds it does not take what is there
for whole.

A row of the checkpoint table beside the checkpoint's own.
"""

import sqlalchemy as sa

from apply.ancestors import ask_again
from apply.own import CHECKPOINT, STREAM
from schemas.change import Offset

MARK = "rebuild"
"""What the row has in place of a stream."""


def _of(source: str, stream: str) -> sa.ColumnElement[bool]:
    return (CHECKPOINT.c.source == source) & (CHECKPOINT.c.stream == stream)


def is_marked(connection: sa.Connection, source: str) -> bool:
    """Whether a rebuild was begun and not ended."""
    mark = sa.select(sa.literal(1)).where(_of(source, MARK))
    return connection.scalar(mark) is not None


def mark(connection: sa.Connection, source: str, start: Offset | None) -> None:
    """Mark, and let a checkpoint that stands nowhere yet stand at `start`."""
    if not is_marked(connection, source):
        zero = {"epoch": 0, "batch": 0, "applied_at": 0, "rows_applied": 0}
        row = {"source": source, "stream": MARK} | zero
        connection.execute(sa.insert(CHECKPOINT).values(row))
    # It may be another log: a request's number there means nothing here.
    ask_again(connection, source)
    if start is not None:
        nowhere = CHECKPOINT.c.log_offset.is_(None)
        begin = sa.update(CHECKPOINT).where(_of(source, STREAM), nowhere)
        connection.execute(begin.values(log_offset=start, position=""))


def unmark(connection: sa.Connection, source: str) -> None:
    """The rebuild is done."""
    connection.execute(sa.delete(CHECKPOINT).where(_of(source, MARK)))
