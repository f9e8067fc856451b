"""Which identity a source's key meant at each moment: learned from the rows of referenced tables,
and from seeds.

Not here: how facts become intervals (apply/intervals.py). Local keys are not kept: they are read
when they are written.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from apply import fields, referee
from apply.intervals import BEFORE_ALL, Fact, Interval, intervals
from apply.known import Known
from apply.own import IDENTITY, WAITING, name_type
from apply.plan import Link, Plan
from apply.session import Session
from schemas.errors import Poison

FACTS = sa.Table(
    "headwater_facts",
    sa.MetaData(),
    sa.Column("source_key", name_type()),
    sa.Column("identity", name_type()),
    sa.Column("at", sa.BigInteger),
    prefixes=["TEMPORARY"],
)
"""Staging of keys and identities."""


class Identities:
    """The identity table of one target and source, within a batch's transaction."""

    def __init__(self, session: Session, source: str, batch: int) -> None:
        self._session, self._connection = session, session.connection
        self._server, self._source, self._batch = session.server, source, batch
        self._touched: dict[str, set[str]] = {}
        # In a batch with seeds what a key meant may become known later than its rows.
        self._memory: Known | None = session.known

    def distrust(self) -> None:
        """Look up every key of this batch, and forget those of the tables it tells of."""
        self._memory = None

    def memory(self, batch: int) -> Known | None:
        """What is remembered of keys, for rows of that batch."""
        return self._memory if batch == self._batch else None

    def settle(self) -> None:
        """A new block begins."""
        if self._memory is not None:
            self._memory.settle()

    def learn(self, table: str, found: Sequence[Fact], *, whole_batch: bool = False) -> None:
        """Take in a block's facts about one table.

        whole_batch: a first fact tells what its key meant since the batch's beginning.
        """
        if not whole_batch:
            found = self._news(table, found)
        if not found:
            return
        touched = self._touched.setdefault(table, set()) if whole_batch else set()
        begin = BEFORE_ALL if whole_batch else found[0].ordinal
        keys = {k for f in found for k in (f.now, f.before) if k is not None}
        active = self._active(table, keys, {f.identity for f in found})
        ends, new = intervals(found, active, begin, touched)
        self._end(table, ends)
        self._add(table, new)
        self._remember(table, [k for k, _ in ends], new, active)

    def _news(self, table: str, found: Sequence[Fact]) -> Sequence[Fact]:
        """Without the updates of rows that keep their key, where it is remembered as theirs; unless
        another fact here is about that key or row.
        """
        memory, number = self._memory, self._session.number(table)
        kept = [f for f in found if f.now is not None and f.now == f.before]
        if memory is None or not kept:
            return found
        meant = memory.find(number, [f.now for f in kept], [f.ordinal for f in kept])
        memory.missed()
        known = {f for f, identity in zip(kept, meant, strict=True) if f.identity == identity}
        news = [f for f in found if f not in known]
        told = {k for f in news for k in (f.now, f.before)}, {f.identity for f in news}
        return [f for f in found if f not in known or f.now in told[0] or f.identity in told[1]]

    def _remember(
        self,
        table: str,
        ended: list[str],
        new: Sequence[Interval],
        active: Sequence[tuple[str, str]] = (),
    ) -> None:
        known, number = self._session.known, self._session.number(table)
        changed = {*ended, *(n.source_key for n in new)}
        known.drop(number, list(changed))
        if self._memory is None:
            return
        same = [pair for pair in active if pair[0] not in changed]
        known.put(number, [key for key, _ in same], [identity for _, identity in same])
        live = [n for n in new if n.end is None]
        if live:
            keys, identities = [n.source_key for n in live], [n.identity for n in live]
            known.fresh(number, keys, identities, [n.start for n in live])

    def recall(self) -> bool:
        """Look up the keys that were missed; whether any of them means something now."""
        found = False
        for number, keys in (self._memory.missed() if self._memory is not None else {}).items():
            found = self._recall(number, sorted(keys)) or found
        return found

    def _recall(self, number: int, keys: list[str]) -> bool:
        assert self._memory is not None
        i, nothing = IDENTITY.c, [None] * len(keys)
        self._stage(keys, nothing, nothing)
        rows = self._connection.execute(
            sa.select(i.source_key, i.identity, i.from_batch, i.from_ordinal)
            .select_from(FACTS.join(IDENTITY, i.source_key == FACTS.c.source_key))
            .where(
                i.source == self._source,
                i.table_name == self._session.name(number),
                i.to_batch.is_(None),
            )
        ).all()
        now = [row for row in rows if row.from_batch == self._batch]
        before = [row for row in rows if row.from_batch != self._batch]
        self._memory.put(number, [r.source_key for r in before], [r.identity for r in before])
        self._memory.fresh(
            number,
            [r.source_key for r in now],
            [r.identity for r in now],
            [r.from_ordinal for r in now],
        )
        return bool(rows)

    def seed(self, table: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Take in keys from before the stream began, unless a row already said more."""
        touched = self._touched.setdefault(table, set())
        pairs = [p for p in dict(pairs).items() if p[0] not in touched]
        known = self._active(table, {k for k, _ in pairs}, {i for _, i in pairs})
        keys, identities = {k for k, _ in known}, {i for _, i in known}
        new = [
            Interval(k, i, BEFORE_ALL, None)
            for k, i in pairs
            if k not in keys and i not in identities
        ]
        self._add(table, new)
        self._remember(table, [], new)

    def truncate(self, table: str, ordinal: int) -> None:
        """All keys of the table end here."""
        self._session.known.forget(self._session.number(table))
        i = IDENTITY.c
        self._connection.execute(
            sa.update(IDENTITY)
            .values(to_batch=self._batch, to_ordinal=ordinal)
            .where(i.source == self._source, i.table_name == table, i.to_batch.is_(None))
        )

    def heirs(self, table: str, identities: Sequence[str]) -> list[tuple[str, str, bool]]:
        """(old, new, is next) where an ended identity's key now means another: its children follow
        the key. is next: the key was never without a meaning in between, as where an identity was
        updated, once or again and again.
        """
        old, new, later, ended = (IDENTITY.alias() for _ in range(4))

        def is_of_one_key(other: Any) -> list[sa.ColumnElement[bool]]:
            names = ("source", "table_name", "source_key")
            return [other.c[name] == old.c[name] for name in names]

        follows = sa.exists().where(
            *is_of_one_key(ended),
            ended.c.to_batch == self._batch,
            ended.c.to_ordinal + 1 == later.c.from_ordinal,
        )
        gap = sa.exists().where(
            *is_of_one_key(later),
            later.c.from_batch == self._batch,
            later.c.from_ordinal > old.c.to_ordinal,
            ~follows.correlate(old, later),
        )
        found = self._connection.execute(
            sa.select(old.c.identity, new.c.identity, ~gap.correlate(old)).where(
                old.c.source == self._source,
                old.c.table_name == table,
                old.c.identity.in_(identities),
                old.c.to_batch == self._batch,
                *is_of_one_key(new),
                new.c.to_batch.is_(None),
            )
        )
        return [(a, b, bool(is_next)) for a, b, is_next in found]

    def keys_of(
        self, table: str, identities: Sequence[str]
    ) -> list[tuple[str, str, tuple[int, int], tuple[int, int] | None]]:
        """Every key that these identities had: the identity, the key, from and until which batch
        and ordinal.
        """
        i, nothing = IDENTITY.c, [None] * len(identities)
        self._stage(nothing, list(identities), nothing)
        found = self._connection.execute(
            sa.select(
                i.identity, i.source_key, i.from_batch, i.from_ordinal, i.to_batch, i.to_ordinal
            )
            .select_from(FACTS.join(IDENTITY, i.identity == FACTS.c.identity))
            .where(i.source == self._source, i.table_name == table)
        )
        return [
            (
                r.identity,
                r.source_key,
                (r.from_batch, r.from_ordinal),
                None if r.to_batch is None else (r.to_batch, r.to_ordinal),
            )
            for r in found
        ]

    def _active(self, table: str, keys: set[str], identities: set[str]) -> list[tuple[str, str]]:
        pairs = list(zip_longest(sorted(keys), sorted(identities)))
        self._stage([p[0] for p in pairs], [p[1] for p in pairs], [None] * len(pairs))
        i = IDENTITY.c
        mine = (i.source == self._source) & (i.table_name == table) & i.to_batch.is_(None)
        found: set[tuple[str, str]] = set()
        for same in (i.source_key == FACTS.c.source_key, i.identity == FACTS.c.identity):
            rows = self._connection.execute(
                sa.select(i.source_key, i.identity)
                .select_from(FACTS.join(IDENTITY, same))
                .where(mine)
            )
            found.update((k, v) for k, v in rows)
            if identities <= {v for _, v in found}:
                break
        return sorted(found)

    def _end(self, table: str, ends: Sequence[tuple[str, int]]) -> None:
        if not ends:
            return
        self._stage([k for k, _ in ends], [None] * len(ends), [at for _, at in ends])
        i = IDENTITY.c
        self._connection.execute(
            sa.update(IDENTITY)
            .values({i.to_batch: self._batch, i.to_ordinal: FACTS.c.at})
            .where(
                i.source == self._source,
                i.table_name == table,
                i.source_key == FACTS.c.source_key,
                i.to_batch.is_(None),
            )
        )

    def _add(self, table: str, new: Sequence[Interval]) -> None:
        if not new:
            return
        self._refuse_long(table, [k for n in new for k in (n.source_key, n.identity)])
        ends = [n.end for n in new]
        columns: dict[str, list[Any]] = {
            "source": [self._source] * len(new),
            "table_name": [table] * len(new),
            "source_key": [n.source_key for n in new],
            "from_batch": [self._batch] * len(new),
            "from_ordinal": [n.start for n in new],
            "to_batch": [None if end is None else self._batch for end in ends],
            "to_ordinal": ends,
            "identity": [n.identity for n in new],
        }
        texts = ("source", "table_name", "source_key", "identity")
        staged = {n: (fields.text if n in texts else fields.plain)(v) for n, v in columns.items()}
        self._session.add(IDENTITY, fields.lines(staged))

    def _stage(self, keys: list[Any], identities: list[Any], ats: list[Any]) -> None:
        self._session.ready(FACTS)
        columns = {"source_key": fields.text(keys), "identity": fields.text(identities)}
        self._session.put(FACTS, fields.lines(columns | {"at": fields.plain(ats)}))

    def _refuse_long(self, table: str, values: Iterable[str]) -> None:
        if any(len(v) > 255 for v in values):
            raise Poison(
                f"cannot keep a key of {table} longer than 255 characters (batch {self._batch})",
                hint="identify rows and references by shorter keys",
            )

    # References that wait for a first copy.

    def is_known(self, link: Link, source_key: str) -> bool:
        """Whether the row of that key is in the target now, by a translated reference."""
        if link.parent is None or not link.translated or not link.may_be(source_key):
            return False
        if link.is_refereed:
            return source_key in self.known(link, [source_key])
        i, parent = IDENTITY.c, link.parent
        column = parent.c[link.parent_identity]
        same = self._server.from_text(i.identity, column, link.identity_kind)
        found = sa.select(sa.literal(1)).where(
            i.source == self._source,
            i.table_name == link.parent_name,
            i.source_key == source_key,
            i.to_batch.is_(None),
            column == same,
        )
        return self._connection.scalar(found.limit(1)) is not None

    def known(self, link: Link, source_keys: Sequence[str]) -> set[str]:
        """Those of the keys whose row is in the target now."""
        source_keys = [key for key in source_keys if link.may_be(key)]
        if link.parent is None or not source_keys:
            return set()
        nothing: list[Any] = [None] * len(source_keys)
        self._stage(list(source_keys), nothing, nothing)
        i, parent, key = IDENTITY.c, link.parent, FACTS.c.source_key
        if not link.translated:
            column = parent.c[link.parent_key]
            same = sa.select(key).where(column == self._server.from_text(key, column))
            return set(self._connection.scalars(same))
        if link.is_refereed:
            there = referee.of_parent(self._source, link, parent, key)
            return set(self._connection.scalars(sa.select(key).where(*there)))
        column = parent.c[link.parent_identity]
        found = sa.select(key).where(
            i.source == self._source,
            i.table_name == link.parent_name,
            i.source_key == key,
            i.to_batch.is_(None),
            column == self._server.from_text(i.identity, column, link.identity_kind),
        )
        return set(self._connection.scalars(found))

    def wait(self, plan: Plan, link: Link, identity: str, source_key: str) -> None:
        """Remember a reference that was left NULL."""
        self.forget(plan, [identity], link.column)
        place = {"source": self._source, "table_name": plan.name, "column_name": link.column}
        row = place | {"identity": identity, "source_key": source_key}
        self._connection.execute(sa.insert(WAITING).values(row))

    def forget(self, plan: Plan, identities: Sequence[str], column: str | None = None) -> None:
        """These rows wait no longer: newer versions of them came, or they are gone."""
        w = WAITING.c
        mine = [w.source == self._source, w.table_name == plan.name]
        if column is not None:
            mine.append(w.column_name == column)
        for at in range(0, len(identities), 1000):
            some = w.identity.in_(identities[at : at + 1000])
            self._connection.execute(sa.delete(WAITING).where(*mine, some))
