"""A target that is paused: a row in the target, so it lasts, and stands where the applier looks.

The checkpoint's compare-and-set asks for it in the same statement: a pause costs no round trip, and
nothing is written once an applier could have seen it. A batch whose transaction had begun is
written to its end.
"""

from time import time_ns

import sqlalchemy as sa

from apply.own import PAUSED
from apply.target import Paused
from schemas.errors import Operator, TargetPaused


def unless_paused(source: str) -> sa.ColumnElement[bool]:
    """The condition of an update that must not happen during a pause."""
    mine = sa.select(sa.literal(1)).select_from(PAUSED).where(PAUSED.c.source == source)
    return ~mine.exists()


def lasting(connection: sa.Connection, source: str) -> Paused | None:
    """The pause that lasts now."""
    if not sa.inspect(connection).has_table(PAUSED.name):
        return None
    columns = (PAUSED.c.paused_at, PAUSED.c.reason)
    row = connection.execute(sa.select(*columns).where(PAUSED.c.source == source)).one_or_none()
    return None if row is None else Paused(*row)


def begin(connection: sa.Connection, source: str, reason: str) -> None:
    """Pause; one that lasts already goes on, for this reason."""
    if not sa.inspect(connection).has_table(PAUSED.name):
        raise Operator(
            f"found no tables of Headwater for source {source}", hint="run: headwater prepare"
        )
    mine = sa.update(PAUSED).where(PAUSED.c.source == source).values(reason=reason)
    if not connection.execute(mine).rowcount:
        row = {"source": source, "paused_at": time_ns() // 1000, "reason": reason}
        connection.execute(sa.insert(PAUSED).values(row))


def end(connection: sa.Connection, source: str) -> bool:
    """End the pause; whether there was one."""
    if not sa.inspect(connection).has_table(PAUSED.name):
        return False
    return bool(connection.execute(sa.delete(PAUSED).where(PAUSED.c.source == source)).rowcount)


def refuse(connection: sa.Connection, source: str, target: str) -> None:
    """Raise TargetPaused during a pause."""
    if lasting(connection, source) is not None:
        raise TargetPaused(f"found target {target} paused", hint=f"run: headwater resume {target}")
