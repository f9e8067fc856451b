"""What a target's table holds: a quick look at how far it is, and every value of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import Any

from bench import changes, orders
from bench.changes import Change
from bench.topics import Different
from tests.services.database import Database

SOME = 64
"""Changes looked at to know a phase's begin or end: among so many, some are in each partition."""


class Look:
    """Asks again and again how far one phase has come in a target."""

    def __init__(self, database: Database, phase: str, rows: int, first: int = 1) -> None:
        """first: the number of the phase's first row, where it is not the first such phase."""
        self._phase = phase
        self._connection = database.connect()
        self._cursor = self._connection.cursor()
        self._cursor.execute(_utc(database))
        found = list(chain.from_iterable(changes.transactions(phase, rows, first)))
        self._first, self._last = found[:SOME], found[-SOME:]
        self._before = 0
        self._before = self.count()

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def has_begun(self) -> bool:
        """Whether any of the first changes can be seen."""
        found, wanted = self._totals(self._first)
        return bool(found.items() & wanted.items())

    def is_done(self) -> bool:
        """Whether each of the last changes can be seen."""
        found, wanted = self._totals(self._last)
        return found == wanted

    def count(self) -> int:
        """Changes of the phase that can be seen, by a count over the table."""
        version = changes.PHASES.index(self._phase)
        self._cursor.execute(
            "select count(*) from orders where updated_at >= %s", (orders.since(version),)
        )
        (count,) = self._cursor.fetchone()
        # Every second change of the mixture is an update, and it alone has this version.
        return int(count) * (2 if self._phase == "mixed" else 1) - self._before

    def _totals(self, changed: list[Change]) -> tuple[dict[str, Any], dict[str, Any]]:
        ids = tuple(orders.sync_id(number) for _, number, _ in changed)
        self._cursor.execute("select sync_id, total from orders where sync_id in %s", (ids,))
        wanted = {
            orders.sync_id(number): Decimal(orders.row(number, version)[4])
            for op, number, version in changed
            if op != "d"
        }
        return dict(self._cursor.fetchall()), wanted


def _utc(database: Database) -> str:
    is_postgres = database.server.url.startswith("postgres")
    return "set time zone 'UTC'" if is_postgres else "set time_zone = '+00:00'"


def compare(database: Database, expected: Mapping[int, int]) -> None:
    """Every row by its sync_id with every column but the local key; beats aside. Raises Different.

    expected: number and version of each row.
    """
    numbers = {orders.sync_id(number): number for number in expected}
    seen = 0
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(_utc(database))
        cursor.execute(f"select {', '.join(orders.NAMES)} from orders")
        for row in cursor:
            number = numbers.get(row[1])
            if number is None:
                if orders.is_beat(row[1]):
                    continue
                raise Different(f"the target holds a row {row[0]} that it should not")
            if _written(row) != orders.row(number, expected[number])[1:]:
                raise Different(f"row {number} is not as it was written")
            seen += 1
    if seen != len(expected):
        raise Different(f"the target holds {seen:,} of {len(expected):,} rows")


def _written(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as the driver gives it, in the form of `orders.row`, without its key."""
    created, updated = row[7:9]
    return (*row[1:4], f"{row[4]:.2f}", *row[5:7], _text(created), _text(updated), row[9])


def _text(instant: datetime) -> str:
    if instant.tzinfo is not None:
        instant = instant.astimezone(UTC).replace(tzinfo=None)
    return instant.isoformat(" ", "microseconds")
