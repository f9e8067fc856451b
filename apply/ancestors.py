"""Rows that are here because rows of this target reference them, whatever the condition of their
own table says: the ancestors of rows of tables with `ancestors = true` (apply/exceptions.py).

One that is not here is wanted: noted in headwater_ancestor in the transaction that found it
missing, and asked of the capture afterwards (ops/ancestors.py), which copies it for this target
alone. Until then the row that needs it is parked, or its reference is NULL, as any is whose parent
is not here. Invariant: what is noted is here, or something here still waits for it, but for what a
batch of inserts alone cannot have ended.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from apply import fields
from apply.identity import FACTS
from apply.own import ANCESTOR, IDENTITY, WAITING
from apply.plan import ORDINAL, SET, Bringing, Link, Plan
from apply.sql import is_of

if TYPE_CHECKING:
    from apply.transaction import Transaction


class Ancestors:
    """One batch's. wants: whether some were found missing."""

    def __init__(self, transaction: "Transaction", bringing: Bringing) -> None:
        self._in, self._bringing = transaction, bringing
        self._is_lossy = False
        self.wants = False

    def note(self, ops: Collection[str]) -> None:
        """Rows came with these operations, or rows went otherwise."""
        if self._bringing:
            self._is_lossy = self._is_lossy or set(ops) != {"c"}

    def stay(
        self, plan: Plan, keys: Sequence[bytes], stays: list[bool], *, keeps: bool
    ) -> list[bool]:
        """Which of a table's rows are here, given which meet its condition. keeps: note of what
        others need that it is here.
        """
        links = self._bringing.get(plan.name)
        if not links:
            return stays
        noted = self._noted(plan, keys)
        out = [key for key, is_in in zip(keys, stays, strict=True) if not is_in]
        known = {key for key in out if key in noted}
        new = self._referenced(plan, [key for key in out if key not in known], links)
        if keeps:
            self._arrived(plan, known)
            self._add(plan, [_identity(plan, key) for key in sorted(new)], is_here=True)
            self._forget(plan, [k for k, is_in in zip(keys, stays, strict=True) if is_in], noted)
        return [is_in or key in known or key in new for key, is_in in zip(keys, stays, strict=True)]

    def settle(self) -> None:
        """At a batch's end: note what is missing, and let go of what nothing needs any more."""
        if not self._bringing:
            return
        if self._is_lossy:
            # Of tables that no reference brings any more.
            others = ANCESTOR.c.table_name.not_in(list(self._bringing))
            mine = ANCESTOR.c.source == self._in.source
            self._in.run(sa.delete(ANCESTOR).where(mine, others))
        plans = sorted(map(self._in.plan, self._bringing), key=lambda plan: -plan.rank)
        for plan in plans:
            parked = self._parked_for(plan)
            self._want(plan, parked)
            while self._is_lossy and self._let_go(plan, parked):
                pass  # a tree's rows let go of each other

    # What is noted.

    def _mine(self, plan: Plan) -> list[sa.ColumnElement[bool]]:
        a = ANCESTOR.c
        return [a.source == self._in.source, a.table_name == plan.name]

    def _noted(self, plan: Plan, keys: Sequence[bytes]) -> set[bytes]:
        by_identity = {_identity(plan, key): key for key in keys}
        self._stage(list(by_identity))
        same = ANCESTOR.c.identity == FACTS.c.identity
        found = self._in.connection.scalars(
            sa.select(ANCESTOR.c.identity).where(*self._mine(plan), same)
        )
        return {by_identity[identity] for identity in found}

    def _stage(self, identities: Sequence[str], source_keys: Sequence[str] = ()) -> None:
        count = max(len(identities), len(source_keys))
        nothing: list[Any] = [None] * count
        staged = {
            "source_key": fields.text(list(source_keys) or nothing),
            "identity": fields.text(list(identities) or nothing),
            "at": fields.plain(nothing),
        }
        self._in.session.ready(FACTS)
        self._in.session.put(FACTS, fields.lines(staged))

    def _arrived(self, plan: Plan, keys: Collection[bytes]) -> None:
        if keys:
            self._stage([_identity(plan, key) for key in keys])
            here = sa.select(FACTS.c.identity)
            came = sa.update(ANCESTOR).where(*self._mine(plan), ANCESTOR.c.identity.in_(here))
            self._in.run(came.values(is_here=1))

    def _forget(self, plan: Plan, keys: Sequence[bytes], noted: set[bytes]) -> None:
        """Rows that meet the condition are here by right."""
        gone = [_identity(plan, key) for key in keys if key in noted]
        if gone:
            self._stage(gone)
            by_right = ANCESTOR.c.identity.in_(sa.select(FACTS.c.identity))
            self._in.run(sa.delete(ANCESTOR).where(*self._mine(plan), by_right))

    def _add(self, plan: Plan, identities: Sequence[str], *, is_here: bool) -> None:
        if identities:
            columns = {
                "source": fields.text([self._in.source] * len(identities)),
                "table_name": fields.text([plan.name] * len(identities)),
                "identity": fields.text(list(identities)),
                "is_here": fields.plain([int(is_here)] * len(identities)),
            }
            self._in.session.add(ANCESTOR, fields.lines(columns))

    def _referenced(
        self, plan: Plan, keys: Sequence[bytes], links: Sequence[tuple[Plan, Link]]
    ) -> set[bytes]:
        """Those of these rows that a row here references."""
        if not keys:
            return set()
        self._in.put_keys(plan, keys, range(len(keys)))
        k, exactly = plan.keys, self._in.server.exactly
        same = [exactly(plan.target.c[n], k.c[n]) for n in plan.identity]
        found: set[int] = set()
        for child, link in links:
            needs = sa.exists().where(*self._refers(plan, child, link))
            found.update(self._in.ordinals(sa.select(k.c[ORDINAL]).where(*same, needs)))
        return {keys[at] for at in found}

    # The batch's end.

    def _parked_for(self, plan: Plan) -> list[str]:
        """The identities of this table's rows for which parked ones wait."""
        children = {child.name for child, _ in self._bringing[plan.name]}
        keys = sorted(self._in.parking.awaited(plan.name, children))
        if not keys:
            return []
        self._stage([], keys)
        i = IDENTITY.c
        found = sa.select(i.identity).where(
            i.source == self._in.source,
            i.table_name == plan.name,
            i.source_key == FACTS.c.source_key,
            i.to_batch.is_(None),
        )
        return list(self._in.connection.scalars(found))

    def _waited_for(self, plan: Plan, child: Plan, link: Link) -> list[sa.ColumnElement[bool]]:
        """Conditions: an identity is that of a row for which an open reference waits."""
        w, i = WAITING.c, IDENTITY.c
        return [
            w.source == self._in.source,
            w.table_name == child.name,
            w.column_name == link.column,
            i.source == w.source,
            i.table_name == plan.name,
            i.source_key == w.source_key,
            i.to_batch.is_(None),
        ]

    def _want(self, plan: Plan, parked: Sequence[str]) -> None:
        if plan.name in self._in.batch.pending:
            return  # a copy of the whole table is still to bring some of them
        a, i = ANCESTOR.alias(), IDENTITY.c
        known = sa.exists().where(
            a.c.source == self._in.source,
            a.c.table_name == plan.name,
            a.c.identity == i.identity,
        )
        texts = [sa.literal(text, sa.String) for text in (self._in.source, plan.name)]
        for child, link in self._bringing[plan.name]:
            waited = self._waited_for(plan, child, link)
            rows = sa.select(*texts, i.identity, sa.literal(0)).where(*waited, ~known).distinct()
            names = ["source", "table_name", "identity", "is_here"]
            added = self._in.run(sa.insert(ANCESTOR).from_select(names, rows))
            self._in.session.added(ANCESTOR, added)
            self.wants = self.wants or added > 0
        if parked:
            some = ANCESTOR.c.identity.in_(parked)
            had = set(
                self._in.connection.scalars(
                    sa.select(ANCESTOR.c.identity).where(*self._mine(plan), some)
                )
            )
            new = sorted({*parked} - had)
            self._add(plan, new, is_here=False)
            self.wants = self.wants or bool(new)

    def _let_go(self, plan: Plan, parked: Sequence[str]) -> int:
        """End what no row here needs any more; how many rows are here no more for it."""
        a, sql, (name,) = ANCESTOR.c, self._in.sql(plan), plan.identity
        column, view = plan.target.c[name], plan.view
        row = self._in.server.from_text(a.identity, column, plan.identity_kind)
        is_row = self._in.server.exactly(column, row)
        # Keys inside documents hold nobody back.
        children = [of for of in self._in.children(plan) if of[1].steps is None]
        used = [sa.exists().where(*self._refers(plan, *of)) for of in children]
        zeros = [sa.literal(0, sa.BigInteger), sa.literal(0, sa.SmallInteger)]
        rows = sa.select(*zeros, column).where(
            *self._mine(plan), a.is_here == 1, is_row, *(~test for test in used)
        )
        self._in.session.ready(plan.keys)
        staged = self._in.run(sa.insert(plan.keys).from_select([ORDINAL, SET, name], rows))
        self._in.session.filled(plan.keys, staged)
        left = 0
        if staged and (view is None or view.on_leave == "delete"):
            # Rows of tables that only the target has keep theirs.
            self._in.run(sql.hold_referenced())
            left = self._in.delete(plan)
        elif staged:
            if view is not None and view.on_leave == "mark":
                self._in.run(sql.mark())
            key = self._in.server.from_text(a.identity, column, plan.identity_kind)
            gone = sa.exists().where(self._in.server.exactly(plan.keys.c[name], key))
            self._in.run(sa.delete(ANCESTOR).where(*self._mine(plan), gone))
        is_gone = ~sa.exists().where(is_row)
        self._in.run(sa.delete(ANCESTOR).where(*self._mine(plan), a.is_here == 1, is_gone))
        waited = [
            sa.exists().where(*self._waited_for(plan, *of), IDENTITY.c.identity == a.identity)
            for of in self._bringing[plan.name]
        ]
        unwanted = [~test for test in waited]
        if parked:
            unwanted.append(a.identity.not_in(parked))
        self._in.run(sa.delete(ANCESTOR).where(*self._mine(plan), a.is_here == 0, *unwanted))
        return left

    def _refers(self, plan: Plan, child: Plan, link: Link) -> list[sa.ColumnElement[bool]]:
        """Conditions: another row than the table's own references it."""
        rows = child.target.alias("hw_child")
        tests = [rows.c[link.column] == plan.target.c[link.parent_key]]
        tests += is_of(self._in.server, link, rows)
        if child.target is plan.target:
            tests.append(rows.c[link.parent_key] != plan.target.c[link.parent_key])
        return tests


def _identity(plan: Plan, key: bytes) -> str:
    return str(orjson.loads(key)[plan.identity[0]])


def wanted(connection: sa.Connection, source: str) -> dict[str, list[str]]:
    """By table: the identities of rows that are not here, and not asked for yet."""
    a, found = ANCESTOR.c, dict[str, list[str]]()
    mine = (a.source == source) & (a.is_here == 0) & a.asked.is_(None)
    for row in connection.execute(sa.select(a.table_name, a.identity).where(mine)):
        found.setdefault(row.table_name, []).append(row.identity)
    return found


def awaited(connection: sa.Connection, source: str) -> int:
    """How many are not here yet; 0 in a target that only an older version has prepared."""
    if not sa.inspect(connection).has_table(ANCESTOR.name):
        return 0
    a = ANCESTOR.c
    mine = (a.source == source) & (a.is_here == 0)
    return int(connection.scalar(sa.select(sa.func.count()).where(mine)) or 0)


def noted(connection: sa.Connection, source: str) -> dict[str, list[str]]:
    """By table: the identities of rows that are to be here for others."""
    found = dict[str, list[str]]()
    if sa.inspect(connection).has_table(ANCESTOR.name):
        a = ANCESTOR.c
        every = sa.select(a.table_name, a.identity).where(a.source == source)
        for row in connection.execute(every):
            found.setdefault(row.table_name, []).append(row.identity)
    return found


def was_asked(
    connection: sa.Connection, source: str, table: str, identities: Sequence[str], number: int
) -> None:
    """Note the request that asks for these."""
    a = ANCESTOR.c
    for at in range(0, len(identities), 1000):
        some = a.identity.in_(identities[at : at + 1000])
        mine = (a.source == source) & (a.table_name == table) & some
        connection.execute(sa.update(ANCESTOR).where(mine).values(asked=number))


def ask_again(
    connection: sa.Connection, source: str, upto: int | None = None, copying: Collection[int] = ()
) -> int:
    """Let what did not come be asked for once more: what was asked for by a request up to `upto`
    (None: any) that is not among those which are being copied; how many.
    """
    if not sa.inspect(connection).has_table(ANCESTOR.name):
        return 0
    a = ANCESTOR.c
    lost = [a.source == source, a.is_here == 0, a.asked.is_not(None)]
    if upto is not None:
        lost += [a.asked <= upto, a.asked.not_in(list(copying))]
    again = sa.update(ANCESTOR).where(*lost).values(asked=None)
    return int(connection.execute(again).rowcount)
