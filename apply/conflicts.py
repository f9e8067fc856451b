"""Rows that the target's applications changed since the source last wrote them: found for a whole
block by comparing the target with before-images, and decided by the table's policy.

Only tables with a policy are looked at; the others pay nothing. Rows that are compared are locked
until the batch's end, so that nothing changes between the look and the write. A change that finds
its own after-image there already is no conflict, nor is a copied row.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from time import time_ns
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
import structlog

from apply import read_back, recorded
from apply.fold import Folded, fold
from apply.look_up import look_up
from apply.plan import ORDINAL, Plan
from apply.recorded import Recorded
from apply.refused import Refusal, Refused
from apply.sql import differs
from apply.staging import staged
from apply.transaction import Job, Transaction
from schemas.change import Rows
from schemas.codec import ABSENT, after_of
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

    def settle(
        self, plan: Plan, rows: Rows, folded: Folded, held: Collection[bytes]
    ) -> tuple[Rows, Folded]:
        """The rows as they are to be written, and those that count. held: keys of rows that are
        not in the target only because they wait in this batch. Raises Refused for rows that are to
        be parked.
        """
        rules = plan.conflicts
        if rules is None:
            return rows, folded
        found = self._conflicts(plan, rows, folded, list(self._doubts(plan, rows, folded, held)))
        if not found:
            return rows, folded
        kinds = {taken.name: taken.kind for taken in plan.taken}
        decisions = {at: decided(plan, one, rules, kinds) for at, one in found.items()}
        self.park(plan, rows, decisions)
        self.record(plan, rows, found, decisions)
        if rules.by is not None:
            self._warn_of_skew(plan, found, rules.by)
        return _rewritten(rows, folded, decisions)

    def _doubts(
        self, plan: Plan, rows: Rows, folded: Folded, held: Collection[bytes]
    ) -> Iterator[_Doubt]:
        if plan.name in self._in.batch.pending:
            return
        for at in sorted([*folded.upserts, *folded.deletes]):
            first = folded.first[rows.keys[at]]
            if "r" not in (rows.ops[at], rows.ops[first]) and rows.keys[at] not in held:
                yield _Doubt(at, first, rows.ops[first])

    def _conflicts(
        self, plan: Plan, rows: Rows, folded: Folded, doubts: Sequence[_Doubt]
    ) -> dict[int, Conflict]:
        """By index into `rows`."""
        before, kept = [], []
        reads = set(_compared(plan))
        if plan.view is not None:
            reads = (reads - plan.view.computed.keys()) | plan.view.reads
        for doubt in doubts:
            row = orjson.loads(rows.values[doubt.first])
            image = row["after"] if doubt.op == "c" else row["before"]
            # Without a whole before-image nothing says what the target should have.
            if image is not None and reads <= image.keys():
                before.append(image)
                kept.append(doubt)
        _complete(plan, before)
        changed = self._changed(plan, rows, [d.at for d in kept], before, BEFORE)
        suspects = {
            d.at: (d, image, changed[d.at])
            for d, image in zip(kept, before, strict=True)
            if d.at in changed and not (d.op == "c" and changed[d.at] is None)
        }
        gone = set(folded.deletes)
        afters = {
            at: None if at in gone else after_image(plan, rows, folded, at) for at in suspects
        }
        self._forget_replays(plan, rows, suspects, afters)
        return self._images(plan, rows, suspects, afters)

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
            is_there = at in whole and at not in other
            is_gone = afters[at] is None and suspects[at][2] is None
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
        for link in (k for k in twin.links if k.translated):
            look_up(self._in, twin, link, job.batch, as_of_end=False)
        s, target = twin.stage, plan.target
        match = [self._in.server.exactly(target.c[n], s.c[n]) for n in plan.identity]
        # MySQL has no name for one table of several to lock.
        of = None if self._in.server.is_mysql else target
        self._in.ordinals(sa.select(s.c[ORDINAL]).where(*match).with_for_update(of=of))
        names = _compared(plan)
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
        mine = self.mine(plan, rows, there)
        return {
            at: Conflict(
                before=None if doubt.op == "c" else {n: image[n] for n in plan.by_name},
                after=afters[at],
                mine=mine.get(at),
                changed=changed or (),
                references=[n for n, link in plan.translated.items() if not link.is_chosen],
            )
            for at, (doubt, image, changed) in suspects.items()
        }

    def mine(self, plan: Plan, rows: Rows, there: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The target's rows of these indexes into `rows`; all must be there."""
        if not there:
            return {}
        ordinals = [rows.ordinals[at] for at in there]
        self._in.put_keys(plan, [rows.keys[at] for at in there], ordinals)
        chosen = read_back.selected(self._in.server, plan, plan.by_name)
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

    def park(self, plan: Plan, rows: Rows, decisions: Mapping[int, Decision]) -> None:
        """Raise Refused for the rows of which a person is to decide."""
        parks = [at for at, decision in decisions.items() if decision.parks]
        if parks:
            found = [
                Refusal(plan.name, rows.keys[at], rows.ordinals[at], "conflict") for at in parks
            ]
            raise Refused(
                f"found a row of {plan.name} that was changed in the target too "
                f"({decisions[parks[0]].rule})",
                self._in.at(rows.ordinals[parks[0]]),
                hint="headwater parked show TARGET NUMBER --values shows it; retry takes the "
                "source's row, skip keeps the target's, edit makes another one",
                rows=found,
            )

    def record(
        self,
        plan: Plan,
        rows: Rows,
        found: Mapping[int, Conflict],
        decisions: Mapping[int, Decision],
    ) -> None:
        """Keep what was decided of these indexes into `rows`."""
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


def decided(
    plan: Plan, conflict: Conflict, rules: ConflictRules, kinds: Mapping[str, Any]
) -> Decision:
    """The decision; what cannot be compared parks."""
    try:
        return _together(plan, conflict, decide(conflict, rules, kinds))
    except (ValueError, ArithmeticError) as error:
        rule = f"{rules.policy} cannot compare the values: {type(error).__name__}"
        return Decision(None, rule, parks=True)


def _together(plan: Plan, conflict: Conflict, decision: Decision) -> Decision:
    """With both of a key and the column that says whose it is, where one of them is written."""
    if decision.write is None or conflict.after is None:
        return decision
    write = dict(decision.write)
    for link in plan.chosen:
        pair = {link.column, link.by} if link.by is not None else set()
        if pair & write.keys():
            write |= {n: conflict.after[n] for n in pair - write.keys() if n in conflict.after}
    return decision._replace(write=write)


def _compared(plan: Plan) -> list[str]:
    """The columns in which both sides may have the same row."""
    return [t.name for t in plan.taken if t.name not in plan.identity and not t.once]


def _complete(plan: Plan, images: Sequence[dict[str, Any]]) -> None:
    """Add the columns that the target computes."""
    if plan.view is not None and images:
        columns = {n: [image.get(n, ABSENT) for image in images] for n in plan.view.reads}
        for name, values in plan.view.values(columns, len(images)).items():
            for image, value in zip(images, values, strict=True):
                image[name] = value


def after_image(plan: Plan, rows: Rows, folded: Folded, at: int) -> dict[str, Any]:
    """What is to be written of the row at this index, as the source has it."""
    after = folded.merged.get(at) or after_of(rows.values[at])
    return {n: after[n] for n in plan.by_name if n in after}


def _rewritten(
    rows: Rows, folded: Folded, decisions: Mapping[int, Decision]
) -> tuple[Rows, Folded]:
    """Without what the target keeps; what is written, with the columns that are."""
    values, out = list(rows.values), set()
    for at, decision in decisions.items():
        if decision.write is not None:
            image = orjson.loads(rows.keys[at]) | dict(decision.write)
            values[at] = orjson.dumps({"after": image, "op": "u"})
        elif not decision.deletes:
            out.add(at)
    counts = replace(
        folded,
        upserts=[i for i in folded.upserts if i not in out],
        deletes=[i for i in folded.deletes if i not in out],
        again=[i for i in folded.again if i not in decisions],
        merged={i: image for i, image in folded.merged.items() if i not in decisions},
    )
    return replace(rows, values=values, partial=True), counts
