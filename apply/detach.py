"""References to rows that leave a target's part of the source, though the source keeps them: NULL
here, and set again when the row comes back (apply/identity.py, Identities.fill).
"""

from base64 import b64encode
from typing import Any

import sqlalchemy as sa

from apply import fields
from apply.own import IDENTITY, WAITING
from apply.plan import Link, Plan
from apply.transaction import Transaction


def detach(transaction: Transaction, plan: Plan) -> set[str]:
    """Empty the references to the rows whose keys are staged, where they may be NULL; the tables
    whose references wait now.
    """
    found = set()
    for child, link in transaction.children(plan):
        if link.translated and link.nullable and _detach(transaction, plan, child, link):
            found.add(child.name)
    return found


def _detach(transaction: Transaction, plan: Plan, child: Plan, link: Link) -> bool:
    server, parent = transaction.server, plan.target.alias("hw_parent")
    keys, i, identity = plan.keys, IDENTITY.alias(), parent.c[plan.identity[0]]
    reference = child.target.c[link.column]
    tests = [
        server.exactly(identity, keys.c[plan.identity[0]]),
        reference == parent.c[link.parent_key],
        i.c.source == transaction.source,
        i.c.table_name == plan.name,
        server.exactly(identity, server.from_text(i.c.identity, identity)),
        # The source still has the row: what was deleted there, nothing references.
        i.c.to_batch.is_(None),
    ]
    rows = transaction.connection.execute(
        sa.select(child.target.c[child.identity[0]], i.c.source_key).where(*tests)
    ).all()
    if not rows:
        return False
    identities = [_text(row[0]) for row in rows]
    transaction.identities.forget(child, identities, link.column)
    waiting = {
        "source": [transaction.source] * len(rows),
        "table_name": [child.name] * len(rows),
        "column_name": [link.column] * len(rows),
        "identity": identities,
        "source_key": [row[1] for row in rows],
    }
    staged = {name: fields.text(values) for name, values in waiting.items()}
    transaction.session.add(WAITING, fields.lines(staged))
    transaction.run(sa.update(child.target).values({reference: sa.null()}).where(*tests))
    return True


def _text(value: Any) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
