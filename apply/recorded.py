"""Conflicts as they are kept in the target: both images, the rule, what was done."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import orjson
import sqlalchemy as sa

from apply.own import CONFLICT
from schemas.conflict import Conflict, Decision

Outcome = Literal["source", "target", "merged", "deleted", "parked"]
"""What the target has since: the source's row, its own, some of both, none, or its own until a
person decides.
"""


class Recorded(NamedTuple):
    """One conflict. images: a schemas.conflict.Conflict as JSON. written: the columns that were
    written, as JSON. Instants: microseconds since 1970 UTC.
    """

    number: int
    table_name: str
    row_key: str
    images: str
    rule: str
    outcome: Outcome
    written: str | None
    batch: int
    ordinal: int
    position: str
    committed_at: int | None
    decided_at: int

    @property
    def conflict(self) -> Conflict:
        """The images, as they were decided by."""
        return Conflict(**orjson.loads(self.images))


def outcome(conflict: Conflict, decision: Decision) -> Outcome:
    """What a decision comes to."""
    if decision.parks:
        return "parked"
    if decision.deletes:
        return "deleted"
    if decision.write is None:
        return "target"
    return "source" if decision.write == conflict.after else "merged"


def dumps(conflict: Conflict) -> str:
    """The images as they are kept."""
    parts = conflict._asdict()
    for name in ("changed", "references"):
        parts[name] = sorted(parts[name])
    return orjson.dumps(parts).decode()


def read(connection: sa.Connection, source: str) -> list[Recorded]:
    """Every recorded conflict, oldest first; none where the target has no such table yet."""
    if not sa.inspect(connection).has_table(CONFLICT.name):
        return []
    columns = [CONFLICT.c[name] for name in Recorded._fields]
    found = sa.select(*columns).where(CONFLICT.c.source == source).order_by(CONFLICT.c.number)
    return [Recorded(*row) for row in connection.execute(found)]


def add(connection: sa.Connection, source: str, conflicts: Sequence[Recorded]) -> None:
    """Keep these, numbered after all that were ever kept."""
    if not conflicts:
        return
    newest = sa.select(sa.func.max(CONFLICT.c.number)).where(CONFLICT.c.source == source)
    start = int(connection.scalar(newest) or 0) + 1
    rows = [
        one._asdict() | {"source": source, "number": number}
        for number, one in enumerate(conflicts, start=start)
    ]
    connection.execute(sa.insert(CONFLICT), rows)
