"""One batch's open target transaction: its plans, its statements, and errors that name a row of
it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import sqlalchemy as sa

from apply.aliases import Aliases
from apply.ancestors import Ancestors
from apply.fields import Lines, lines, plain
from apply.fold import Folded, fold
from apply.identity import Identities
from apply.intervals import facts
from apply.parking import Parking, Standing
from apply.placeholder_rows import Placeholders
from apply.plan import ORDINAL, SET, Link, Plan
from apply.plans import Plans
from apply.referee import Referee
from apply.refused import Reason, Refusal, Refused
from apply.server import Unstorable
from apply.session import Session
from apply.shared import Shared
from apply.sql import Statements
from apply.view import Undecided
from schemas.change import Rows

ALL = {"low": 0, "high": 2**62}
"""Every ordinal."""


class Unplanned(Exception):
    """A description without a plan: the batch starts again once it is prepared."""


@dataclass(slots=True, kw_only=True)
class Job:
    """One table's part of a block; `deletes` and `left` are indexes into `rows`.

    batch: whose ordinals the rows have, as headwater_identity counts: another than the
    transaction's where they were parked. new, whole: how many of the staged rows are whole and were
    new to the source, or were not.
    is_held: some of them were held back once. lines: rows that were not staged (apply/direct.py).
    """

    plan: Plan
    sql: Statements
    rows: Rows
    folded: Folded
    deletes: list[int]
    batch: int
    new: int = 0
    whole: int = 0
    has_partial: bool = False
    is_held: bool = False
    left: list[int] = field(default_factory=list)
    lines: Lines | None = None

    def at(self, ordinals: Sequence[int]) -> list[int]:
        """The indexes of these ordinals."""
        wanted = set(ordinals)
        return [i for i, ordinal in enumerate(self.rows.ordinals) if ordinal in wanted]

    def refusals(
        self,
        indexes: Iterable[int],
        reason: Reason,
    ) -> list[Refusal]:
        """The rows at these indexes as refused."""
        name, rows = self.plan.name, self.rows
        return [Refusal(name, rows.keys[i], rows.ordinals[i], reason) for i in indexes]


class Transaction:
    """What the writers of a batch share."""

    def __init__(
        self,
        session: Session,
        plans: Plans,
        statements: dict[int, Statements],
        source: str,
        batch: Standing,
        parking: Parking,
        shared: Shared | None = None,
    ) -> None:
        self.session, self.server, self.connection = session, session.server, session.connection
        self.parking = parking
        self.batch, self.identities = batch, Identities(session, source, batch.batch)
        self.referee = Referee(session, source, batch.batch, shared)
        self.placeholders = Placeholders(session, source, are_made=plans.make_placeholders)
        self.aliases = Aliases(session, source, are_made=plans.unite)
        self._plans, self._statements, self.source = plans, statements, source
        self.ancestors = Ancestors(self, plans.bringing)
        self.written = 0

    def plan(self, name: str, fingerprint: str | None = None) -> Plan:
        """The plan of a table under a description (None: the newest); raises Unplanned without
        one, SchemaConflict where its references cannot be followed.
        """
        self._plans.refuse(name)
        plan = self._plans.newest.get(name)
        if plan is not None and fingerprint not in (None, plan.source.fingerprint):
            plan = self._plans.older.get(fingerprint or "")
        if plan is None:
            raise Unplanned
        return plan

    def children(self, plan: Plan) -> list[tuple[Plan, Link]]:
        """The references to a table, from every table."""
        every = self._plans.newest.values()
        return [(p, link) for p in every for link in p.links if link.parent_name == plan.name]

    def may_lack(self, name: str) -> bool:
        """Whether the source may have rows of this table that the target is not to have."""
        plan = self._plans.newest.get(name)
        return plan is not None and plan.view is not None and plan.view.lacks

    def may_stay_open(self, link: Link) -> bool:
        """Whether the reference may be NULL because its parent is not to be here."""
        may_be_null = link.translated and link.nullable and not link.is_chosen
        return may_be_null and self.may_lack(link.parent_name)

    def sql(self, plan: Plan) -> Statements:
        """The plan's statements."""
        if plan.number not in self._statements:
            self._statements[plan.number] = Statements(plan, self.server, self.source)
        return self._statements[plan.number]

    def run(self, statement: Any, **values: Any) -> int:
        """Execute; the number of rows it found."""
        return int(self.connection.execute(statement, values).rowcount)

    def delete(self, plan: Plan) -> int:
        """Delete the rows whose keys are staged, and not held; how many."""
        deleted = self.run(self.sql(plan).delete(), **ALL)
        self.written += deleted
        self.referee.end(plan)
        self.parking.touch(plan.name)
        return deleted

    def ordinals(self, statement: sa.Select[Any]) -> list[int]:
        """The ordinals that a select gives."""
        return [int(ordinal) for ordinal in self.connection.scalars(statement)]

    def seen(self, plan: Plan, rows: Rows, batch: int | None = None) -> Rows:
        """The rows as this target sees them (apply/view.py); raises Refused for one of which that
        cannot be told.
        """
        if plan.view is None:
            return rows
        try:
            return plan.view.seen(rows)
        except Undecided as error:
            raise self._undecided(rows, error, batch) from error

    def admitted(
        self,
        plan: Plan,
        rows: Rows,
        folded: Folded,
        batch: int | None = None,
        *,
        marks: bool = True,
    ) -> Folded:
        """The rows that count and are here: what is not leaves, marked at once where it is to be
        kept so.
        """
        if plan.view is None:
            return folded
        try:
            stay = partial(self.ancestors.stay, plan, keeps=marks)
            folded, left = plan.view.admitted(rows, folded, stay)
        except Undecided as error:
            raise self._undecided(rows, error, batch) from error
        if left and marks:
            ordinals = [rows.ordinals[i] for i in left]
            self.put_keys(plan, [rows.keys[i] for i in left], ordinals, batch)
            self.run(self.sql(plan).mark())
        return folded

    def learn(self, plan: Plan, rows: Rows, *, whole_batch: bool = False) -> None:
        """Take in what the rows say of their table's keys; whole_batch: see Identities.learn."""
        found = list(facts(rows, plan.source.primary_key[0], plan.identity[0]))
        if plan.is_of_any_case:
            found = [fact._replace(identity=fact.identity.lower()) for fact in found]
        self.identities.learn(plan.name, found, whole_batch=whole_batch)

    def seed(self, name: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Take in keys of a table from before the stream began."""
        plan = self._plans.newest.get(name)
        if plan is not None:
            self.placeholders.name(plan, pairs)
        if plan is not None and plan.is_of_any_case:
            pairs = [(key, identity.lower()) for key, identity in pairs]
        self.identities.seed(name, pairs)

    def keys_here(self, plan: Plan, rows: Rows) -> list[bytes]:
        """The keys of those rows that this target is to have."""
        if plan.view is None:
            return rows.keys
        rows = self.seen(plan, rows)
        folded = self.admitted(plan, rows, fold(rows), marks=False)
        return [rows.keys[i] for i in folded.upserts]

    def _undecided(self, rows: Rows, error: Undecided, batch: int | None) -> Refused:
        name, at = rows.table.full_name, rows.ordinals.index(error.at)
        return Refused(
            f"cannot tell whether a row of {name} belongs to this target: {error}",
            self.at(error.at, batch),
            hint=error.hint,
            rows=[Refusal(name, rows.keys[at], error.at, error.reason)],
        )

    def put(self, job: Job, table: sa.Table, at: list[int], lines: Lines) -> None:
        """Stage the rows at these indexes; raises Refused for the first that does not fit."""
        try:
            self.session.put(table, lines)
        except Unstorable as error:
            raise self.unfit(job, error.column, at[min(error.row, len(at) - 1)]) from error

    def put_keys(
        self, plan: Plan, keys: Sequence[bytes], ordinals: Sequence[int], batch: int | None = None
    ) -> None:
        """Stage identities, given as wire keys."""
        self.session.ready(plan.keys)
        parsed = [orjson.loads(key) for key in keys]
        staged = {ORDINAL: plain(list(ordinals)), SET: ["0"] * len(keys)}
        for name in plan.identity:
            values = plan.by_name[name].fields([key[name] for key in parsed])
            staged[plan.staged_name(name)] = values
        try:
            self.session.put(plan.keys, lines(staged))
        except Unstorable as error:
            at = min(error.row, len(keys) - 1)
            row = Refusal(plan.name, keys[at], ordinals[at], "value")
            raise self._unfit(plan, error.column, row, batch) from error
        self.referee.find(plan, plan.keys)

    def at(self, ordinal: int, batch: int | None = None) -> str:
        """A place in the log, for messages; batch: as in Job, by default this transaction's."""
        batch, ordinal = self.parking.place(batch or self.batch.batch, ordinal)
        return f"(batch {batch}, ordinal {ordinal})"

    def unfit(self, job: Job, column: str | None, index: int) -> Refused:
        """The error for a value that the target takes only changed, or not at all."""
        (row,) = job.refusals([index], "value")
        return self._unfit(job.plan, column, row, job.batch)

    def _unfit(self, plan: Plan, column: str | None, row: Refusal, batch: int | None) -> Refused:
        where = f"{plan.name}.{column}" if column else plan.name
        return Refused(
            f"cannot store a value of {where} exactly",
            self.at(row.ordinal, batch),
            hint="the target's type cannot hold it: see the row with `headwater peek`, then widen "
            "the target's column, exclude it, or mend the row in the source",
            rows=[row],
        )
