"""Staged references -> the parents' local keys of this moment: by statements alone, or for keys in
documents by one look-up for a block of them, which are then written anew and staged beside.

What finds no parent stays NULL beside the source's value, for whoever resolves again. Used wherever
rows are staged: to be written, or to be compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from apply import fields, referee
from apply.documents import Found, Unreadable, keys, replaced
from apply.identity import FACTS
from apply.own import IDENTITY, REFEREE
from apply.plan import ORDINAL, Link, Plan
from apply.server import Unstorable
from apply.sql import meant
from apply.transaction import Transaction
from apply.uuids import wire_text

BLOCK = 5_000
"""So many documents are looked at together."""

_Places = list[tuple[int, Found]]
"""Keys in one document, each with its link's place among the column's."""

Bad = Sequence[tuple[int, str]]
"""Ordinals of staged rows whose documents cannot be translated, and why not."""


def look_up(
    transaction: Transaction, plan: Plan, link: Link, batch: int, *, as_of_end: bool
) -> Bad:
    """Resolve a link of the staged rows, as of their moments in `batch` or of now; a column's
    documents all at once, with its first link.
    """
    if link.steps is None:
        for statement in transaction.sql(plan).resolve(link, batch, as_of_end=as_of_end):
            transaction.run(statement)
        return ()
    return _Documents(transaction, plan, link, batch, as_of_end).write() if link.nth == 0 else ()


class _Documents:
    """The documents of one column of a staging table."""

    def __init__(
        self, transaction: Transaction, plan: Plan, link: Link, batch: int, as_of_end: bool
    ) -> None:
        self._in, self._plan, self._batch, self._as_of_end = transaction, plan, batch, as_of_end
        self._links = [k for k in plan.chosen if k.column == link.column]
        self._column, self._source_key = link.column, link.source_key
        self._made = sa.Table(
            f"headwater_documents_{plan.number}_{list(plan.by_name).index(link.column)}",
            sa.MetaData(),
            # A key: MariaDB joins without an index by comparing all with all.
            sa.Column(ORDINAL, sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("document", plan.by_name[link.column].column.type),
            prefixes=["TEMPORARY"],
        )

    def write(self) -> Bad:
        """Set the column where every key has its parent."""
        bad: list[tuple[int, str]] = []
        for block in self._blocks():
            found, unreadable = self._keys(block)
            bad += unreadable
            now = [self._local(nth, found) for nth in range(len(self._links))]
            new = {
                at: replaced(block[at], [(f, now[nth][at, f.key]) for nth, f in places])
                for at, places in found.items()
                if all((at, f.key) in now[nth] for nth, f in places)
            }
            bad += self._put(new)
        return bad

    def _blocks(self) -> Iterator[Mapping[int, str]]:
        """Documents by ordinal, of those that are not resolved."""
        s, last = self._plan.stage, -1
        source = s.c[self._source_key]
        open_ = sa.select(s.c[ORDINAL], source).where(
            source.is_not(None), s.c[self._column].is_(None)
        )
        while True:
            after = open_.where(s.c[ORDINAL] > last).order_by(s.c[ORDINAL]).limit(BLOCK)
            block = {int(at): str(text) for at, text in self._in.connection.execute(after)}
            if not block:
                return
            last = max(block)
            yield block

    def _keys(self, block: Mapping[int, str]) -> tuple[dict[int, _Places], Bad]:
        found: dict[int, _Places] = {}
        bad = []
        for at, text in block.items():
            try:
                found[at] = [
                    (nth, key)
                    for nth, link in enumerate(self._links)
                    for key in keys(text, link.steps or ())
                ]
            except Unreadable as error:
                bad.append((at, f"its {self._column} {error}"))
        return found, bad

    def _local(self, nth: int, found: Mapping[int, _Places]) -> dict[tuple[int, str], str]:
        """By ordinal and source key, the local key of the parent as it is written in documents."""
        link = self._links[nth]
        wanted = {(at, f.key) for at, places in found.items() for n, f in places if n == nth}
        pairs = sorted(pair for pair in wanted if link.may_be(pair[1]))
        if not pairs or link.parent is None:
            return {}
        ats, texts = [at for at, _ in pairs], [key for _, key in pairs]
        staged = {"source_key": fields.text(texts), "identity": fields.text([None] * len(pairs))}
        self._in.session.ready(FACTS)
        self._in.session.put(FACTS, fields.lines(staged | {"at": fields.plain(ats)}))
        rows = (
            row for select in self._selects(link) for row in self._in.connection.execute(select)
        )
        kind = link.key_kind
        assert kind is not None, "of every chosen link"
        return {(int(at), str(key)): wire_text(local, kind) for at, key, local in rows}

    def _selects(self, link: Link) -> list[sa.Select[Any]]:
        parent, at, key = link.parent, FACTS.c.at, FACTS.c.source_key
        assert parent is not None, "see _local"
        chosen = sa.select(at, key, parent.c[link.parent_key])
        if link.is_refereed:
            r = REFEREE.c
            mine = chosen.where(
                r.source == self._in.source,
                r.table_name == link.parent_name,
                r.source_key == referee.number(key),
                r.local_key == parent.c[link.parent_key],
            )
            moments = referee.moments(at, self._batch, as_of_end=self._as_of_end)
            return [mine.where(*then) for then in moments]
        i, name = IDENTITY.c, parent.c[link.parent_identity]
        identity = self._in.server.from_text(i.identity, name, link.identity_kind)
        mine = chosen.where(
            i.source == self._in.source,
            i.table_name == link.parent_name,
            i.source_key == key,
            self._in.server.exactly(name, identity),
        )
        return [mine.where(meant(IDENTITY, at, self._batch, as_of_end=self._as_of_end))]

    def _put(self, new: dict[int, str]) -> Bad:
        bad, why = list[int](), f"the target cannot hold its {self._column} exactly"
        make, s = self._plan.by_name[self._column].fields, self._plan.stage
        while new:
            self._in.session.ready(self._made)
            ordinals, savepoint = list(new), self._in.connection.begin_nested()
            try:
                documents = make(list(new.values()))
                lines = fields.lines({ORDINAL: fields.plain(ordinals), "document": documents})
                self._in.session.put(self._made, lines)
                savepoint.commit()
                break
            except (fields.Unsendable, Unstorable) as error:
                savepoint.rollback()
                bad.append(ordinals[min(error.row, len(ordinals) - 1)])
                del new[bad[-1]]
        same = s.c[ORDINAL] == self._made.c[ORDINAL]
        if new:
            self._in.run(
                sa.update(s).values({s.c[self._column]: self._made.c.document}).where(same)
            )
        return [(at, why) for at in bad]
