"""Beats in a source (schemas/beat.py): written beside the tables that are dumped, read, removed.

The only rows that Headwater ever writes into a source; one small table in each captured schema.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import time_ns
from typing import Any

from schemas.beat import BEATS, Beat
from schemas.change import Position
from schemas.errors import Misconfigured
from schemas.finding import Finding

_WHERE = f"SELECT table_schema FROM information_schema.tables WHERE table_name = '{BEATS}'"
_COUNT = "SELECT count(*), count(CASE WHEN source = %s AND dumped = %s THEN 1 END) FROM {table}"
_NEXT = "SELECT coalesce(max(number), 0) + 1 FROM {table}"
_READ = "SELECT number, position, noted_at FROM {table} WHERE source = %s AND dumped = %s"
_WRITE = "INSERT INTO {table} (number, source, dumped, position, noted_at)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beats:
    """The beats of one source. run: one statement with parameters (%s), its rows; autocommit.

    create: what makes the table `{table}` unless it is there; lock, unlock: let one writer in.
    """

    source: str
    run: Callable[..., list[tuple[Any, ...]]]
    quote: Callable[[str], str]
    create: tuple[str, ...]
    lock: str
    unlock: str

    def write(self, schemas: Iterable[str], position: Position) -> int:
        """Commit a beat for a position that was noted before; its number, the same everywhere.

        When this returns, whoever begins to read sees it. Raises Misconfigured without the rights.
        """
        tables = {schema: self._table(schema) for schema in schemas}
        for table in tables.values():
            for statement in self.create:
                self.run(statement.format(table=table))
        self.run(self.lock)
        number = max(
            (int(self.run(_NEXT.format(table=t))[0][0]) for t in tables.values()), default=1
        )
        for schema, table in tables.items():
            values = (number, self.source, schema, position, time_ns() // 1000)
            self.run(f"{_WRITE.format(table=table)} VALUES (%s, %s, %s, %s, %s)", *values)
        self.run(self.unlock)
        return number

    def read(self) -> list[Beat]:
        """Every beat of this source, by number; one of several schemas comes once."""
        found = {
            int(number): Beat(number=int(number), position=Position(position), noted_at=int(at))
            for schema in self._schemas()
            for number, position, at in self.run(
                _READ.format(table=self._table(schema)), self.source, schema
            )
        }
        return [found[number] for number in sorted(found)]

    def plan_drop(self) -> list[str]:
        """What removes them: the tables, or the rows where another source's stand there too."""
        statements = []
        for schema in self._schemas():
            table = self._table(schema)
            # A copy that was imported into a database of the same server is not this source's.
            count, own = self.run(_COUNT.format(table=table), self.source, schema)[0]
            if count == own:
                statements.append(f"DROP TABLE {table}")
            elif own:
                statements.append(f"DELETE FROM {table} WHERE source = '{self.source}'")
        return statements

    def _schemas(self) -> list[str]:
        return sorted(str(schema) for (schema,) in self.run(_WHERE))

    def _table(self, schema: str) -> str:
        return f"{self.quote(schema)}.{self.quote(BEATS)}"


def refused(error: Misconfigured, fix: str) -> Finding:
    """A beat that could not be written: the position is as good, and import-check blind."""
    return Finding(
        where=BEATS,
        problem=f"was not written ({error}): headwater import-check will have nothing to check by",
        fix=f"{fix}, or say --no-beat; headwater verify finds what a dump that was begun too early "
        "lacks",
        refused=False,
    )


def left_out() -> Finding:
    """What is not checked without a beat."""
    return Finding(
        where=BEATS,
        problem="was not written: headwater import-check will have nothing to check by",
        fix="begin the dump after this command has ended; headwater verify finds what a dump that "
        "was begun earlier lacks",
        refused=False,
    )
