"""Placeholders (apply/placeholders.py) as a batch meets them: what it brings, what becomes of them.

Not here: making and removing them (apply/placeholding.py). A placeholder has its parent's identity
where the target knows it; else one of its own, until a row comes under the same key of the source:
then the placeholder is given that row's identity before anything else is written, so that the row
is updated in place and keeps its local key. Tables without placeholders cost nothing.
"""

from collections.abc import Iterable, Sequence

import orjson
import sqlalchemy as sa

from apply import fields, key_meanings, referee
from apply.fold import Folded
from apply.identity import FACTS
from apply.intervals import facts
from apply.own import PLACEHOLDER
from apply.placeholders import P, Placeholder
from apply.plan import Plan
from apply.repoint import is_named, repoint, stage_pairs
from apply.session import Session
from schemas.change import Rows
from schemas.codec import after_of


class Placeholders:
    """Those of one target and source, within a batch's transaction."""

    def __init__(self, session: Session, source: str, *, are_made: bool) -> None:
        """are_made: whether the configuration asks for any."""
        self._session, self._connection, self._source = session, session.connection, source
        self.are_made = are_made
        self._came: dict[str, set[str]] = {}
        self._nameless = self._tables()

    def _tables(self) -> dict[str, bool]:
        """The tables that have placeholders: whether some of them have identities of their own."""
        if not self._session.uses(PLACEHOLDER, is_needed=self.are_made):
            return {}
        named = sa.func.min(P.is_named)
        found = sa.select(P.table_name, named).where(P.source == self._source)
        rows = self._connection.execute(found.group_by(P.table_name)).all()
        self._session.told(PLACEHOLDER, holds=bool(rows) or self.are_made)
        return {name: not is_named for name, is_named in rows}

    # What a batch brings.

    def meet(self, plan: Plan, rows: Rows) -> None:
        """Give placeholders the identities of the rows that came under their keys; before what the
        rows say of their keys is taken in.
        """
        if self._nameless.get(plan.name):
            found = facts(rows, plan.source.primary_key[0], plan.identity[0])
            pairs = ((f.before if f.before is not None else f.now, f.identity) for f in found)
            self.name(plan, ((key, name) for key, name in pairs if key is not None))

    def name(self, plan: Plan, pairs: Iterable[tuple[str, str]]) -> None:
        """The same of (source key, identity)."""
        if not self._nameless.get(plan.name):
            return
        by_key: dict[str, str] = {}
        for key, identity in pairs:
            by_key.setdefault(key, identity.lower() if plan.is_of_any_case else identity)
        # An identity's first key: later ones it was given by rows of this batch.
        by_identity = {identity: key for key, identity in reversed(by_key.items())}
        stage_pairs(self._session, [(key, identity) for identity, key in by_identity.items()])
        same = P.source_key == FACTS.c.source_key
        mine = [*self._of(plan.name), P.is_named == 0]
        found = sa.select(P.identity, FACTS.c.identity, P.source_key).where(same, *mine)
        rows = [tuple(row) for row in self._connection.execute(found)]
        if rows:
            self._rename(plan, [(old, new) for old, new, _ in rows])
            key_meanings.rename(self._session, self._source, plan.name, [row[:2] for row in rows])

    def _rename(self, plan: Plan, pairs: Sequence[tuple[str, str]]) -> None:
        """Let the placeholders be the rows of these identities: (its own, the parent's)."""
        target, name, kind = plan.target, plan.identity[0], plan.identity_kind
        server, staged = self._session.server, FACTS.c
        stage_pairs(self._session, pairs)
        here = self._is_named(plan, staged.identity)
        rows = sa.select(staged.source_key, staged.identity).where(here)
        there = {(old, new) for old, new in self._connection.execute(rows)}
        if there:
            # The target has the parent, and could not know: two rows are one.
            stage_pairs(self._session, sorted(there))
            repoint(self._session, plan)
            self._connection.execute(
                sa.delete(target).where(target.c[name].in_(self._values(plan, staged.source_key)))
            )
            self.end(plan.name, [old for old, _ in there])
        if left := [pair for pair in pairs if pair not in there]:
            stage_pairs(self._session, left)
            self._connection.execute(
                sa.update(target)
                .values({target.c[name]: server.from_text(staged.identity, target.c[name], kind)})
                .where(self._is_named(plan, staged.source_key))
            )
            self._connection.execute(
                sa.update(PLACEHOLDER)
                .values({P.identity: staged.identity, P.is_named: 1})
                .where(*self._of(plan.name), P.identity == staged.source_key)
            )

    def _is_named(self, plan: Plan, identity: sa.Column[str]) -> sa.ColumnElement[bool]:
        column = plan.target.c[plan.identity[0]]
        return is_named(self._session.server, column, identity, plan.identity_kind)

    def _values(self, plan: Plan, text: sa.Column[str]) -> sa.Select[tuple[object]]:
        column = plan.target.c[plan.identity[0]]
        return sa.select(self._session.server.from_text(text, column, plan.identity_kind))

    def note(self, plan: Plan, rows: Rows, folded: Folded) -> set[bytes]:
        """The keys of those rows that are placeholders here. What is whole, or a delete, makes an
        end of them in `finish`.
        """
        if plan.name not in self._nameless:
            return set()
        by_text = {str(orjson.loads(key)[plan.identity[0]]): key for key in rows.keys}
        stage_pairs(self._session, [(text, text) for text in by_text])
        found = sa.select(P.identity).where(*self._of(plan.name), P.identity == FACTS.c.identity)
        here = {by_text[text]: text for text in self._connection.scalars(found)}
        if here:
            ends = [i for i in [*folded.upserts, *folded.deletes] if rows.keys[i] in here]
            whole = (i for i in ends if not rows.partial or _is_whole(plan, rows, folded, i))
            self._came.setdefault(plan.name, set()).update(here[rows.keys[i]] for i in whole)
        return set(here)

    def add(self, rows: Sequence[Placeholder]) -> None:
        """Keep these, unless they are kept."""
        names = sorted({row.table_name for row in rows})
        for name in names:
            mine = [row for row in rows if row.table_name == name]
            stage_pairs(self._session, [(row.identity, row.identity) for row in mine])
            same = P.identity == FACTS.c.identity
            found = sa.select(P.identity).where(*self._of(name), same)
            kept = set(self._connection.scalars(found))
            new = [row._asdict() for row in mine if row.identity not in kept]
            if new:
                columns = {c: [row[c] for row in new] for c in Placeholder._fields}
                numbers = ("is_named", "batch", "made_at")
                staged = {
                    c: (fields.plain if c in numbers else fields.text)(v)
                    for c, v in columns.items()
                }
                staged["source"] = fields.text([self._source] * len(new))
                self._session.add(PLACEHOLDER, fields.lines(staged))
            self._nameless[name] = True

    def finish(self) -> None:
        """The batch's rows are written."""
        for name, identities in self._came.items():
            self.end(name, sorted(identities))

    def stand(self, plan: Plan) -> sa.ColumnElement[bool]:
        """Whether a row of the table is a placeholder."""
        if plan.name not in self._nameless:
            return sa.false()
        return sa.exists().where(*self._of(plan.name), *self._rows(plan)).correlate(plan.target)

    def lose(self, plan: Plan) -> None:
        """Rows of the table were deleted, whichever: those that were placeholders are none."""
        if plan.name in self._nameless:
            gone = ~sa.exists().where(*self._rows(plan)).correlate(PLACEHOLDER)
            self._connection.execute(sa.delete(PLACEHOLDER).where(*self._of(plan.name), gone))

    def _rows(self, plan: Plan) -> list[sa.ColumnElement[bool]]:
        if plan.is_refereed:
            return referee.of_row(plan, P.identity)
        return [self._is_named(plan, P.identity)]

    def forget(self, table: str) -> None:
        """Nothing of this table is a placeholder any more."""
        if self._nameless.pop(table, None) is not None:
            self._came.pop(table, None)
            self._connection.execute(sa.delete(PLACEHOLDER).where(*self._of(table)))

    def end(self, table: str, identities: Sequence[str]) -> None:
        """These are none any more."""
        stage_pairs(self._session, [(text, text) for text in identities])
        mine = [*self._of(table), P.identity.in_(sa.select(FACTS.c.identity))]
        self._connection.execute(sa.delete(PLACEHOLDER).where(*mine))

    def _of(self, table: str) -> list[sa.ColumnElement[bool]]:
        return [P.source == self._source, P.table_name == table]


def _is_whole(plan: Plan, rows: Rows, folded: Folded, i: int) -> bool:
    if rows.ops[i] == "d":
        return True
    return plan.by_name.keys() <= (folded.merged.get(i) or after_of(rows.values[i])).keys()
