"""Placeholders as they are kept in the target: rows that stand for parents which have not come, and
are incomplete until the parent's own row has been written over them.
"""

from typing import NamedTuple

import sqlalchemy as sa

from apply.own import PLACEHOLDER

P = PLACEHOLDER.c


class Placeholder(NamedTuple):
    """One row that stands for a parent. identity: of the parent, or where that is not known
    (is_named: 0) one of the placeholder's own. source_key: the parent's key there. wanted_by: the
    schema.table.column that it was made for. batch: the log's, in which it was made. made_at:
    microseconds since 1970 UTC.
    """

    table_name: str
    identity: str
    source_key: str
    is_named: int
    wanted_by: str
    batch: int
    made_at: int


def read(connection: sa.Connection, source: str) -> list[Placeholder]:
    """All of a source, oldest first; none where the target has no such table yet."""
    if not sa.inspect(connection).has_table(PLACEHOLDER.name):
        return []
    columns = [P[name] for name in Placeholder._fields]
    found = sa.select(*columns).where(P.source == source).order_by(P.made_at, P.identity)
    return [Placeholder(*row) for row in connection.execute(found)]
