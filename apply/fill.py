"""References that were left NULL, set when their parents have come (apply/identity.py has them
wait).
"""

from typing import Any

import sqlalchemy as sa

from apply import referee
from apply.own import IDENTITY, WAITING
from apply.plan import Link, Plan
from apply.server import Cause
from apply.sql import is_of
from apply.transaction import Transaction

W = WAITING.c
Condition = sa.ColumnElement[bool]


def fill(transaction: Transaction, plan: Plan, link: Link) -> None:
    """Set the references that waited and whose parents are here, by every foreign key of the
    column. What a key of several columns refuses, waits on.
    """
    if link.parent is None or not (link.translated or link.waits):
        return
    parent, child = link.parent.alias(), plan.target
    key, is_row = parent.c[link.parent_key], _is_row(transaction, plan)
    if link.is_chosen:
        is_row += is_of(transaction.server, link, child)
    mine = [W.source == transaction.source, W.table_name == plan.name]
    mine.append(W.column_name == link.column)
    parents = [*_parents(transaction, link, parent), *_nearer(plan, link, key)]
    is_empty = child.c[link.column].is_(None)
    filled = sa.update(child).values({child.c[link.column]: key})
    filled = filled.where(*mine, *is_row, is_empty, *parents)
    if not _try(transaction, filled):
        for name in transaction.connection.scalars(sa.select(W.identity).where(*mine)).all():
            _try(transaction, filled.where(W.identity == name))
    there = sa.exists().where(*is_row, child.c[link.column].is_not(None))
    transaction.run(sa.delete(WAITING).where(*mine, there))


def _try(transaction: Transaction, statement: sa.Update) -> bool:
    savepoint = transaction.connection.begin_nested()
    try:
        transaction.run(statement)
        savepoint.commit()
    except sa.exc.DBAPIError as error:
        if transaction.server.cause(error) is not Cause.FOREIGN:
            raise
        savepoint.rollback()
        return False
    return True


def _parents(transaction: Transaction, link: Link, parent: Any) -> list[Condition]:
    server, i = transaction.server, IDENTITY.c
    if link.is_refereed:
        return referee.of_parent(transaction.source, link, parent, W.source_key)
    if not link.translated:
        key = parent.c[link.parent_key]
        return [key == server.from_text(W.source_key, key)]
    name = parent.c[link.parent_identity]
    return [
        i.source == W.source,
        i.table_name == link.parent_name,
        i.source_key == W.source_key,
        i.to_batch.is_(None),
        name == server.from_text(i.identity, name, link.identity_kind),
    ]


def _nearer(plan: Plan, link: Link, key: Any) -> list[Condition]:
    """Rows of other tables with the same key that the column references, too."""
    others = (o for o in plan.links if o.column == link.column and not o.translated)
    return [
        other.parent.alias().c[other.parent_key] == key
        for other in others
        if other is not link and other.parent is not None
    ]


def _is_row(transaction: Transaction, plan: Plan) -> list[Condition]:
    if plan.is_refereed:
        return referee.of_row(plan, W.identity)
    row = plan.target.c[plan.identity[0]]
    return [row == transaction.server.from_text(W.identity, row, plan.identity_kind)]
