"""Two rows that turn out to be one: the source inserts a row, and the target has another with the
same values of a unique key that configuration calls decisive (same_by). The source has that key
too, so the other row is not another one of its own.

The target's row survives: it keeps its local key, and with it all that references it, and takes the
source's identity; the one that it had becomes an alias (apply/aliases.py). The table's policies
decide its columns, and the decision is recorded as a conflict's is. A row of the source's own, one
that is excluded here, and two rows that are both here are not united: what comes is parked, as
every collision is without the rule.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from apply.conflicts import Conflicts, after_image, decided
from apply.halving import halve
from apply.key_meanings import known
from apply.plan import HOLD, ORDINAL, Plan
from apply.staging import staged
from apply.transaction import Job, Transaction
from apply.upsert import Upserts
from apply.uuids import wire_text
from schemas.conflict import Conflict, ConflictRules, Decision


def unite(transaction: Transaction, upserts: Upserts) -> bool:
    """Let the target's rows that held rows collide with be those, where they are the same; whether
    there are any.
    """
    is_any = False
    for job in list(upserts.collisions()) if transaction.aliases.are_made else ():
        rules = job.plan.conflicts
        # A first copy has rows of the source that nothing is known of yet.
        is_out = job.rows.partial or job.plan.name in transaction.batch.pending
        if rules is not None and rules.same_by and rules.policy != "park" and not is_out:
            is_any |= _unite(transaction, upserts, job, rules)
    return is_any


def _unite(transaction: Transaction, upserts: Upserts, job: Job, rules: ConflictRules) -> bool:
    plan, rows = job.plan, job.rows
    was = _was(transaction, upserts, job, rules)
    done = _rename(transaction, job, rules, sorted(was))
    if not done:
        return False
    at = {rows.ordinals[i]: i for i in job.at(done)}
    name, there = plan.identity[0], [at[ordinal] for ordinal in done]
    conflicts = Conflicts(transaction)
    mine = conflicts.mine(plan, rows, there)
    kinds = {taken.name: taken.kind for taken in plan.taken}
    found: dict[int, Conflict] = {}
    decisions: dict[int, Decision] = {}
    for ordinal in done:
        i = at[ordinal]
        after = after_image(plan, rows, job.folded, i)
        other = [n for n, v in mine[i].items() if n not in plan.translated and v != after.get(n)]
        image = mine[i] | {name: was[ordinal]}
        found[i] = Conflict(None, after, image, other, list(plan.translated))
        decision = decided(plan, found[i], rules, kinds)
        rule = f"same_by {', '.join(rules.same_by)}, {decision.rule}"
        decisions[i] = decision._replace(rule=rule)
    conflicts.park(plan, rows, decisions)
    conflicts.record(plan, rows, found, decisions)
    _hold_less(upserts, plan, {rows.keys[i]: decision for i, decision in decisions.items()})
    pairs = [(was[o], str(orjson.loads(rows.keys[at[o]])[name])) for o in done]
    transaction.aliases.add(plan, [(old, new) for old, new in pairs if old is not None])
    return True


def _was(
    transaction: Transaction, upserts: Upserts, job: Job, rules: ConflictRules
) -> dict[int, str | None]:
    """By ordinal: which identity the target's row has that the staged row is the same as; each row
    once.
    """
    plan, s, target = job.plan, job.plan.stage, job.plan.target
    lines = staged(transaction, job)
    transaction.session.ready(s)
    transaction.put(job, s, job.folded.upserts, lines)
    for link in plan.translated.values():
        for statement in job.sql.resolve(link, job.batch, as_of_end=True):
            transaction.run(statement)
    name, other = plan.identity[0], target.alias("hw_other")
    is_here = sa.exists().where(transaction.server.exactly(other.c[name], s.c[name]))
    found = (
        sa.select(s.c[ORDINAL], target.c[name], *target.primary_key.columns)
        .where(*_same(transaction, plan, rules), ~is_here)
        .order_by(s.c[ORDINAL])
    )
    was: dict[int, str | None] = {}
    keys = set()
    for ordinal, identity, *key in transaction.connection.execute(found):
        if tuple(key) not in keys:
            keys.add(tuple(key))
            text = None if identity is None else wire_text(identity, plan.identity_kind)
            was[int(ordinal)] = text
    names = [text for text in was.values() if text is not None]
    out = _left_alone(transaction, plan, names, upserts.held[plan.name])
    return {ordinal: text for ordinal, text in was.items() if text not in out}


def _same(
    transaction: Transaction, plan: Plan, rules: ConflictRules
) -> list[sa.ColumnElement[bool]]:
    # Exactly: the source may have rows that only the target's collation calls equal.
    exactly = transaction.server.exactly
    return [exactly(plan.target.c[n], plan.stage.c[n]) for n in rules.same_by]


def _left_alone(
    transaction: Transaction, plan: Plan, identities: Sequence[str], held: Collection[bytes]
) -> set[str]:
    """Those that are rows of the source too: its keys say so, or changes of theirs that wait. And
    those that are excluded here.
    """
    out = plan.view.excluded if plan.view is not None else frozenset()
    keys = {*out, *held, *transaction.parking.keys(plan.name)}
    found = {str(orjson.loads(key)[plan.identity[0]]) for key in keys}
    if plan.is_tracked and identities:
        found |= known(transaction.session, transaction.source, plan.name, identities)
    return found


def _rename(
    transaction: Transaction, job: Job, rules: ConflictRules, ordinals: list[int]
) -> list[int]:
    """Give the target's rows the staged rows' identities; the ordinals of those that have them."""
    s, name = job.plan.stage, job.plan.identity[0]
    mine = job.plan.target.c[name]
    transaction.run(sa.update(s).values({s.c[HOLD]: 1}).where(s.c[ORDINAL].not_in(ordinals)))

    def rename(low: int, high: int) -> int:
        is_ready = (s.c[HOLD] == 0) & s.c[ORDINAL].between(low, high)
        renamed = sa.update(job.plan.target).values({mine: s.c[name]})
        return transaction.run(renamed.where(*_same(transaction, job.plan, rules), is_ready))

    _, failed = halve(transaction, ordinals, rename)
    return [ordinal for ordinal in ordinals if ordinal not in failed]


def _hold_less(upserts: Upserts, plan: Plan, decisions: Mapping[bytes, Decision]) -> None:
    """Of the held rows, what the policies write; nothing of those that stay as the target has
    them.
    """
    held = upserts.held[plan.name]
    for key, decision in decisions.items():
        if decision.write is None:
            del held[key]
            continue
        image: dict[str, Any] = orjson.loads(key) | dict(decision.write)
        value = orjson.dumps({"after": image, "op": "u"})
        held[key] = held[key]._replace(value=value, is_partial=plan.by_name.keys() > image.keys())
