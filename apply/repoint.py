"""Two rows of one table turn out to be one: whatever references the first comes to reference the
second.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from apply import fields
from apply.identity import FACTS
from apply.plan import Plan
from apply.server import Server
from apply.session import Session
from schemas.kinds import Kind


def stage_pairs(session: Session, pairs: Sequence[tuple[str, str]]) -> None:
    """Stage identities by two, as FACTS' source_key and identity."""
    session.ready(FACTS)
    columns = {
        "source_key": fields.text([one for one, _ in pairs]),
        "identity": fields.text([other for _, other in pairs]),
        "at": fields.plain([None] * len(pairs)),
    }
    if pairs:
        session.put(FACTS, fields.lines(columns))


def is_named(server: Server, row: Any, identity: Any, kind: Kind) -> sa.ColumnElement[bool]:
    """Whether a row's identity column equals a text column that holds one as the wire has it."""
    return server.exactly(row, server.from_text(identity, row, kind))


def repoint(session: Session, plan: Plan) -> None:
    """Let every row of the target that references the first row of a staged pair reference the
    second; in any table, by whatever key. Both rows must be there.
    """
    first, second = plan.target.alias("hw_first"), plan.target.alias("hw_second")
    name, kind = plan.identity[0], plan.identity_kind
    for reference in plan.all_references:
        child, pairs = reference.child, list(zip(reference.columns, reference.keys, strict=True))
        session.connection.execute(
            sa.update(child)
            .values({child.c[column]: second.c[key] for column, key in pairs})
            .where(
                *(child.c[column] == first.c[key] for column, key in pairs),
                *([child.c[reference.by[0]] == reference.by[1]] if reference.by else []),
                is_named(session.server, first.c[name], FACTS.c.source_key, kind),
                is_named(session.server, second.c[name], FACTS.c.identity, kind),
            )
        )
