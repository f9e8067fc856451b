"""One batch written into one open target transaction, block by block: memory is bounded by a block.

Order inside a block: deletes of what nothing references, children first; upserts, parents first;
references that had to wait; the other deletes. What a block cannot place is tried again at the
batch's end. The invariant: after `finish`, the target holds what the source held at the batch's
end, or an error was raised and nothing may commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from apply.conflicts import Conflicts
from apply.delete import Deletes
from apply.detach import has_come
from apply.fill import fill
from apply.fold import fold
from apply.orphans import Orphans
from apply.placeholding import make
from apply.plan import Link, Plan
from apply.queue import as_rows
from apply.refused import Refusal, Refused
from apply.release import ready
from apply.same import unite
from apply.sweep import Sweeps
from apply.transaction import Job, Transaction
from apply.upsert import Held, Upserts
from schemas.change import Batch, Rows, Truncate
from schemas.codec import op_of


def write(transaction: Transaction, batch: Batch, waiting: set[str], sweeps: Sweeps) -> int:
    """Write the whole batch; the number of rows written.

    waiting: tables with references that wait for a first copy; extended here.
    """
    writing = Writing(transaction, waiting, sweeps)
    sweeps.begin(batch.sweeps)
    if batch.seeds:
        transaction.identities.distrust()
        # A child may stand before the seed of its parent: all facts first.
        for block in batch.blocks():
            writing.learn(block)
    truncates = sorted(batch.truncates, key=lambda t: t.ordinal)
    for block in batch.blocks():
        first = min(rows.ordinals[0] for rows in block)
        due = [t for t in truncates if t.ordinal < first]
        writing.truncate(due)
        truncates = truncates[len(due) :]
        writing.block(block)
    writing.truncate(truncates)
    writing.finish()
    if batch.sweeps:
        transaction.ancestors.note("d")
        sweeps.end(batch.sweeps)
    transaction.ancestors.settle()
    return transaction.written


def release(transaction: Transaction, waiting: set[str], sweeps: Sweeps) -> None:
    """Apply the parked changes that were asked for, and those that waited for them."""
    Writing(transaction, waiting, sweeps).finish()
    transaction.ancestors.note("d")
    transaction.ancestors.settle()


class Writing:
    """The blocks of one batch on their way into the target."""

    def __init__(
        self,
        transaction: Transaction,
        waiting: set[str],
        sweeps: Sweeps,
        *,
        are_new: bool = True,
    ) -> None:
        """are_new: the rows' facts are not taken in yet, and conflicts not looked for."""
        self._in, self._waiting, self._sweeps = transaction, waiting, sweeps
        self._are_new = are_new
        if not are_new:
            # What later rows say of keys is known already.
            transaction.identities.distrust()
        self._keyed: dict[str, Plan] = {}
        self._came: dict[str, list[bytes]] = {}
        self._upserts = Upserts(transaction, waiting)
        self._orphans = Orphans(transaction, self._upserts)
        self._deletes, self._conflicts = Deletes(transaction, self._orphans), Conflicts(transaction)

    def learn(self, block: Sequence[Rows]) -> None:
        """Take in a block's facts and seeds, and none of its rows."""
        for rows in block:
            stream, seeds = without_seeds(rows)
            for table, pairs in seeds.items():
                self._in.seed(table, pairs)
            if len(stream):
                self._learn(self._plan(stream), stream)

    def truncate(self, truncates: Sequence[Truncate]) -> None:
        """Empty these tables of the source's rows."""
        for truncate in truncates:
            self._upserts.held.pop(truncate.table, None)
            self._in.placeholders.forget(truncate.table)
            self._in.aliases.forget(truncate.table)
        if truncates:
            self._in.ancestors.note("d")
            self._deletes.truncate(truncates)

    def block(self, block: Sequence[Rows]) -> None:
        """Write one block."""
        self._in.identities.settle()
        waves: list[dict[str, Rows]] = []
        for rows in block:
            stream = without_seeds(rows)[0] if self._in.batch.seeds else rows
            name = stream.table.full_name
            # Two descriptions of one table in a block: the older rows first.
            wave = next((w for w in waves if name not in w), None)
            if wave is None:
                waves.append(wave := {})
            if len(stream):
                wave[name] = stream
        for wave in waves:
            self._wave([self._job(rows) for rows in wave.values()])

    def _job(self, rows: Rows) -> Job:
        plan = self._plan(rows)
        self._sweeps.note(plan, rows.keys)
        if self._are_new and not self._in.batch.seeds:
            self._learn(plan, rows)
        if (keys := plan.one_case(rows.keys)) is not rows.keys:
            rows = replace(rows, keys=list(keys))
        rows = self._in.aliases.seen(plan, rows)
        rows, batch = self._in.parking.sift(rows), self._in.batch.batch
        return self._ready(plan, rows, batch, are_new=self._are_new)

    def _ready(self, plan: Plan, rows: Rows, batch: int, *, are_new: bool = False) -> Job:
        """Rows to write, whose ordinals are of that batch; are_new: conflicts are looked for."""
        self._in.ancestors.note(rows.ops)
        rows = self._in.seen(plan, rows, batch)
        held = set(self._upserts.held.get(plan.name, ()))
        self._upserts.forget(plan.name, rows.keys)
        self._deletes.forget(plan.name, rows.keys)
        if plan.name in self._waiting:
            names = [str(orjson.loads(key)[plan.identity[0]]) for key in rows.keys]
            self._in.identities.forget(plan, names)
        folded = self._in.admitted(plan, rows, fold(rows), batch)
        held |= self._in.placeholders.note(plan, rows, folded)
        if are_new:
            rows, folded = self._conflicts.settle(plan, rows, folded, held)
        if folded.upserts:
            self._keyed[plan.name] = plan
            if self._in.may_lack(plan.name):
                came = self._came.setdefault(plan.name, [])
                came += [rows.keys[i] for i in folded.upserts]
        # Where other tables reference this one, a row deleted and inserted again is two rows: its
        # children went with the first; so it is where the new row gets a key of its own.
        is_two = plan.references or plan.is_refereed
        deletes = sorted([*folded.deletes, *folded.again]) if is_two else folded.deletes
        sql = self._in.sql(plan)
        return Job(plan=plan, sql=sql, rows=rows, folded=folded, deletes=deletes, batch=batch)

    def _wave(self, jobs: list[Job]) -> None:
        jobs.sort(key=lambda job: job.plan.rank)
        self._orphans.settle(jobs)
        for job in jobs:
            self._deletes.lose_children(job, jobs)
        for job in jobs:
            self._upserts.stage(job)
            self._deletes.stage(job)
        for job in reversed(jobs):
            self._deletes.delete(job)
        for job in jobs:
            self._upserts.write(job)
        for job in jobs:
            self._upserts.write_late(job)
        for job in reversed(jobs):
            self._deletes.delete_left(job)

    def finish(self) -> None:
        """Place what had to wait for the batch's end."""
        self._orphans.settle_waiting()
        self._upserts.again()
        if self._let_wait():
            self._upserts.again()
        self._release()
        if self._upserts.are_held and self._deletes.are_left:
            # What is to go may have the unique values of what is to come.
            self._waiting |= self._deletes.try_left()
            self._upserts.again()
            self._release()
        self._settle()
        if self._release():
            self._settle()
        for plan in self._keyed.values():
            self._in.server.advance(self._in.connection, plan.target, plan.by_name)
        self._in.placeholders.finish()
        self._in.aliases.finish()

    def _settle(self) -> None:
        """What could not be placed is a row of the target's own, gets a placeholder, waits or is
        refused; what can go now goes.
        """
        while unite(self._in, self._upserts) or make(self._in, self._upserts.held):
            self._upserts.again()
        self._give_up_held()
        for name in sorted(self._waiting):
            plan = self._in.plan(name)
            for link in plan.links:
                if self._is_due(plan, link):
                    fill(self._in, plan, link)
        self._waiting |= self._deletes.finish()

    def _is_due(self, plan: Plan, link: Link) -> bool:
        """Whether a parent that references wait for may have come."""
        if link.parent_name in self._in.batch.pending or not self._in.may_stay_open(link):
            return True
        return has_come(self._in, plan, link, self._came.get(link.parent_name, ()))

    def _release(self) -> bool:
        """Apply parked changes whose time has come, and then those that waited for them; whether
        there were any.
        """
        found = False
        self._orphans.settle_waiting()
        while queues := self._in.parking.due(ready(self._in)):
            for batch, runs in as_rows(queues):
                for rows in runs:
                    self._wave([self._ready(self._plan(rows), rows, batch)])
            self._orphans.settle_waiting()
            self._upserts.again()
            found = True
        return found

    def _give_up_held(self) -> None:
        found: list[Refused] = []
        self._emptied: dict[tuple[str, str], list[bytes]] = {}
        for name, held in self._upserts.held.items():
            for key, row in held.items():
                refused = self._give_up(self._in.plan(name), key, row)
                refused = refused or self._upserts.collided(name, key, row)
                if refused is not None:
                    found.append(refused)
        if found:
            found[0].rows = [row for refused in found for row in refused.rows]
            raise found[0]
        for (name, column), keys in self._emptied.items():
            plan = self._in.plan(name)
            self._in.put_keys(plan, keys, range(len(keys)))
            self._in.run(self._in.sql(plan).unlink(column))

    def _let_wait(self) -> bool:
        """Leave references NULL that may be, where a first copy is still to bring the parent; they
        are set when it has come. Whether there are any.
        """
        found = False
        for held in self._upserts.held.values():
            for key, row in held.items():
                plan = self._in.plan(row.table.full_name, row.table.fingerprint)
                image = orjson.loads(row.value)
                after, identity = image["after"], str(orjson.loads(key)[plan.identity[0]])
                for link in plan.links:
                    may_wait = link.nullable and not link.late and (link.translated or link.waits)
                    value = self._lacking(link, after) if may_wait else None
                    if value is None:
                        continue
                    if link.waits or link.parent_name in self._in.batch.pending:
                        self._in.identities.wait(plan, link, identity, value)
                        self._waiting.add(plan.name)
                        after[link.column] = None
                        found = True
                # As much of the envelope as is looked at: the row, and its op at the end.
                image = {"after": after, "op": op_of(row.value)}
                held[key] = row._replace(value=orjson.dumps(image))
        return found

    def _give_up(self, plan: Plan, key: bytes, row: Held) -> Refused | None:
        """A row whose parent did not come in this batch: the first copy brings it, or it is
        refused.
        """
        after, pending = orjson.loads(row.value)["after"], self._in.batch.pending
        if (column := plan.undeclared(after)) is not None:
            by = next(link.by for link in plan.chosen if link.column == column)
            return Refused(
                f"cannot tell which table {plan.name}.{column} refers to: its {by} is none of "
                "those that references tells of",
                self._in.at(row.ordinal, row.batch),
                hint=f"add the value of {by} to references in the configuration, then: headwater "
                "parked retry",
                rows=[Refusal(plan.name, key, row.ordinal, "value")],
            )
        for link in sorted(plan.links, key=lambda k: not k.translated):
            value = self._lacking(link, after)
            if value is None:
                continue
            waits = link.parent_name, value
            refusal = Refusal(plan.name, key, row.ordinal, "parent", waits)
            at = self._in.at(row.ordinal, row.batch)
            is_out = link.parent_name not in pending and self._in.may_lack(link.parent_name)
            if is_out and not link.late:
                hint = (
                    f"filter {plan.name} alike, let {link.column} be NULL in the target, or "
                    "pin the parent: headwater child pin"
                )
                if link.brings:
                    hint = "it is asked of the source, as an ancestor: let the capture run"
                return Refused(
                    f"found no parent in {link.parent_name} for {plan.name}.{link.column}: it is "
                    "none of the target's rows (exceptions)",
                    at,
                    hint=hint,
                    rows=[refusal],
                )
            is_late = link.late or plan.name in pending
            if not self._may_come(link) or not is_late:
                return Refused(
                    f"found no parent in {link.parent_name} for {plan.name}.{link.column}",
                    at,
                    hint="if the foreign key is newer than the target: headwater drop this target, "
                    "prepare it, and apply the log from its start; if the log never had the rows "
                    f"of {link.parent_name}: a new log, with their first copy or identities",
                    rows=[refusal],
                )
            if link.late and (link.translated or link.waits):
                # The row is there, the reference NULL, set when the parent's chunk has come. Where
                # the row was adopted it leads to another parent until then.
                identity = str(orjson.loads(key)[plan.identity[0]])
                self._in.identities.wait(plan, link, identity, value)
                self._waiting.add(plan.name)
                self._emptied.setdefault((plan.name, link.column), []).append(key)
            elif (
                op_of(row.value) == "r"
                or row.batch != self._in.batch.batch
                or self._is_here(plan, key)
            ):
                # Its own table's first copy has brought it already, or it was parked: nothing would
                # bring it again.
                return Refused(
                    f"found no parent in {link.parent_name} yet for {plan.name}.{link.column}, and "
                    "the column cannot wait",
                    at,
                    hint=f"let {link.column} be NULL in the target until the first copy is done, "
                    'or copy with chunk_rows above the number of rows, or primary_keys = "copy"',
                    rows=[refusal],
                )
            # Otherwise the row is not there; its own table's first copy is still to bring it.
        return None

    def _may_come(self, link: Link) -> bool:
        """Whether a parent that is missing may come later: by a first copy, or by coming into the
        target's part of the source.
        """
        is_pending = link.parent_name in self._in.batch.pending
        return is_pending or link.waits or self._in.may_lack(link.parent_name)

    def _is_here(self, plan: Plan, key: bytes) -> bool:
        self._in.put_keys(plan, [key], [0])
        return bool(self._in.ordinals(self._in.sql(plan).here()))

    def _lacking(self, link: Link, image: Mapping[str, Any]) -> str | None:
        """A key that the row holds, whose row is not here."""
        found = (key for key in link.keys_in(image) if not self._is_known(link, key))
        return next(found, None)

    def _is_known(self, link: Link, value: str) -> bool:
        if link.waits and not link.translated:
            return value in self._in.identities.known(link, [value])
        return self._in.identities.is_known(link, value)

    def _plan(self, rows: Rows) -> Plan:
        return self._in.plan(rows.table.full_name, rows.table.fingerprint)

    def _learn(self, plan: Plan, rows: Rows) -> None:
        self._in.placeholders.meet(plan, rows)
        if plan.is_tracked:
            self._in.learn(plan, rows, whole_batch=self._in.batch.seeds)


def without_seeds(rows: Rows) -> tuple[Rows, dict[str, list[tuple[str, str]]]]:
    """A run of rows without its seeds, and the seeds' (source key, identity) by table."""
    if "s" not in rows.ops:
        return rows, {}
    seeds: dict[str, list[tuple[str, str]]] = {}
    for op, value in zip(rows.ops, rows.values, strict=True):
        if op == "s":
            seed = orjson.loads(value)
            identity = next(iter(seed["identity"].values()))
            pair = (str(seed["source_key"]), str(identity))
            seeds.setdefault(seed["table"], []).append(pair)
    keep = [i for i, op in enumerate(rows.ops) if op != "s"]
    return rows.at(keep), seeds
