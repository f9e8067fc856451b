"""Inserts and updates of one batch, in one order: stage, resolve references, update by identity,
insert the missing.

What collides on the way is cured once (a unique key vacated, a row without its parent held back);
rows that still fail are found by halving. Held rows, and those that collide, are kept for another
try at the batch's end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from apply.detach import leave_open
from apply.direct import copy, direct
from apply.fold import fold
from apply.halving import ROWS, halve
from apply.look_up import look_up
from apply.naming import name_rows
from apply.plan import HOLD, ORDINAL, Link
from apply.refused import Reason, Refusal, Refused
from apply.server import Cause
from apply.staging import staged
from apply.transaction import ALL, Job, Transaction
from schemas.change import Rows
from schemas.table import Table

REFUSED = (
    "a constraint of the target refuses it: see the row with `headwater peek`, then mend the "
    "target or the row; rows that exchange values of a unique key need a column of it that may be "
    "NULL, or takes a spare value (docs/limits.md)"
)


class Held(NamedTuple):
    """A row that cannot be placed yet."""

    table: Table
    ordinal: int
    value: bytes
    is_partial: bool
    batch: int


class Upserts:
    """The upserts of one batch; keeps the rows whose parents have not come."""

    def __init__(self, transaction: Transaction, waiting: set[str]) -> None:
        """waiting: tables with references that wait for their parents; extended here."""
        self._in, self._waiting = transaction, waiting
        self.held: dict[str, dict[bytes, Held]] = {}
        self._collided: dict[tuple[str, bytes], tuple[Reason, str]] = {}

    def forget(self, name: str, keys: Iterable[bytes]) -> None:
        """Newer rows of these keys came."""
        if held := self.held.get(name):
            for key in keys:
                held.pop(key, None)

    @property
    def are_held(self) -> bool:
        """Whether rows wait for the batch's end."""
        return any(self.held.values())

    # Staging.

    def stage(self, job: Job) -> None:
        """Put the rows that count into the staging table, unless they can do without."""
        if job.folded.upserts:
            job.lines = direct(job)
            if job.lines is None:
                self._stage(job)

    def _stage(self, job: Job) -> None:
        lines = staged(self._in, job)
        self._in.session.ready(job.plan.stage)
        self._in.put(job, job.plan.stage, job.folded.upserts, lines)

    # Writing.

    def write(self, job: Job, *, as_of_end: bool = False) -> None:
        """Update and insert the staged rows, parents before children; hold those without a
        parent.
        """
        if not job.folded.upserts:
            return
        if job.lines is not None:
            if copy(self._in, job, job.lines):
                return
            self._stage(job)
        name_rows(self._in, job)
        links = [link for link in job.plan.links if not link.late]
        if not as_of_end and self._is_told(job, links) and self._write_as_told(job, links):
            return
        self._resolve(job, [k for k in links if k.translated], as_of_end=as_of_end)
        self._write(job, links)
        count = self._held_count(job)
        while count:
            # Rows that reference rows of the same table: again, as long as a pass places some.
            before = count
            self._in.run(job.sql.release(job.plan.stage))
            self._resolve(job, links, as_of_end=True)
            count = self._held_count(job)
            if count < before:
                self._write(job, links)
                count = self._held_count(job)
            if count >= before:
                break
        if count:
            self._keep(job, job.at(self._in.ordinals(job.sql.held(job.plan.stage))))
        if job.has_partial:
            self._judge_missing(job)

    def _resolve(self, job: Job, links: Sequence[Link], *, as_of_end: bool) -> None:
        for link in links:
            if link.translated:
                self._look_up(job, link, as_of_end=as_of_end)
                self._leave_open(job, link)
        for link in links:
            self._hold(job, link)

    def _leave_open(self, job: Job, link: Link) -> None:
        if self._in.may_stay_open(link) and leave_open(self._in, job, link):
            self._waiting.add(job.plan.name)

    def _hold(self, job: Job, link: Link) -> int:
        """Hold the rows whose reference has no parent yet; how many those are."""
        if link.nth:
            return 0  # the column's first one has held it
        held = self._in.run(job.sql.hold_unresolved(link))
        job.is_held = job.is_held or held > 0
        return held

    def _look_up(self, job: Job, link: Link, *, as_of_end: bool) -> None:
        for ordinal, why in look_up(self._in, job.plan, link, job.batch, as_of_end=as_of_end):
            (at,) = job.at([ordinal])
            self._collided[job.plan.name, job.rows.keys[at]] = "value", why

    def _held_count(self, job: Job) -> int:
        if not job.is_held:
            return 0
        return len(self._in.ordinals(job.sql.held(job.plan.stage)))

    def _keep(self, job: Job, indexes: list[int]) -> None:
        rows, kept = job.rows, self.held.setdefault(job.plan.name, {})
        for i in indexes:
            image = job.folded.merged.get(i)
            value = rows.values[i] if image is None else orjson.dumps({"after": image, "op": "u"})
            kept[rows.keys[i]] = Held(rows.table, rows.ordinals[i], value, rows.partial, job.batch)

    def _write(self, job: Job, links: Sequence[Link]) -> None:
        """Update and insert; what collides is cured once, then the first row that fails is
        named.
        """
        cured: set[Cause] = set()
        while True:
            savepoint = self._in.connection.begin_nested()
            try:
                written = self._write_range(job, ALL, vacate=Cause.UNIQUE in cured)
                savepoint.commit()
                self._in.written += written
                return
            except sa.exc.DBAPIError as error:
                cause = self._in.server.cause(error)
                if cause not in ROWS:
                    raise
                savepoint.rollback()
                if cause in cured or not self._can_cure(job, cause, links):
                    self._write_each(job, vacate=Cause.UNIQUE in cured)
                    return
                cured.add(cause)

    def _write_each(self, job: Job, *, vacate: bool) -> None:
        """Write what can be; hold what another row or table prevents, refuse the rest."""
        stage = job.plan.stage
        if vacate:
            self._vacate(job)
        written, failed = halve(
            self._in,
            self._in.ordinals(self._ready(job)),
            lambda low, high: self._write_range(job, {"low": low, "high": high}, vacate=False),
        )
        self._in.written += written
        self._hold_failed(job, failed)
        for ordinal in failed:
            self._in.run(sa.update(stage).values({HOLD: 1}).where(stage.c[ORDINAL] == ordinal))
        job.is_held = True

    def _vacate(self, job: Job) -> None:
        """Take all rows out of the way; where a check refuses that, none."""
        savepoint = self._in.connection.begin_nested()
        try:
            for statement in job.sql.vacate(with_deletes=bool(job.left)):
                self._in.run(statement, **ALL)
            savepoint.commit()
        except sa.exc.DBAPIError as error:
            if self._in.server.cause(error) not in ROWS:
                raise
            savepoint.rollback()

    def _ready(self, job: Job) -> sa.Select[Any]:
        stage = job.plan.stage
        return sa.select(stage.c[ORDINAL]).where(stage.c[HOLD] == 0).order_by(stage.c[ORDINAL])

    def _hold_failed(self, job: Job, failed: Mapping[int, sa.exc.DBAPIError]) -> list[int]:
        """Remember why these rows collide; their indexes. Raises Refused for those whose own
        values are refused.
        """
        server, indexes = self._in.server, job.at(list(failed))
        causes = {i: server.cause(failed[job.rows.ordinals[i]]) for i in indexes}
        why = {i: server.explain(failed[job.rows.ordinals[i]]) for i in indexes}
        bad = [i for i in indexes if causes[i] is Cause.ROW]
        if bad:
            rows = job.refusals(bad, "value")
            raise self._refused(job.plan.name, why[bad[0]], rows, job.batch)
        for i in indexes:
            reason: Reason = "unique" if causes[i] is Cause.UNIQUE else "reference"
            self._collided[job.plan.name, job.rows.keys[i]] = reason, why[i]
        return indexes

    def collided(self, name: str, key: bytes, row: Held) -> Refused | None:
        """Why a held row cannot be written, where another row or table prevents it."""
        if (name, key) not in self._collided:
            return None
        reason, why = self._collided[name, key]
        return self._refused(name, why, [Refusal(name, key, row.ordinal, reason)], row.batch)

    def collisions(self) -> Iterator[Job]:
        """The held rows that need a unique value which another row has."""
        for name, held in self.held.items():
            found = {
                key: row
                for key, row in held.items()
                if (name, key) in self._collided and self._collided[name, key][0] == "unique"
            }
            yield from self._jobs(found)

    def _refused(self, name: str, why: str, rows: Sequence[Refusal], batch: int) -> Refused:
        at = self._in.at(rows[0].ordinal, batch)
        return Refused(f"cannot write a row of {name}: {why}", at, hint=REFUSED, rows=rows)

    def _can_cure(self, job: Job, cause: Cause, links: Sequence[Link]) -> bool:
        if cause is Cause.UNIQUE:
            return bool(job.plan.uniques)
        if cause is Cause.FOREIGN:
            return sum(self._hold(job, link) for link in links) > 0
        return False

    def _is_told(self, job: Job, links: Sequence[Link]) -> bool:
        if job.has_partial or not job.plan.is_guarded or not job.sql.resolves:
            return False
        if links and self._in.identities.memory(job.batch) is None:
            return False
        if any(map(self._in.may_stay_open, links)):
            return False
        return job.new > 0 or bool(links)

    def _write_as_told(self, job: Job, links: Sequence[Link]) -> bool:
        """Update what the source updated and insert what it inserted, without looking whether the
        target has it: its unique index on the identity says so (a replay). Whether that placed
        every row; if not, nothing of it stands.
        """
        written = 0
        savepoint = self._in.connection.begin_nested()
        try:
            update = job.sql.update_known() if job.whole else None
            if update is not None:
                written = self._in.run(update)
            known = written
            if job.new and (known == job.whole or not links):
                written += self._in.run(job.sql.insert_new())
            if known < job.whole and not links:
                written += self._in.run(job.sql.insert(), **ALL)
        except sa.exc.DBAPIError as error:
            if self._in.server.cause(error) not in ROWS:
                raise
            written = 0
        if written < job.whole + job.new:
            savepoint.rollback()
            return False
        savepoint.commit()
        self._in.written += written
        return True

    def _write_range(self, job: Job, span: Mapping[str, int], *, vacate: bool) -> int:
        if vacate:
            for statement in job.sql.vacate(with_deletes=bool(job.left)):
                self._in.run(statement, **span)
        written = 0
        for number in range(len(job.plan.sets) if job.has_partial else 1):
            update = job.sql.update(number)
            if update is not None:
                written += self._in.run(update, **span)
        # Each staged row is found at most once: where all were, none is missing.
        if job.has_partial or job.is_held or written < job.new + job.whole:
            written += self._in.run(job.sql.insert(), **span)
        return written

    def _judge_missing(self, job: Job) -> None:
        missing = self._in.ordinals(job.sql.missing())
        if missing and job.plan.name not in self._in.batch.pending:
            raise Refused(
                f"cannot complete a row of {job.plan.name} that the target lacks: the log holds "
                "only some of its columns",
                self._in.at(missing[0], job.batch),
                hint="copy the table again, or set REPLICA IDENTITY FULL on it",
                rows=job.refusals(job.at(missing), "incomplete"),
            )

    # References to rows that come later.

    def write_late(self, job: Job) -> None:
        """Set the references that had to wait for rows of this block."""
        if not job.folded.upserts:
            return
        late = [link for link in job.plan.links if link.late]
        for link in late:
            if link.translated:
                self._look_up(job, link, as_of_end=False)
                self._look_up(job, link, as_of_end=True)
                self._leave_open(job, link)
        for link in late:
            if link.nth:
                continue  # the column's first one sets it
            for number, present in enumerate(job.plan.sets):
                if link.column in present and (number == 0 or job.has_partial):
                    self._write_late(job, link, number)
            if link.translated:
                self._keep(job, job.at(self._in.ordinals(job.sql.unresolved(link))))

    def _write_late(self, job: Job, link: Link, number: int) -> None:
        statement = job.sql.update_late(link, number)
        savepoint = self._in.connection.begin_nested()
        try:
            self._in.run(statement, **ALL)
            savepoint.commit()
        except sa.exc.DBAPIError as error:
            if self._in.server.cause(error) not in ROWS:
                raise
            savepoint.rollback()
            self._in.run(job.sql.hold_unresolved(link))
            self._keep(job, job.at(self._in.ordinals(job.sql.held(job.plan.stage))))
            ready = self._in.ordinals(self._ready(job))
            write = partial(self._run_between, statement)
            self._keep(job, self._hold_failed(job, halve(self._in, ready, write)[1]))

    def _run_between(self, statement: sa.Update, low: int, high: int) -> int:
        return self._in.run(statement, low=low, high=high)

    # The batch's end.

    def again(self) -> None:
        """Try held rows once more, as long as that places some."""
        count = -1
        while 0 < (now := sum(map(len, self.held.values()))) != count:
            count = now
            waiting, self.held = self.held, {}
            # A plan's staging table holds one job at a time.
            for jobs in zip_longest(*(self._jobs(held) for held in waiting.values())):
                wave = sorted(filter(None, jobs), key=lambda job: job.plan.rank)
                for job in wave:
                    self.stage(job)
                for job in wave:
                    self.write(job, as_of_end=True)
                for job in wave:
                    self.write_late(job)

    def _jobs(self, held: Mapping[bytes, Held]) -> Iterator[Job]:
        """One job for each description and batch among the held rows of a table."""
        parts = {(row.table.fingerprint, row.batch): row.table for row in held.values()}
        for (_, batch), table in sorted(parts.items(), key=lambda part: part[0][1]):
            mine = {k: row for k, row in held.items() if (row.table, row.batch) == (table, batch)}
            rows = Rows(
                table=table,
                ops=["u"] * len(mine),
                ordinals=[row.ordinal for row in mine.values()],
                keys=list(mine),
                values=[row.value for row in mine.values()],
                partial=any(row.is_partial for row in mine.values()),
            )
            plan = self._in.plan(table.full_name, table.fingerprint)
            folded, sql = fold(rows), self._in.sql(plan)
            yield Job(plan=plan, sql=sql, rows=rows, folded=folded, deletes=[], batch=batch)
