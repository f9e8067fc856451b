"""What checks in the stream found, kept in the target (apply/barrier.py)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson
import sqlalchemy as sa

from apply.own import CHECKED

LISTED = 100
"""Identities that are kept of each table's differences."""


class Checked(NamedTuple):
    """A table's newest check: rows compared, those that differ (or are missing), those that only
    the target has (None: not at its end yet), and some of their identities with "different" or
    "extra". number: names the check. position: the source's place of its newest chunk.
    """

    table: str
    number: str
    rows: int
    different: int
    extra: int | None
    listed: Sequence[tuple[str, str]]
    position: str | None


class Results:
    """Writes the results of one source's checks at one place."""

    def __init__(self, connection: sa.Connection, source: str, position: str) -> None:
        self._connection, self._source, self._position = connection, source, position

    def begin(self, table: str, number: str) -> None:
        """Forget what an earlier check found."""
        self._connection.execute(sa.delete(CHECKED).where(*_mine(self._source, table)))
        first = {"row_count": 0, "different": 0, "listed": "[]"}
        of = {"source": self._source, "table_name": table, "number": number}
        self._connection.execute(sa.insert(CHECKED).values(of | first))

    def differ(self, table: str, rows: int, wrong: Sequence[str]) -> None:
        """So many rows were compared; of these identities the rows differ."""
        self._keep(
            table,
            "different",
            wrong,
            row_count=CHECKED.c.row_count + rows,
            different=CHECKED.c.different + len(wrong),
        )

    def end(self, table: str, extra: int, some: Iterable[str]) -> None:
        """So many rows are only here, these among them."""
        self._keep(table, "extra", some, extra=extra)

    def _keep(self, table: str, kind: str, keys: Iterable[str], **values: object) -> None:
        mine = _mine(self._source, table)
        listed = self._connection.scalar(sa.select(CHECKED.c.listed).where(*mine))
        both = [*orjson.loads(listed or "[]"), *([kind, key] for key in keys)][:LISTED]
        values |= {"listed": orjson.dumps(both).decode(), "position": self._position}
        self._connection.execute(sa.update(CHECKED).where(*mine).values(values))


def read(connection: sa.Connection, source: str) -> list[Checked]:
    """The newest check of each table."""
    c = CHECKED.c
    columns = (c.table_name, c.number, c.row_count, c.different, c.extra, c.listed, c.position)
    return [
        Checked(table, number, rows, different, extra, orjson.loads(listed), position)
        for table, number, rows, different, extra, listed, position in connection.execute(
            sa.select(*columns).where(c.source == source)
        )
    ]


def _mine(source: str, table: str) -> list[sa.ColumnElement[bool]]:
    return [CHECKED.c.source == source, CHECKED.c.table_name == table]
