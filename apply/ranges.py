"""One table of a target by ranges of its identity, for verify (schemas/ranges.py)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from apply import read_back
from apply.plan import Plan
from apply.server import Server
from schemas.codec import Wire
from schemas.ranges import Compared, Key, Total

BLOCK_ROWS = 10_000


class TargetRanges:
    """Implements schemas.ranges.Ranges; `mapped` turns the driver's errors into ours."""

    def __init__(
        self,
        server: Server,
        plan: Plan,
        compared: Compared,
        mapped: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._server, self._plan, self._mapped = server, plan, mapped
        self._chosen = read_back.selected(server, plan, compared.names)
        self._total = read_back.total(server, plan, self._chosen, compared)
        self._connection: sa.Connection | None = None

    @property
    def sorts_alike(self) -> bool:
        """See Ranges.sorts_alike."""
        is_uuid = any(self._plan.by_name[n].family == "uuid" for n in self._plan.identity)
        return not (is_uuid and self._server.is_mysql)

    def total(self, low: Key | None, high: Key | None) -> Total | None:
        """See Ranges.total."""
        if self._total is None:
            return None
        select = sa.select(*self._total).select_from(self._chosen.source)
        with self._mapped():
            if self._connection is None:
                self._connection = self._server.engine.connect()
            statement = select.where(self._chosen.ours, *self._between(low, high))
            rows, hashes = self._connection.execute(statement).one()
            self._connection.rollback()
        return Total(int(rows), int(hashes or 0) & 0xFFFFFFFFFFFFFFFF)

    def rows(self, low: Key | None, high: Key | None) -> Iterator[list[list[Wire]]]:
        """See Ranges.rows; one snapshot."""
        with self._mapped():
            yield from read_back.rows(
                self._server, self._chosen, BLOCK_ROWS, *self._between(low, high)
            )

    def rows_of(self, keys: Sequence[Key]) -> list[list[Wire]]:
        """See Ranges.rows_of."""
        if not keys:
            return []
        same = sa.or_(
            *(
                sa.and_(*(self._column(n) == self._literal(n, v) for n, v in self._pairs(key)))
                for key in keys
            )
        )
        with self._mapped():
            blocks = read_back.rows(self._server, self._chosen, BLOCK_ROWS, same)
            return [row for block in blocks for row in block]

    def close(self) -> None:
        """See Ranges.close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _between(self, low: Key | None, high: Key | None) -> Iterator[sa.ColumnElement[bool]]:
        """Ranges are cut where the identity is one column."""
        for key, is_low in ((low, True), (high, False)):
            if key is not None:
                [(name, value)] = self._pairs(key)
                column, literal = self._column(name), self._literal(name, value)
                yield column > literal if is_low else column <= literal

    def _pairs(self, key: Key) -> list[tuple[str, Wire]]:
        return list(zip(self._plan.identity, key, strict=True))

    def _column(self, name: str) -> sa.Column[Any]:
        column: sa.Column[Any] = self._chosen.found_by[name]
        return column

    def _literal(self, name: str, value: Wire) -> Any:
        taken = self._plan.by_name[name]
        if isinstance(value, int):
            return sa.literal(int(value), sa.BigInteger)
        if taken.kind.name == "decimal" and taken.family == "decimal":
            return sa.literal(Decimal(str(value)))
        text = str(value)
        if taken.kind.name == "timestamp" and taken.family != "text":
            text = text.removesuffix("Z")
        return self._server.from_text(sa.literal(text, sa.String), taken.column, taken.kind)
