"""Every statement that moves rows, written once over SQLAlchemy Core; dialects only render them.

All writes go from a staging table to the target, found by identity, and take a range of ordinals so
that a failing row can be found by halving. ON CONFLICT, ON DUPLICATE KEY UPDATE and REPLACE are
never used: they act on any unique key and would change another row. MySQL cannot open a temporary
table twice in one statement (1137): each statement names the staging table once.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import types as t

from apply import referee
from apply.exempt import ours
from apply.own import IDENTITY
from apply.plan import HOLD, NEW, ORDINAL, SET, Link, Plan
from apply.server import Server
from apply.spare import spare_value
from transport.batch import PLACE_BITS

Condition = sa.ColumnElement[bool]
LOW: sa.BindParameter[int] = sa.bindparam("low", type_=sa.BigInteger)
HIGH: sa.BindParameter[int] = sa.bindparam("high", type_=sa.BigInteger)

PLAIN = (t.Integer, t.Boolean, t.Uuid, t.Date)
"""Types whose values PostgreSQL calls equal only where they are the same."""


class Statements:
    """One plan's statements, made at first use."""

    def __init__(self, plan: Plan, server: Server, source: str) -> None:
        self._plan, self._server, self._source = plan, server, source
        self.update = lru_cache(maxsize=None)(self._update)
        self.update_known = lru_cache(maxsize=None)(self._update_known)
        self.insert = lru_cache(maxsize=None)(self._insert)
        self.insert_new = lru_cache(maxsize=None)(self._insert_new)
        self.update_late = lru_cache(maxsize=None)(self._update_late)

    def _match(self, staged: sa.FromClause) -> Condition:
        target = self._plan.target
        return sa.and_(
            *(self._server.exactly(target.c[n], staged.c[n]) for n in self._plan.identity)
        )

    def _ready(self, staged: sa.Table) -> Condition:
        return sa.and_(staged.c[HOLD] == 0, staged.c[ORDINAL].between(LOW, HIGH))

    def _of_set(self, number: int) -> Condition:
        column = self._plan.stage.c[SET]
        return column == number if number else column <= 0

    def _updated(self, number: int) -> list[str]:
        """The columns of one set; identity, own keys and late references stay out."""
        plan = self._plan
        out = {*plan.identity, *(k.column for k in plan.links if k.late)}
        out |= {x.name for x in plan.taken if x.once}
        return [x.name for x in plan.taken if x.name in plan.sets[number] and x.name not in out]

    def _inserted(self) -> list[str]:
        late = {k.column for k in self._plan.links if k.late}
        return [x.name for x in self._plan.taken if x.name not in late]

    def _update(self, number: int) -> sa.Update | None:
        """Set the columns of one set."""
        plan, s, names = self._plan, self._plan.stage, self._updated(number)
        if not names:
            return None
        return (
            _update(plan.target)
            .values({plan.target.c[n]: s.c[n] for n in names})
            .where(self._match(s), self._of_set(number), self._ready(s))
        )

    def _insert(self) -> sa.Insert:
        """Insert the staged rows whose identity the target does not have."""
        plan, s, names = self._plan, self._plan.stage, self._inserted()
        missing = plan.target.c[plan.identity[0]].is_(None)
        rows = (
            sa.select(*(s.c[n] for n in names))
            .select_from(s.outerjoin(plan.target, self._match(s)))
            .where(missing, self._of_set(0), self._ready(s))
            .order_by(s.c[ORDINAL])
        )
        return _insert(plan.target).from_select(names, rows)

    # As the source told: nothing is looked for in the target, and staged rows stay as they are.

    @cached_property
    def resolves(self) -> bool:
        """Whether references are translated while rows are written (or there are none)."""
        links = [k for k in self._plan.links if not k.late]
        return all(self._is_joined(link) for link in links)

    def _is_joined(self, link: Link) -> bool:
        return link.translated and link.named is not None

    def _update_known(self) -> sa.Update | None:
        """Update the whole rows that were not new to the source."""
        plan, names = self._plan, self._updated(0)
        if not names:
            return None
        rows: sa.FromClause = plan.stage
        told: Condition = plan.stage.c[SET] == 0
        if any(not link.late for link in plan.links):
            rows, told = self._told(0, [*plan.identity, *names]).subquery(), sa.true()
        return (
            _update(plan.target)
            .values({plan.target.c[n]: rows.c[n] for n in names})
            .where(self._match(rows), told)
        )

    def _insert_new(self) -> sa.Insert:
        """Insert the rows that were new to the source."""
        names = self._inserted()
        rows = self._told(NEW, names).order_by(self._plan.stage.c[ORDINAL])
        return _insert(self._plan.target).from_select(names, rows)

    def _told(self, number: int, names: Sequence[str]) -> sa.Select[Any]:
        """Staged rows whose references all have a parent, with its key in them."""
        s = self._plan.stage
        columns: dict[str, Any] = {n: s.c[n] for n in names}
        joined: sa.FromClause = s
        known: list[Condition] = []
        for link in self._plan.links:
            if link.late:
                continue
            assert link.parent is not None, "see `resolves`"
            parent = link.parent.alias()
            same = self._server.exactly(parent.c[link.parent_identity], s.c[link.identity])
            joined = joined.outerjoin(parent, same)
            columns[link.column] = parent.c[link.parent_key].label(link.column)
            known.append(s.c[link.source_key].is_(None) | parent.c[link.parent_key].is_not(None))
        return (
            sa.select(*(columns[n] for n in names))
            .select_from(joined)
            .where(s.c[SET] == number, s.c[HOLD] == 0, *known)
        )

    def _is_key(self, i: Any, link: Link) -> Condition:
        return sa.and_(
            i.c.source == self._source,
            i.c.table_name == link.parent_name,
            i.c.source_key == self._plan.stage.c[link.source_key],
        )

    def missing(self) -> sa.Select[Any]:
        """Ordinals of staged partial rows that the target lacks."""
        plan, s = self._plan, self._plan.stage
        return (
            sa.select(s.c[ORDINAL])
            .select_from(s.outerjoin(plan.target, self._match(s)))
            .where(plan.target.c[plan.identity[0]].is_(None), s.c[SET] > 0, s.c[HOLD] == 0)
            .order_by(s.c[ORDINAL])
        )

    def _update_late(self, link: Link, number: int) -> sa.Update:
        """Set a late reference, now that its parents are there; what is not resolved stays as it
        is.
        """
        plan, s = self._plan, self._plan.stage
        known: Condition = sa.true()
        if link.translated:
            known = s.c[link.column].is_not(None) | s.c[link.source_key].is_(None)
        return (
            _update(plan.target)
            .values({plan.target.c[link.column]: s.c[link.column]})
            .where(self._match(s), self._of_set(number), known, self._ready(s))
        )

    # Deletes.

    def hold_referenced(self, going: Mapping[tuple[str, str], Plan] | None = None) -> sa.Update:
        """Hold the deletes of rows that some row still references. going: by child table and
        column, its plan: rows that came from the source go too, and hold nothing.
        """
        plan, k = self._plan, self._plan.keys
        tests: list[Condition] = []
        for reference in plan.references:
            child = reference.child.alias()
            pairs = zip(reference.columns, reference.keys, strict=True)
            same = [child.c[c] == plan.target.c[p] for c, p in pairs]
            of = (going or {}).get((reference.child.fullname, reference.columns[0]))
            if of is not None and of.is_refereed:
                same.append(~referee.ours(of, child))
            elif of is not None:
                same.append(sa.or_(*(child.c[n].is_(None) for n in of.identity)))
            tests.append(sa.exists().where(*same))
        return sa.update(k).values({k.c[HOLD]: 1}).where(self._match(k), sa.or_(*tests))

    def delete(self) -> sa.Delete:
        """Delete the staged identities that are not held."""
        plan, k = self._plan, self._plan.keys
        if not self._server.is_sqlite:
            return sa.delete(plan.target).where(self._match(k), self._ready(k))
        # SQLite has no DELETE … USING. By the identity's index, and then without its collation.
        own = [plan.target.c[n] for n in plan.identity]
        exact = [sa.collate(c, "BINARY") if isinstance(c.type, sa.String) else c for c in own]
        ready = sa.select(*(k.c[n] for n in plan.identity)).where(self._ready(k))
        return sa.delete(plan.target).where(
            sa.tuple_(*own).in_(ready), sa.tuple_(*exact).in_(ready)
        )

    def mark(self) -> sa.Update:
        """Say of the staged identities that their rows are no longer of the target's part."""
        plan = self._plan
        assert plan.view is not None
        taken = plan.by_name[str(plan.view.mark)]
        yes = sa.literal(True if taken.family == "bool" else 1, taken.column.type)
        return _update(plan.target).values({taken.column: yes}).where(self._match(plan.keys))

    def here(self) -> sa.Select[Any]:
        """Ordinals of the staged identities that the target has."""
        k = self._plan.keys
        return sa.select(k.c[ORDINAL]).where(self._match(k))

    def values_of(self, column: str) -> sa.Select[Any]:
        """The ordinals of the staged identities that the target has, each with a column."""
        k = self._plan.keys
        return sa.select(k.c[ORDINAL], self._plan.target.c[column]).where(self._match(k))

    def unlink(self, column: str) -> sa.Update:
        """Let the rows to be deleted reference nothing, so that they do not hold each other."""
        plan, k = self._plan, self._plan.keys
        return _update(plan.target).values({plan.target.c[column]: sa.null()}).where(self._match(k))

    def truncate(self) -> sa.Delete:
        """Delete the rows that came from the source: those with an identity."""
        plan = self._plan
        return sa.delete(plan.target).where(self.ours())

    def ours(self) -> Condition:
        """Whether a row of the target came from a source, and is not left as it is."""
        return ours(self._server, self._plan)

    # References.

    def resolve(self, link: Link, batch: int, *, as_of_end: bool) -> list[sa.Update]:
        """Source keys -> identities -> the parents' local keys of this moment (never remembered
        ones).
        """
        s, i, parent = self._plan.stage, IDENTITY, link.parent
        if parent is None:
            return []
        mine = is_of(self._server, link, s)
        if link.is_kept:
            own = self._server.from_text(s.c[link.source_key], s.c[link.column], link.key_kind)
            kept = sa.update(s).values({s.c[link.column]: own})
            return [kept.where(s.c[link.column].is_(None), *mine)]
        if link.is_refereed:
            found = referee.resolve(self._plan, link, batch, as_of_end=as_of_end)
            return [statement.where(*mine) for statement in found]
        then = meant(i, s.c[ORDINAL], batch, as_of_end=as_of_end)
        identity = self._server.from_text(
            i.c.identity, parent.c[link.parent_identity], link.identity_kind
        )
        return [
            sa.update(s)
            .values({s.c[link.identity]: identity, s.c[link.column]: sa.null()})
            .where(
                self._is_key(i, link),
                s.c[link.column].is_(None),
                then,
                *mine,
            ),
            sa.update(s)
            .values({s.c[link.column]: parent.c[link.parent_key]})
            .where(
                self._server.exactly(parent.c[link.parent_identity], s.c[link.identity]),
                s.c[link.column].is_(None),
                *mine,
            ),
        ]

    def hold_unresolved(self, link: Link) -> sa.Update:
        """Hold the rows whose reference has no parent yet."""
        s = self._plan.stage
        if link.translated:
            lacks = s.c[link.source_key].is_not(None) & s.c[link.column].is_(None)
        else:
            assert link.parent is not None
            parent = link.parent.alias()
            there = sa.exists().where(parent.c[link.parent_key] == s.c[link.column])
            lacks = s.c[link.column].is_not(None) & ~there
        return sa.update(s).values({s.c[HOLD]: 1}).where(lacks)

    def unresolved(self, link: Link) -> sa.Select[Any]:
        """Ordinals whose late reference has no parent yet."""
        s = self._plan.stage
        lacks = s.c[link.source_key].is_not(None) & s.c[link.column].is_(None)
        return sa.select(s.c[ORDINAL]).where(lacks, s.c[HOLD] == 0).order_by(s.c[ORDINAL])

    def held(self, staged: sa.Table) -> sa.Select[Any]:
        """Ordinals of held rows."""
        return sa.select(staged.c[ORDINAL]).where(staged.c[HOLD] == 1).order_by(staged.c[ORDINAL])

    def release(self, staged: sa.Table) -> sa.Update:
        """Hold nothing."""
        return sa.update(staged).values({staged.c[HOLD]: 0}).where(staged.c[HOLD] == 1)

    # Secondary unique keys.

    def vacate(self, *, with_deletes: bool) -> list[sa.Update]:
        """Take the rows that will change a unique key, or go later, out of that key's way."""
        plan, s, k = self._plan, self._plan.stage, self._plan.keys
        found = []
        for names in plan.uniques:
            spare = self.spare(names)
            if spare is None:
                continue
            column, make = spare
            changed = sa.or_(*(plan.target.c[n].is_distinct_from(s.c[n]) for n in names))
            sets = [i for i, present in enumerate(plan.sets) if present.issuperset(names)]
            sets += [NEW] if 0 in sets else []
            found.append(
                _update(plan.target)
                .values({column: make(counted(s.c[ORDINAL]))})
                .where(self._match(s), s.c[SET].in_(sets), self._ready(s), changed)
            )
            if with_deletes:
                found.append(
                    _update(plan.target)
                    .values({column: make(counted(k.c[ORDINAL]))})
                    .where(self._match(k), k.c[HOLD] == 1)
                )
        return found

    def spare(self, names: Sequence[str]) -> Any:
        """A column of the unique key, and what to set it to meanwhile; None where nothing fits
        its type.
        """
        columns = [self._plan.target.c[n] for n in names]
        for column in columns:
            if column.nullable:
                return column, lambda ordinal: sa.null()
        for column in columns:
            make = spare_value(column.type, self._server)
            if make is not None:
                return column, make
        return None


def meant(i: Any, ordinal: Any, batch: int, *, as_of_end: bool) -> Condition:
    """Whether a key of headwater_identity meant its identity at a moment in that batch, or means it
    now.
    """
    if as_of_end:
        now: Condition = i.c.to_batch.is_(None)
        return now
    this = sa.literal(batch, sa.BigInteger)
    opened = (i.c.from_batch < this) | ((i.c.from_batch == this) & (i.c.from_ordinal <= ordinal))
    closed = (i.c.to_batch < this) | ((i.c.to_batch == this) & (i.c.to_ordinal <= ordinal))
    return sa.and_(opened, i.c.to_batch.is_(None) | ~closed)


def is_of(server: Server, link: Link, rows: Any) -> list[Condition]:
    """Conditions: the reference is one of these rows', which have the target's columns."""
    if link.by is None:
        return []
    if link.by not in rows.c:
        return [sa.false()]  # an older description of the table, or a column of the target's own
    told = sa.cast(rows.c[link.by], sa.String)
    return [server.exactly(told, sa.literal(link.value, sa.String))]


def differs(server: Server, mine: sa.Column[Any], staged: sa.Column[Any]) -> Any:
    """Whether two values of one type are not the very same: no collation, no -0 = 0, 1.0 = 1.00."""
    one: Any = mine
    other: Any = staged
    if server.is_sqlite:
        if isinstance(mine.type, t.String):
            one, other = sa.collate(mine, "BINARY"), sa.collate(staged, "BINARY")
    elif server.is_mysql:
        kind = t.LargeBinary if isinstance(mine.type, t.String) else t.CHAR
        if isinstance(mine.type, t.String | t.Float):
            one, other = sa.cast(mine, kind), sa.cast(staged, kind)
    elif not isinstance(mine.type, PLAIN):
        one, other = sa.cast(mine, t.Text), sa.cast(staged, t.Text)
    return one.is_distinct_from(other)


def _update(target: sa.Table) -> sa.Update:
    """An update that SQLite fails whatever ON CONFLICT (REPLACE, IGNORE) a key was made with."""
    return sa.update(target).prefix_with("OR ABORT", dialect="sqlite")


def _insert(target: sa.Table) -> sa.Insert:
    """An insert, likewise."""
    return sa.insert(target).prefix_with("OR ABORT", dialect="sqlite")


def counted(ordinal: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The ordinal, or where several batches are one a number that stays within a type's range."""
    each = 1 << PLACE_BITS
    return ordinal % each + ordinal // each * 20_011
