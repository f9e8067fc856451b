"""References to rows that the source has and the target is not to have: NULL here, and set when the
row comes (apply/identity.py, Identities.fill).
"""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from apply import fields, referee
from apply.identity import FACTS
from apply.own import IDENTITY, REFEREE, WAITING
from apply.plan import ORDINAL, Link, Plan
from apply.transaction import Job, Transaction
from apply.uuids import wire_text


def detach(transaction: Transaction, plan: Plan, gone: Collection[int]) -> set[str]:
    """Empty the references to the rows whose keys are staged, where they may be NULL; the tables
    whose references wait now. gone: the ordinals of those that the source deleted.
    """
    found = set()
    for child, link in transaction.children(plan):
        if transaction.may_stay_open(link) and _detach(transaction, plan, child, link, gone):
            found.add(child.name)
    return found


def _detach(
    transaction: Transaction, plan: Plan, child: Plan, link: Link, gone: Collection[int]
) -> bool:
    server, parent = transaction.server, plan.target.alias("hw_parent")
    keys, identity, reference = plan.keys, plan.identity[0], child.target.c[link.column]
    tests: list[Any] = [
        server.exactly(parent.c[identity], keys.c[identity]),
        reference == parent.c[link.parent_key],
    ]
    # The source still has the row: what was deleted there, nothing references.
    if plan.is_refereed:
        pairs = REFEREE.alias("hw_parents")
        source_key: Any = pairs.c.source_key
        tests += referee.live(pairs, plan.source_name, plan.name)
        tests += [pairs.c.local_key == parent.c[identity], keys.c[ORDINAL].not_in(gone)]
    else:
        i, column = IDENTITY.alias(), parent.c[identity]
        source_key = i.c.source_key
        named = server.from_text(i.c.identity, column, plan.identity_kind)
        tests += [i.c.source == transaction.source, i.c.table_name == plan.name]
        tests += [server.exactly(column, named), i.c.to_batch.is_(None)]
    mine = child.target.c[child.identity[0]]
    if child.is_refereed:
        pairs = REFEREE.alias("hw_children")
        tests += [*referee.live(pairs, child.source_name, child.name), pairs.c.local_key == mine]
        mine = pairs.c.source_key
    rows = transaction.connection.execute(sa.select(mine, source_key).where(*tests)).all()
    if not rows:
        return False
    _wait(transaction, child, link, rows)
    transaction.run(sa.update(child.target).values({reference: sa.null()}).where(*tests))
    return True


def leave_open(transaction: Transaction, job: Job, link: Link) -> bool:
    """Let the staged rows whose parent is not here reference nothing, until it comes; whether there
    are any.
    """
    s = job.plan.stage
    open_ = s.c[link.source_key].is_not(None) & s.c[link.column].is_(None)
    name = job.plan.staged_name(job.plan.identity[0])
    found = sa.select(s.c[name], s.c[link.source_key]).where(open_)
    rows = transaction.connection.execute(found).all()
    if not rows:
        return False
    _wait(transaction, job.plan, link, rows)
    transaction.run(sa.update(s).values({s.c[link.source_key]: sa.null()}).where(open_))
    return True


def has_come(transaction: Transaction, child: Plan, link: Link, parents: Sequence[bytes]) -> bool:
    """Whether references wait for one of these parents, given by wire key. Many may wait for long:
    only the batch that brings a parent looks through them.
    """
    if not parents:
        return False
    names = [str(orjson.loads(key)[link.parent_identity]) for key in parents]
    nothing = [None] * len(names)
    staged = {"source_key": fields.text(nothing), "identity": fields.text(names)}
    transaction.session.ready(FACTS)
    transaction.session.put(FACTS, fields.lines(staged | {"at": fields.plain(nothing)}))
    i, w = IDENTITY.c, WAITING.c
    if link.is_refereed:
        waits = [w.source == transaction.source, w.table_name == child.name]
        waits += [w.column_name == link.column, w.source_key == FACTS.c.identity]
        found = sa.select(sa.literal(1)).where(*waits).limit(1)
        return transaction.connection.scalar(found) is not None
    found = sa.select(sa.literal(1)).where(
        i.identity == FACTS.c.identity,
        i.source == transaction.source,
        i.table_name == link.parent_name,
        i.to_batch.is_(None),
        w.source == i.source,
        w.table_name == child.name,
        w.column_name == link.column,
        w.source_key == i.source_key,
    )
    return transaction.connection.scalar(found.limit(1)) is not None


def _wait(transaction: Transaction, child: Plan, link: Link, rows: Sequence[Any]) -> None:
    """Remember the references of these rows: their identities, and the source's keys."""
    identities = [wire_text(row[0], child.identity_kind) for row in rows]
    transaction.identities.forget(child, identities, link.column)
    waiting = {
        "source": [transaction.source] * len(rows),
        "table_name": [child.name] * len(rows),
        "column_name": [link.column] * len(rows),
        "identity": identities,
        "source_key": [str(row[1]) for row in rows],
    }
    staged = {name: fields.text(values) for name, values in waiting.items()}
    transaction.session.add(WAITING, fields.lines(staged))
