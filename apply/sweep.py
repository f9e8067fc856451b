"""Rows that the source no longer has, found by a copy of the whole table: deleted at its end.

From the copy's beginning every identity that the log gives of the table, by the copy or by the
stream, is kept. What the target has besides at the copy's end, the source does not have. Invariant:
a target that did not read the copy's beginning deletes nothing at its end.
"""

from collections.abc import Iterable, MutableMapping, Sequence, Set
from typing import Any

import orjson
import sqlalchemy as sa
import structlog

from apply import fields, referee
from apply.checked import LISTED, Results
from apply.exempt import ours
from apply.own import REFEREE, SEEN, SWEEP
from apply.plan import ORDINAL, SET, Plan
from apply.transaction import ALL, Transaction
from schemas.change import Sweep

log = structlog.get_logger()


class Sweeps:
    """The sweeps of one batch. active: by table, the copy whose rows are being kept; as durable as
    the batch.
    """

    def __init__(self, transaction: Transaction, active: MutableMapping[str, str]) -> None:
        self._in, self._source, self._active = transaction, transaction.source, active

    def begin(self, sweeps: Iterable[Sweep]) -> None:
        """Take up what begins with this batch, before its rows; let go of what was given up."""
        for sweep in sweeps:
            if sweep.what == "given up" and self._active.get(sweep.table) == sweep.number:
                self._forget(sweep.table)
            if sweep.what != "begins":
                continue
            plan = self._in.plan(sweep.table)
            if len(plan.identity) != 1:
                log.warning(
                    "sweep_left_out", table=sweep.table, reason="its identity has several columns"
                )
                continue
            self._forget(sweep.table)
            mine = {"source": self._source, "table_name": sweep.table, "number": sweep.number}
            self._in.connection.execute(sa.insert(SWEEP).values(mine))
            self._active[sweep.table] = sweep.number
            if sweep.check:
                self._results.begin(plan.name, sweep.number)

    def note(self, plan: Plan, keys: Sequence[bytes]) -> None:
        """Keep the identities of rows that came, where the table is being copied whole."""
        if plan.name not in self._active:
            return
        (name,) = plan.identity
        staged = {
            "source": fields.plain([self._source] * len(keys)),
            "table_name": fields.plain([plan.name] * len(keys)),
            "identity": fields.text([str(orjson.loads(key)[name]) for key in keys]),
        }
        self._in.session.add(SEEN, fields.lines(staged))

    def end(self, sweeps: Iterable[Sweep]) -> None:
        """Delete what was not seen, children first, after the batch's rows."""
        ends = [
            (self._in.plan(s.table), s)
            for s in sweeps
            if s.what == "ends" and self._active.get(s.table) == s.number
        ]
        for plan, sweep in sorted(ends, key=lambda pair: -pair[0].rank):
            self._delete(plan, sweep)
            self._forget(plan.name)

    @property
    def active(self) -> Set[str]:
        """The tables whose rows are kept."""
        return self._active.keys()

    def _delete(self, plan: Plan, sweep: Sweep) -> None:
        sql, (name,) = self._in.sql(plan), plan.identity
        self._in.session.ready(plan.keys)
        rows = self._unseen(plan, name, sweep)
        names = dict.fromkeys([ORDINAL, SET, name, plan.staged_name(name)])
        staged = self._in.run(sa.insert(plan.keys).from_select(list(names), rows))
        self._in.session.filled(plan.keys, staged)
        if sweep.check:
            listed = sa.select(plan.keys.c[plan.staged_name(name)]).limit(LISTED)
            some = self._in.connection.scalars(listed)
            self._results.end(plan.name, staged, map(str, some))
            return
        # Rows of a tree, and of tables whose own sweep comes after this: as far as they may go.
        while staged:
            if plan.references:
                self._in.run(sql.hold_referenced())
            deleted = self._in.run(sql.delete(), **ALL)
            self._in.referee.end(plan)
            self._in.written += deleted
            if not deleted or not plan.references:
                break
            self._in.run(sql.release(plan.keys))
        self._in.placeholders.lose(plan)
        held = len(self._in.ordinals(sql.held(plan.keys)))
        if held:
            log.warning(
                "sweep_left_rows",
                table=plan.name,
                rows=held,
                reason="rows of other tables reference them",
            )

    @property
    def _results(self) -> Results:
        return Results(self._in.connection, self._source, self._in.batch.position)

    def _unseen(self, plan: Plan, name: str, sweep: Sweep) -> sa.Select[Any]:
        server, column = self._in.server, plan.target.c[name]
        staged: list[Any] = [column]
        source: Any = plan.target
        if plan.is_refereed:
            # As the log has it; deleted are the target's own.
            pairs = REFEREE.alias()
            mine = referee.live(pairs, plan.source_name, plan.name)
            source = source.join(pairs, sa.and_(column == pairs.c.local_key, *mine))
            column = pairs.c.source_key
            staged.append(column)
        identity = server.from_text(SEEN.c.identity, column, plan.identity_kind)
        if isinstance(column.type, sa.Integer):
            # MySQL compares a number with text as doubles.
            identity = sa.cast(SEEN.c.identity, sa.Numeric(20, 0))
        seen = sa.exists().where(
            SEEN.c.source == self._source,
            SEEN.c.table_name == plan.name,
            server.exactly(column, identity),
        )
        rows = sa.select(sa.literal(0, sa.BigInteger), sa.literal(0, sa.SmallInteger), *staged)
        rows = rows.select_from(source).where(ours(server, plan), ~seen)
        if sweep.after is not None:
            rows = rows.where(column > sweep.after)
        return rows if sweep.until is None else rows.where(column <= sweep.until)

    def _forget(self, table: str) -> None:
        self._active.pop(table, None)
        for own in (SEEN, SWEEP):
            mine = (own.c.source == self._source) & (own.c.table_name == table)
            self._in.connection.execute(sa.delete(own).where(mine))
