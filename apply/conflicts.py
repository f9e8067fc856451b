"""Rows that the target's applications changed since the source last wrote them: found for a whole
block by comparing the target with before-images, and decided by the table's policy.

Only tables with a policy are looked at; the others pay nothing. Rows that are compared are locked
until the batch's end, so that nothing changes between the look and the write. A change that finds
its own after-image there already is no conflict, nor is a copied row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from time import time_ns
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
import structlog

from apply import read_back, recorded
from apply.fold import fold
from apply.plan import ORDINAL, Plan
from apply.recorded import Recorded
from apply.refused import Refused
from apply.sql import differs
from apply.staging import staged
from apply.transaction import Job, Transaction
from schemas.change import Rows
from schemas.conflict import Conflict, ConflictRules, Decision, comparable, decide

BEFORE, AFTER = 20_000, 30_000
"""Added to a plan's number: staging tables of their own for before- and after-images."""
SKEW_US = 60_000_000
"""So far ahead of its commit, by the source's clock, may a row say that it was changed."""

log = structlog.get_logger()


class _Doubt(NamedTuple):
    """One row that may be in conflict. at: its last row here; first: the row with its
    before-image.
    """

    at: int
    first: int
    op: str


class Conflicts:
    """The conflicts of one batch."""

    def __init__(self, transaction: Transaction) -> None:
        self._in = transaction

    def settle(self, plan: Plan, rows: Rows, held: Collection[bytes]) -> Rows:
        """The rows as they are to be written. held: keys of rows that are not in the target only
        because they wait in this batch. Raises Refused for rows that are to be parked.
        """
        rules = plan.conflicts
        if rules is None:
            return rows
        doubts = list(self._doubts(plan, rows, held))
        found = self._conflicts(plan, rows, doubts)
        if not found:
            return rows
        kinds = {taken.name: taken.kind for taken in plan.taken}
        decisions = {at: _decided(conflict, rules, kinds) for at, conflict in found.items()}
        self._park(plan, rows, decisions)
        self._record(plan, rows, found, decisions)
        if rules.by is not None:
            self._warn_of_skew(plan, found, rules.by)
        return _rewritten(rows, decisions)

    def _doubts(self, plan: Plan, rows: Rows, held: Collection[bytes]) -> Any:
        folded = fold(rows)
        first = folded.first if len(folded.first) < len(rows) else None
        pending = plan.name in self._in.batch.pending
        for at in sorted([*folded.upserts, *folded.deletes]):
            begin = at if first is None else first[rows.keys[at]]
            is_copied = "r" in (rows.ops[at], rows.ops[begin])
            if not (is_copied or pending or rows.keys[at] in held):
                yield _Doubt(at, begin, rows.ops[begin])

    def _conflicts(self, plan: Plan, rows: Rows, doubts: Sequence[_Doubt]) -> dict[int, Conflict]:
        """By index into `rows`."""
        names = [t.name for t in plan.taken if t.name not in plan.identity]
        images, kept = [], []
        for doubt in doubts:
            row = orjson.loads(rows.values[doubt.first])
            image = row["after"] if doubt.op == "c" else row["before"]
            # Without a whole before-image nothing says what the target should have.
            if image is not None and all(name in image for name in names):
                images.append(image)
                kept.append(doubt)
        changed = self._changed(plan, rows, [d.at for d in kept], images, BEFORE)
        suspects = {
            d.at: (d, image, changed[d.at])
            for d, image in zip(kept, images, strict=True)
            if d.at in changed and not (d.op == "c" and changed[d.at] is None)
        }
        afters = {at: self._after(plan, rows, d) for at, (d, _, _) in suspects.items()}
        self._forget_replays(plan, rows, suspects, afters)
        return self._images(plan, rows, suspects, afters)

    def _after(self, plan: Plan, rows: Rows, doubt: _Doubt) -> dict[str, Any] | None:
        if rows.ops[doubt.at] == "d":
            return None
        merged = fold(rows).merged.get(doubt.at) if rows.partial else None
        after = merged or orjson.loads(rows.values[doubt.at])["after"]
        return {n: after[n] for n in plan.by_name if n in after}

    def _forget_replays(
        self,
        plan: Plan,
        rows: Rows,
        suspects: dict[int, Any],
        afters: Mapping[int, dict[str, Any] | None],
    ) -> None:
        whole = {
            at: after
            for at, after in afters.items()
            if after is not None and len(after) == len(plan.by_name)
        }
        other = self._changed(plan, rows, list(whole), list(whole.values()), AFTER)
        for at in list(suspects):
            changed = suspects[at][2]
            is_there = at in whole and at not in other
            is_gone = rows.ops[at] == "d" and changed is None
            if is_there or is_gone:
                del suspects[at]

    def _changed(
        self,
        plan: Plan,
        rows: Rows,
        indexes: Sequence[int],
        images: Sequence[Mapping[str, Any]],
        number: int,
    ) -> dict[int, list[str] | None]:
        """By index: the columns in which the target's row is another; None: it is not there. Rows
        that are the same are not in it.
        """
        if not indexes:
            return {}
        twin = replace(plan, number=plan.number + number, sets=[])
        staging = Rows(
            table=rows.table,
            ops=["u"] * len(indexes),
            ordinals=[rows.ordinals[i] for i in indexes],
            keys=[rows.keys[i] for i in indexes],
            values=[orjson.dumps({"after": image, "op": "u"}) for image in images],
        )
        sql = self._in.sql(twin)
        job = Job(
            plan=twin,
            sql=sql,
            rows=staging,
            folded=fold(staging),
            deletes=[],
            batch=self._in.batch.batch,
        )
        lines = staged(self._in, job)
        self._in.session.ready(twin.stage)
        self._in.put(job, twin.stage, job.folded.upserts, lines)
        for link in twin.translated.values():
            for statement in sql.resolve(link, job.batch, as_of_end=False):
                self._in.run(statement)
        s, target = twin.stage, plan.target
        match = [self._in.server.exactly(target.c[n], s.c[n]) for n in plan.identity]
        # MySQL has no name for one table of several to lock.
        of = None if self._in.server.is_mysql else target
        self._in.ordinals(sa.select(s.c[ORDINAL]).where(*match).with_for_update(of=of))
        names = [t.name for t in plan.taken if t.name not in plan.identity]
        tests = [differs(self._in.server, target.c[n], s.c[n]).label(n) for n in names]
        is_missing = target.c[plan.identity[0]].is_(None)
        compared = sa.select(s.c[ORDINAL], is_missing, *tests).select_from(
            s.outerjoin(target, sa.and_(*match))
        )
        at = dict(zip(staging.ordinals, indexes, strict=True))
        found: dict[int, list[str] | None] = {}
        for ordinal, missing, *different in self._in.connection.execute(compared):
            changed = [n for n, differs_ in zip(names, different, strict=True) if differs_]
            if missing or changed:
                found[at[int(ordinal)]] = None if missing else changed
        return found

    def _images(
        self,
        plan: Plan,
        rows: Rows,
        suspects: Mapping[int, tuple[_Doubt, Any, list[str] | None]],
        afters: Mapping[int, dict[str, Any] | None],
    ) -> dict[int, Conflict]:
        """The conflicts with the target's rows, read where they are locked."""
        there = sorted(at for at, (_, _, changed) in suspects.items() if changed is not None)
        mine = self._mine(plan, rows, there)
        return {
            at: Conflict(
                before=None if doubt.op == "c" else {n: image[n] for n in plan.by_name},
                after=afters[at],
                mine=mine.get(at),
                changed=changed or (),
                references=list(plan.translated),
            )
            for at, (doubt, image, changed) in suspects.items()
        }

    def _mine(self, plan: Plan, rows: Rows, there: Sequence[int]) -> dict[int, dict[str, Any]]:
        if not there:
            return {}
        ordinals = [rows.ordinals[at] for at in there]
        self._in.put_keys(plan, [rows.keys[at] for at in there], ordinals)
        chosen = read_back.selected(plan, plan.by_name)
        match = [self._in.server.exactly(plan.target.c[n], plan.keys.c[n]) for n in plan.identity]
        chosen = replace(chosen, source=chosen.source.join(plan.keys, sa.and_(*match)))
        statement = chosen.where().order_by(plan.keys.c[ORDINAL])
        found: list[list[Any]] = []
        for block in read_back.read_rows(
            self._in.server, chosen, statement, connection=self._in.connection
        ):
            found += block
        return {
            at: dict(zip(chosen.names, values, strict=True))
            for at, values in zip(there, found, strict=True)
        }

    def _park(self, plan: Plan, rows: Rows, decisions: Mapping[int, Decision]) -> None:
        parks = [at for at, decision in decisions.items() if decision.parks]
        if parks:
            job = Job(
                plan=plan,
                sql=self._in.sql(plan),
                rows=rows,
                folded=fold(rows),
                deletes=[],
                batch=self._in.batch.batch,
            )
            raise Refused(
                f"found a row of {plan.name} that was changed in the target too "
                f"({decisions[parks[0]].rule})",
                self._in.at(rows.ordinals[parks[0]]),
                hint="headwater parked show TARGET NUMBER --values shows it; retry takes the "
                "source's row, skip keeps the target's, edit makes another one",
                rows=job.refusals(parks, "conflict"),
            )

    def _record(
        self,
        plan: Plan,
        rows: Rows,
        found: Mapping[int, Conflict],
        decisions: Mapping[int, Decision],
    ) -> None:
        kept = []
        for at, conflict in found.items():
            decision = decisions[at]
            batch, ordinal = self._in.batch.place(rows.ordinals[at])
            written = None if decision.write is None else orjson.dumps(dict(decision.write))
            kept.append(
                Recorded(
                    number=0,
                    table_name=plan.name,
                    row_key=rows.keys[at].decode(),
                    images=recorded.dumps(conflict),
                    rule=decision.rule,
                    outcome=recorded.outcome(conflict, decision),
                    written=None if written is None else written.decode(),
                    batch=batch,
                    ordinal=ordinal,
                    position=self._in.batch.position,
                    committed_at=self._in.batch.committed_at,
                    decided_at=time_ns() // 1000,
                )
            )
        recorded.add(self._in.connection, self._in.source, kept)
        log.info("conflicts_decided", table=plan.name, conflicts=len(kept))

    def _warn_of_skew(self, plan: Plan, found: Mapping[int, Conflict], by: str) -> None:
        committed_at, kind = self._in.batch.committed_at, plan.by_name[by].kind
        if committed_at is None or kind.name != "timestamp":
            return
        newest = max(
            (
                comparable(kind, image[by])
                for conflict in found.values()
                for image in (conflict.after, conflict.mine)
                if image is not None and image.get(by) is not None
            ),
            default=None,
        )
        ahead_us = newest[1].timestamp() * 1e6 - committed_at if newest else 0
        if ahead_us > SKEW_US:
            log.warning("clock_skew", table=plan.name, column=by, ahead_s=round(ahead_us / 1e6))


def _decided(conflict: Conflict, rules: ConflictRules, kinds: Mapping[str, Any]) -> Decision:
    try:
        return decide(conflict, rules, kinds)
    except (ValueError, ArithmeticError) as error:
        rule = f"{rules.policy} cannot compare the values: {type(error).__name__}"
        return Decision(None, rule, parks=True)


def _rewritten(rows: Rows, decisions: Mapping[int, Decision]) -> Rows:
    """Without what the target keeps; what is written, with the columns that are."""
    last = dict(zip(rows.keys, range(len(rows)), strict=True))
    values, ops, keep = list(rows.values), list(rows.ops), []
    decided = {rows.keys[at] for at in decisions}
    is_partial = rows.partial
    for i, key in enumerate(rows.keys):
        if key not in decided:
            keep.append(i)
            continue
        if last[key] != i:
            continue
        decision = decisions[i]
        if decision.deletes:
            keep.append(i)
        elif decision.write is not None:
            keep.append(i)
            identity = orjson.loads(key)
            values[i] = orjson.dumps({"after": {**identity, **decision.write}, "op": "u"})
            ops[i], is_partial = "u", True
    return replace(rows, values=values, ops=ops, partial=is_partial).at(keep)
