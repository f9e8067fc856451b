"""Rows found through headwater_referee, where neither database may be altered: the source's key of
a row and the target's own key of it are a pair.

A pair is live from the moment at which its key is drawn, before its row is written; it ends with
the row and is kept, so that a key that is used again means what it meant at each moment. Not here:
drawing keys (apply/drawing.py), naming a batch's rows (apply/naming.py), people's corrections
(apply/pairs.py). Everything is done for a whole staging table at once, in the batch's transaction.
"""

from typing import Any

import orjson
import sqlalchemy as sa

from apply.own import REFEREE, UNTOLD
from apply.plan import HOLD, ORDINAL, SOURCE_KEY, Link, Plan
from apply.session import Session
from apply.shared import Shared

Condition = sa.ColumnElement[bool]


class Referee:
    """The pairs of one target and source, within a batch's transaction; tables without a referee
    cost nothing. shared: who is to know of them, too; has_news: there is something to tell.
    """

    def __init__(self, session: Session, source: str, batch: int, shared: Shared | None) -> None:
        self._connection, self._source, self._batch = session.connection, source, batch
        self.shared, self.has_news = shared, False

    def note(self, pairs: sa.Select[Any]) -> None:
        """These pairs (their sync_ids) begin or end in this transaction."""
        if self.shared is not None:
            rows = pairs.add_columns(sa.literal(self._source, sa.String))
            noted = sa.insert(UNTOLD).from_select(["sync_id", "source"], rows)
            self.has_news = self._connection.execute(noted).rowcount > 0 or self.has_news

    def find(self, plan: Plan, staged: sa.Table) -> None:
        """Give staged rows the local keys of their source keys; what has no pair stays NULL."""
        if not plan.is_refereed:
            return
        r, own = REFEREE.c, str(plan.own_key)
        self._connection.execute(
            sa.update(staged)
            .values({staged.c[own]: r.local_key})
            .where(*live(REFEREE, plan.source_name, plan.name))
            .where(r.source_key == staged.c[SOURCE_KEY], staged.c[own].is_(None))
        )

    def end(self, plan: Plan) -> None:
        """End the pairs of the staged keys that are not held and whose rows are gone."""
        if not plan.is_refereed:
            return
        r, keys = REFEREE.c, plan.keys
        theirs = [*live(REFEREE, plan.source_name, plan.name)]
        theirs += [r.local_key == keys.c[str(plan.own_key)], keys.c[HOLD] == 0]
        # One that something still references has stayed.
        rows = plan.target.alias("hw_row")
        theirs.append(~sa.exists().where(rows.c[str(plan.own_key)] == r.local_key))
        self.note(sa.select(r.sync_id).where(*theirs))
        self._connection.execute(
            sa.update(REFEREE)
            .values(
                {r.live: sa.null(), r.until_batch: self._batch, r.until_ordinal: keys.c[ORDINAL]}
            )
            .where(*theirs)
        )

    def end_all(self, plan: Plan, ordinal: int) -> None:
        """End every pair of the table."""
        if not plan.is_refereed:
            return
        every = live(REFEREE, plan.source_name, plan.name)
        self.note(sa.select(REFEREE.c.sync_id).where(*every))
        self._connection.execute(
            sa.update(REFEREE)
            .values(live=sa.null(), until_batch=self._batch, until_ordinal=ordinal)
            .where(*every)
        )


def live(pairs: Any, source: str, table: str) -> list[Condition]:
    """A table's pairs that have not ended; pairs: headwater_referee, or an alias of it."""
    c = pairs.c
    return [c.source == source, c.table_name == table, c.live == 1]


def ours(plan: Plan, rows: Any = None) -> Condition:
    """Whether a row of the target, or of an alias `rows` of it, is one of the source's: it has a
    live pair, and is not left as it is.
    """
    pairs, own = REFEREE.alias(), str(plan.own_key)
    mine = live(pairs, plan.source_name, plan.name)
    excluded = plan.view.excluded if plan.view is not None else ()
    if excluded:
        mine.append(pairs.c.source_key.not_in(sorted(orjson.loads(k)[own] for k in excluded)))
    at = plan.target if rows is None else rows
    return sa.exists().where(*mine, pairs.c.local_key == at.c[own])


def number(text: Any) -> Any:
    """A source's key that is kept as text, as the number that it is."""
    return sa.cast(text, sa.BigInteger)


def of_row(plan: Plan, identity: Any) -> list[Condition]:
    """That a row of the table has this identity, a text column."""
    pairs = REFEREE.alias()
    return [
        *live(pairs, plan.source_name, plan.name),
        pairs.c.source_key == number(identity),
        pairs.c.local_key == plan.target.c[str(plan.own_key)],
    ]


def of_parent(source: str, link: Link, parent: Any, source_key: Any) -> list[Condition]:
    """That a row of `parent`, the link's parent or an alias of it, has this key at the source, a
    text column.
    """
    pairs = REFEREE.alias()
    return [
        *live(pairs, source, link.parent_name),
        pairs.c.source_key == number(source_key),
        pairs.c.local_key == parent.c[link.parent_key],
    ]


def resolve(plan: Plan, link: Link, batch: int, *, as_of_end: bool) -> list[sa.Update]:
    """Staged references' source keys -> the parents' local keys: of the pair that was live at the
    staged row's moment in `batch`, or of the one that is live now. Parents that are not there
    resolve to nothing.
    """
    s, r, parent = plan.stage, REFEREE.c, link.parent
    assert parent is not None, "see apply/sql.py"
    found = (
        sa.update(s)
        .values({s.c[link.column]: parent.c[link.parent_key]})
        .where(
            r.source == plan.source_name,
            r.table_name == link.parent_name,
            r.source_key == number(s.c[link.source_key]),
            s.c[link.column].is_(None),
            parent.c[link.parent_key] == r.local_key,
        )
    )
    return [found.where(*then) for then in moments(s.c[ORDINAL], batch, as_of_end=as_of_end)]


def moments(ordinal: Any, batch: int, *, as_of_end: bool) -> list[list[Condition]]:
    """Conditions, of which one holds of a pair that was live at a moment in `batch`, or is now."""
    r = REFEREE.c
    if as_of_end:
        return [[r.live == 1]]
    ended_later = (r.until_batch > batch) | ((r.until_batch == batch) & (r.until_ordinal > ordinal))
    begun = r.since_batch <= batch
    return [[r.live.is_(None), begun, ended_later], [r.live == 1, begun]]
