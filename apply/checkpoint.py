"""A target's checkpoint row: moved by compare-and-set, before a batch writes anything."""

from time import time_ns

import sqlalchemy as sa

from apply import pause
from apply.own import CHECKPOINT, STREAM
from apply.server import Cause, Server
from schemas.change import Batch, Offset, Position
from schemas.errors import Fenced


def of(source: str) -> sa.ColumnElement[bool]:
    """The source's row."""
    return (CHECKPOINT.c.source == source) & (CHECKPOINT.c.stream == STREAM)


def lock(connection: sa.Connection, source: str) -> None:
    """Let no batch be written until this transaction's end: its compare-and-set waits."""
    same = CHECKPOINT.c.rows_applied
    connection.execute(sa.update(CHECKPOINT).where(of(source)).values(rows_applied=same))


def begin(
    connection: sa.Connection, source: str, start: Offset, position: Position, batch: int
) -> None:
    """Stand here, unless the checkpoint stands somewhere already."""
    nowhere = CHECKPOINT.c.log_offset.is_(None)
    here = sa.update(CHECKPOINT).where(of(source), nowhere)
    connection.execute(here.values(log_offset=start, position=position, batch=batch))


def move(
    connection: sa.Connection,
    server: Server,
    source: str,
    batch: Batch,
    expect: Offset | None,
    *,
    target: str,
) -> None:
    """Move it from `expect` to the batch's end; raises TargetPaused during a pause, Fenced where it
    is not there, or locked.
    """
    offset = CHECKPOINT.c.log_offset
    same: sa.ColumnElement[bool] = offset.is_(None)
    if expect is not None:
        same = server.exactly(offset, sa.literal(expect, sa.String))
    moved = (
        sa.update(CHECKPOINT)
        .where(of(source), same, pause.unless_paused(source))
        .values(
            log_offset=batch.offset,
            position=batch.position,
            epoch=batch.epoch,
            batch=batch.batch,
            committed_at=sa.func.coalesce(
                sa.literal(batch.committed_at, sa.BigInteger), CHECKPOINT.c.committed_at
            ),
            applied_at=time_ns() // 1000,
            rows_applied=CHECKPOINT.c.rows_applied + batch.row_count,
        )
    )
    try:
        count = connection.execute(moved).rowcount
    except sa.exc.DBAPIError as error:
        if server.cause(error) is not Cause.LOCKED:
            raise
        raise Fenced(
            f"found the checkpoint of source {source} locked by another applier",
            hint=f"let only one process apply to {target}",
        ) from error
    if count != 1:
        pause.refuse(connection, source, target)
        raise Fenced(
            f"found the checkpoint of source {source} moved by another applier",
            hint=f"let only one process apply to {target}",
        )
