"""What verify last found of each table, and how far a pass has come: kept in the target."""

from collections.abc import Sequence

import sqlalchemy as sa

from apply.own import VERIFIED
from apply.target import Verified


def read(connection: sa.Connection, source: str) -> list[Verified]:
    """Every table's; none where no verify has ever run here."""
    if not sa.inspect(connection).has_table(VERIFIED.name):
        return []
    columns = [VERIFIED.c[name] for name in Verified._fields]
    found = connection.execute(sa.select(*columns).where(VERIFIED.c.source == source))
    return [Verified(*row) for row in found]


def keep(connection: sa.Connection, source: str, found: Sequence[Verified], *, only: bool) -> None:
    """Write these tables' rows, in the transaction that the caller commits; see Target.keep."""
    VERIFIED.create(connection, checkfirst=True)
    if only:
        named = VERIFIED.c.table_name.in_([one.table_name for one in found])
        connection.execute(sa.delete(VERIFIED).where(VERIFIED.c.source == source, ~named))
    for one in found:
        row = one._asdict()
        mine = (VERIFIED.c.source == source) & (VERIFIED.c.table_name == one.table_name)
        if not connection.execute(sa.update(VERIFIED).where(mine).values(row)).rowcount:
            connection.execute(sa.insert(VERIFIED).values(row | {"source": source}))
