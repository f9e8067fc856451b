"""Identities that rows of the target had before they turned out to be other rows (apply/same.py): a
change of an alias is a change of the row that has its identity now, and so is a reference.

Tables without aliases cost nothing. An alias ends with its row, or with its own delete.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import time_ns

import orjson
import sqlalchemy as sa

from apply import fields, key_meanings
from apply.identity import FACTS
from apply.own import ALIAS
from apply.plan import Plan
from apply.repoint import is_named, stage_pairs
from apply.session import Session
from schemas.change import Rows

A = ALIAS.c


class Aliases:
    """Those of one target and source, within a batch's transaction."""

    def __init__(self, session: Session, source: str, *, are_made: bool) -> None:
        """are_made: whether the configuration lets two rows be one."""
        self._session, self._connection, self._source = session, session.connection, source
        self.are_made = are_made
        self._tables = self._with_aliases()
        self._less: dict[str, Plan] = {}

    def _with_aliases(self) -> set[str]:
        if not self._session.uses(ALIAS, is_needed=self.are_made):
            return set()
        found = sa.select(A.table_name).where(A.source == self._source).distinct()
        names = set(self._connection.scalars(found))
        self._session.told(ALIAS, holds=bool(names) or self.are_made)
        return names

    def seen(self, plan: Plan, rows: Rows) -> Rows:
        """The rows with the identities that the target's rows have now; after what they say of
        their keys was taken in. An alias's own delete deletes nothing.
        """
        if plan.name not in self._tables:
            return rows
        name = plan.identity[0]
        if "d" in rows.ops:
            self._less[plan.name] = plan
        texts = {key: str(orjson.loads(key)[name]) for key in rows.keys}
        found = self._among(plan.name, list(set(texts.values())))
        ended = self._ended(rows, texts, found)
        if ended:
            self._end(plan.name, sorted(ended))
        found = {alias: identity for alias, identity in found.items() if alias not in ended}
        if not found:
            return rows
        if plan.is_tracked:
            key_meanings.rename(self._session, self._source, plan.name, list(found.items()))
        number = plan.identity_kind.name == "int"
        keys, values = list(rows.keys), list(rows.values)
        for i, key in enumerate(rows.keys):
            if (identity := found.get(texts[key])) is not None:
                mine = {name: int(identity) if number else identity}
                keys[i], values[i] = orjson.dumps(mine), _with(values[i], mine)
        return replace(rows, keys=keys, values=values)

    def _ended(self, rows: Rows, texts: dict[bytes, str], found: dict[str, str]) -> set[str]:
        """The aliases whose own delete comes, or whose row's: what comes after is a new row."""
        deleted = {texts[key] for op, key in zip(rows.ops, rows.keys, strict=True) if op == "d"}
        return {a for a, identity in found.items() if a in deleted or identity in deleted}

    def _among(self, table: str, texts: Sequence[str]) -> dict[str, str]:
        stage_pairs(self._session, [(text, text) for text in texts])
        same = A.alias == FACTS.c.identity
        found = sa.select(A.alias, A.identity).where(*self._of(table), same)
        return {row.alias: row.identity for row in self._connection.execute(found)}

    def add(self, plan: Plan, pairs: Sequence[tuple[str, str]]) -> None:
        """Let these be aliases: (was, is). Those of what was are aliases of what is."""
        if not pairs:
            return
        stage_pairs(self._session, pairs)
        self._connection.execute(
            sa.update(ALIAS)
            .values({A.identity: FACTS.c.identity})
            .where(*self._of(plan.name), A.identity == FACTS.c.source_key)
        )
        now = time_ns() // 1000
        columns = {
            "source": fields.text([self._source] * len(pairs)),
            "table_name": fields.text([plan.name] * len(pairs)),
            "alias": fields.text([old for old, _ in pairs]),
            "identity": fields.text([new for _, new in pairs]),
            "made_at": fields.plain([now] * len(pairs)),
        }
        self._session.add(ALIAS, fields.lines(columns))
        self._tables.add(plan.name)

    def forget(self, table: str) -> None:
        """The table was emptied."""
        if table in self._tables:
            self._connection.execute(sa.delete(ALIAS).where(*self._of(table)))

    def finish(self) -> None:
        """The batch's rows are written: an alias of a row that is gone means nothing."""
        for name, plan in self._less.items():
            column = plan.target.c[plan.identity[0]]
            row = is_named(self._session.server, column, A.identity, plan.identity_kind)
            gone = ~sa.exists().where(row).correlate(ALIAS)
            self._connection.execute(sa.delete(ALIAS).where(*self._of(name), gone))

    def _end(self, table: str, aliases: Sequence[str]) -> None:
        stage_pairs(self._session, [(alias, alias) for alias in aliases])
        named = A.alias.in_(sa.select(FACTS.c.identity))
        self._connection.execute(sa.delete(ALIAS).where(*self._of(table), named))

    def _of(self, table: str) -> list[sa.ColumnElement[bool]]:
        return [A.source == self._source, A.table_name == table]


def _with(value: bytes, identity: Mapping[str, object]) -> bytes:
    """A row's envelope, as much of it as is looked at, with another identity."""
    row = orjson.loads(value)
    for image in ("before", "after"):
        if row.get(image) is not None:
            row[image] |= identity
    return orjson.dumps({"before": row.get("before"), "after": row.get("after"), "op": row["op"]})
