"""Make a batch's rows the only ones of their tables, in one open target transaction (adr/0012).

All rows are staged beside the tables and compared there, by the server: what is missing or differs
is written as any change is, what the batch does not have is deleted, and what is right is not
touched. Rows without an identity are the target's own and stay.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from apply.exempt import ours
from apply.fold import fold
from apply.look_up import look_up
from apply.own import WAITING
from apply.plan import HOLD, ORDINAL, SET, Plan
from apply.server import Cause, Server
from apply.sql import Statements, differs
from apply.staging import staged
from apply.sweep import Sweeps
from apply.transaction import ALL, Job, Transaction
from apply.write import Writing
from schemas.change import Batch, Rows
from schemas.errors import Poison

NUMBERS = 10_000
"""Added to a plan's number: a shadow's staging table is not the one that writing uses."""


@dataclass(frozen=True, slots=True)
class _Shadow:
    """One description's rows, staged; `newest` is the plan of its table's newest description."""

    plan: Plan
    sql: Statements


def merge(
    transaction: Transaction,
    batch: Batch,
    waiting: set[str],
    sweeps: Sweeps,
    tables: Collection[str],
) -> int:
    """Make the batch's rows the only ones of `tables` that came from the source; the number of
    rows written. Raises Unplanned for a description without a plan.
    """
    plans = sorted((transaction.plan(name) for name in tables), key=lambda plan: plan.rank)
    for name in tables:
        transaction.parking.forget(name)
    for block in batch.blocks():
        for rows in block:
            plan = transaction.plan(rows.table.full_name, rows.table.fingerprint)
            transaction.placeholders.meet(plan, rows)
            transaction.placeholders.note(plan, rows, fold(rows))
    merging = _Merging(transaction, plans)
    merging.stage(batch)
    different = merging.different()
    merging.let_wait_no_more(tables)
    merging.delete_extra(is_last=False)
    merging.vacate()
    writing = Writing(transaction, waiting, sweeps, are_new=False)
    for block in batch.blocks():
        found = [rows for rows in map(among(different), block) if len(rows)]
        if found:
            writing.block(found)
    writing.finish()
    merging.delete_extra(is_last=True)
    transaction.ancestors.settle()
    return transaction.written


def differing(transaction: Transaction, batch: Batch) -> Sequence[int]:
    """The ordinals of the batch's rows that the target lacks or has otherwise, ascending; nothing
    is written but what the rows say of identities.
    """
    merging = _Merging(transaction, ())
    merging.stage(batch)
    return merging.different()


def among(ordinals: Sequence[int]) -> Callable[[Rows], Rows]:
    """Picks the rows whose ordinals are in a sorted array, as changes."""

    def picked(rows: Rows) -> Rows:
        low = bisect_left(ordinals, rows.ordinals[0])
        high = bisect_left(ordinals, rows.ordinals[-1] + 1)
        wanted = set(ordinals[low:high])
        at = [i for i, ordinal in enumerate(rows.ordinals) if ordinal in wanted]
        return replace(rows.at(at), ops=["u"] * len(at))

    return picked


class _Merging:
    def __init__(self, transaction: Transaction, plans: Sequence[Plan]) -> None:
        self._in, self._plans = transaction, plans
        self._shadows: dict[str, _Shadow] = {}

    def stage(self, batch: Batch) -> None:
        """Stage all rows, take in their facts, and resolve their references."""
        for block in batch.blocks():
            for rows in map(self._in.parking.unparked, block):
                plan = self._in.plan(rows.table.full_name, rows.table.fingerprint)
                self._stage(self._shadow(plan), rows, batch.batch)
                if plan.is_tracked:
                    self._in.learn(plan, rows)
        for shadow in self._shadows.values():
            self._in.server.analyze(self._in.connection, shadow.plan.stage)
            self._in.referee.find(shadow.plan, shadow.plan.stage)
            for link in (k for k in shadow.plan.links if k.translated):
                look_up(self._in, shadow.plan, link, batch.batch, as_of_end=True)

    def _stage(self, shadow: _Shadow, rows: Rows, batch: int) -> None:
        plan, rows = shadow.plan, self._in.seen(shadow.plan, rows)
        folded = self._in.admitted(plan, rows, fold(rows), marks=False)
        if folded.upserts:
            job = Job(plan=plan, sql=shadow.sql, rows=rows, folded=folded, deletes=[], batch=batch)
            self._in.put(job, plan.stage, folded.upserts, staged(self._in, job))

    def _shadow(self, plan: Plan) -> _Shadow:
        fingerprint = plan.source.fingerprint
        if fingerprint not in self._shadows:
            twin = replace(plan, number=plan.number + NUMBERS, sets=[])
            self._in.session.ready(twin.stage)
            self._shadows[fingerprint] = _Shadow(twin, self._in.sql(twin))
        return self._shadows[fingerprint]

    def different(self) -> Sequence[int]:
        """The ordinals of the rows that the target lacks or has otherwise, ascending."""
        found = array("q")
        for shadow in self._shadows.values():
            for number in range(len(shadow.plan.sets)):
                found.extend(self._in.ordinals(_different(self._in.server, shadow.plan, number)))
        return array("q", sorted(found))

    def vacate(self) -> None:
        """Take rows that will change a unique key out of its way: they are written in blocks, and
        another block's row may get the value first.
        """
        for shadow in self._shadows.values():
            for statement in shadow.sql.vacate(with_deletes=False):
                self._in.run(statement, **ALL)

    def let_wait_no_more(self, tables: Collection[str]) -> None:
        """References that wait do so by their newest rows, which are all written or right."""
        names = WAITING.c.table_name.in_(list(tables))
        self._in.run(sa.delete(WAITING).where(WAITING.c.source == self._in.source, names))

    def delete_extra(self, *, is_last: bool) -> None:
        """Delete the rows that the batch does not have, children first; what other rows still
        reference only when all those are written (`is_last`).
        """
        for shadow in self._shadows.values():
            # Rows that were new have their keys by now.
            self._in.referee.find(shadow.plan, shadow.plan.stage)
        for plan in self._plans:
            self._in.session.ready(plan.keys)
            stands = self._in.placeholders.stand(plan)
            self._in.run(_extra(plan, self._in.server, self._of(plan), stands))
            for link in plan.links:
                if link.late:
                    self._in.run(self._in.sql(plan).unlink(link.column))
        for plan in reversed(self._plans):
            sql = self._in.sql(plan)
            if plan.references and not is_last:
                self._in.run(sql.hold_referenced())
            try:
                self._in.written += self._in.run(sql.delete(), **ALL)
            except sa.exc.DBAPIError as error:
                if self._in.server.cause(error) is not Cause.FOREIGN:
                    raise
                raise Poison(
                    f"cannot delete rows of {plan.name} that the log does not have: rows of the "
                    "target still reference them",
                    hint="rows that only the target has reference them: move or delete those",
                ) from error
            self._in.referee.end(plan)

    def _of(self, plan: Plan) -> Iterator[Plan]:
        return (s.plan for s in self._shadows.values() if s.plan.name == plan.name)


def _match(server: Server, target: sa.Table, staged: sa.Table, plan: Plan) -> Any:
    return sa.and_(*(server.exactly(target.c[n], staged.c[n]) for n in plan.identity))


def _different(server: Server, plan: Plan, number: int) -> sa.Select[Any]:
    """Ordinals of the staged rows of one column set that the target lacks or has otherwise."""
    s, target = plan.stage, plan.target
    tests: list[Any] = [target.c[plan.identity[0]].is_(None)]
    for taken in plan.taken:
        if taken.name in plan.identity or taken.once or taken.name not in plan.sets[number]:
            continue
        tests.append(differs(server, target.c[taken.name], s.c[taken.name]))
        if link := plan.translated.get(taken.name):
            tests.append(s.c[link.source_key].is_not(None) & s.c[taken.name].is_(None))
    of_set = s.c[SET] == number if number else s.c[SET] <= 0
    return (
        sa.select(s.c[ORDINAL])
        .select_from(s.outerjoin(target, _match(server, target, s, plan)))
        .where(of_set, sa.or_(*tests))
    )


def _extra(
    plan: Plan, server: Server, shadows: Iterator[Plan], stands: sa.ColumnElement[bool]
) -> sa.Insert:
    """Stage the identities that came from the source, are in no shadow, and stand for nothing."""
    rows: Any = plan.target
    missing = []
    for shadow in shadows:
        staged = shadow.stage
        rows = rows.outerjoin(staged, _match(server, plan.target, staged, plan))
        missing.append(staged.c[plan.identity[0]].is_(None))
    zero: Any = sa.literal_column("0")
    found = sa.select(zero, zero, zero, *(plan.target.c[n] for n in plan.identity))
    found = found.select_from(rows).where(ours(server, plan), ~stands, *missing)
    return sa.insert(plan.keys).from_select([ORDINAL, SET, HOLD, *plan.identity], found)
