"""What a target's transactions did to its pairs, told to the shared referee once it is durable.

headwater_untold is written with the pairs; a line goes when it is told. So after any crash what is
durable here is told, twice perhaps, and what is not was never more than reserved.
"""

import sqlalchemy as sa

from apply.own import REFEREE, UNTOLD
from apply.pairs import LAST
from apply.referee import Referee
from apply.shared import Mine, Shared
from schemas.errors import Operator
from schemas.faults import reach

BLOCK = 5_000
NOW = (2**61, 0)
"""A place after every one of a log: what a key means as far as anybody knows."""


def tell(connection: sa.Connection, shared: Shared, source: str, *, commit: bool = True) -> None:
    """Tell what is durable here: the lines go, each some thousand in a transaction."""
    u, r = UNTOLD.c, REFEREE.c
    while True:
        some = sa.select(u.sync_id).where(u.source == source).limit(BLOCK)
        names = set(connection.scalars(some))
        if not names:
            return
        found = connection.execute(sa.select(REFEREE).where(r.sync_id.in_(names)))
        shared.tell(
            [
                Mine(
                    pair=row.sync_id,
                    table=row.table_name,
                    source_key=row.source_key,
                    local_key=row.local_key,
                    at=NOW,
                    until_batch=None if row.live == 1 else row.until_batch,
                    is_by_hand=row.until_ordinal == LAST,
                )
                for row in found
            ]
        )
        told = (u.source == source) & u.sync_id.in_(names)
        connection.execute(sa.delete(UNTOLD).where(told))
        if commit:
            connection.commit()


def settle(connection: sa.Connection, shared: Shared, source: str) -> None:
    """After a crash, or any other end of a transaction: tell what is durable, and let go of what
    was only reserved. Only within a transaction that holds the checkpoint.
    """
    if not sa.inspect(connection).has_table(UNTOLD.name):
        raise Operator(
            "cannot tell a shared referee of pairs: the target is not prepared for it",
            hint="run: headwater prepare",
        )
    tell(connection, shared, source, commit=False)
    shared.abandon()


def has_news(connection: sa.Connection, source: str) -> bool:
    """Whether something durable here is yet to be told."""
    if not sa.inspect(connection).has_table(UNTOLD.name):
        return False
    one = sa.select(UNTOLD.c.sync_id).where(UNTOLD.c.source == source).limit(1)
    return connection.scalar(one) is not None


def confirm(connection: sa.Connection, referee: Referee, source: str) -> None:
    """A transaction that wrote pairs is durable: tell of them."""
    if referee.shared is not None and referee.has_news:
        reach("before-confirm")
        tell(connection, referee.shared, source)


def share(connection: sa.Connection, shared: Shared, source: str, *, dry_run: bool) -> list[str]:
    """Make the shared referee's tables, and let it know of every live pair where it does not know
    this target yet; the statements.
    """
    statements, is_new = shared.prepare(dry_run=True)
    if is_new and not dry_run:
        pairs = sa.select(REFEREE.c.source, REFEREE.c.sync_id)
        mine = pairs.where(REFEREE.c.source == source, REFEREE.c.live == 1)
        connection.execute(sa.insert(UNTOLD).from_select(["source", "sync_id"], mine))
        connection.commit()
    if not dry_run:
        shared.prepare()
    return statements
