"""What lasts as long as one connection to a target: its staging tables, and what it added to our
own.
"""

import sqlalchemy as sa

from apply.fields import Lines
from apply.known import made
from apply.server import Server
from schemas.errors import Operator

ANALYZE_AT = 1_000


class Session:
    """What lasts as long as a connection: which staging tables exist and about how full they
    are, and what keys were met.
    """

    def __init__(self, server: Server, connection: sa.Connection) -> None:
        self.server, self.connection = server, connection
        self._full: dict[str, int] = {}
        self._added, self._analyze_at = 0, ANALYZE_AT
        self.known = made()
        self._used: dict[str, bool] = {}
        self._numbers: dict[str, int] = {}

    def uses(self, own: sa.Table, *, is_needed: bool) -> bool:
        """Whether one of our own tables may hold anything: it is there, and nobody has told that it
        is empty. is_needed: it is going to be written to; raises Operator where it is not there.
        """
        if own.name not in self._used:
            self._used[own.name] = sa.inspect(self.connection).has_table(own.name)
            if is_needed and not self._used[own.name]:
                raise Operator(
                    f"found no table {own.name} in the target",
                    hint="an older version prepared it; run: headwater prepare",
                )
        return self._used[own.name]

    def told(self, own: sa.Table, *, holds: bool) -> None:
        """Whether that table holds anything."""
        self._used[own.name] = holds

    def number(self, name: str) -> int:
        """What `known` calls this table of the source."""
        return self._numbers.setdefault(name, len(self._numbers))

    def name(self, number: int) -> str:
        """The table of this number."""
        return list(self._numbers)[number]

    def ready(self, table: sa.Table) -> None:
        """Have the staging table, empty."""
        if table.name not in self._full:
            self.server.make(self.connection, table)
        elif self._full[table.name]:
            self.server.clear(self.connection, table, self._full[table.name])
        self._full[table.name] = 0

    def put(self, table: sa.Table, lines: Lines) -> None:
        """Stage rows."""
        self._full[table.name] += lines.rows
        self.server.stage(self.connection, table, lines)

    def filled(self, table: sa.Table, rows: int) -> None:
        """Rows were staged by a statement."""
        self._full[table.name] += rows

    def add(self, table: sa.Table, lines: Lines) -> None:
        """Add rows to a table of ours that lasts, and let the server count it when it has grown.

        Tried on PostgreSQL 18: without statistics a source's 10,000 identities were taken for one,
        and two references a row were looked up by comparing all with all, for half an hour.
        """
        self.server.stage(self.connection, table, lines)
        self.added(table, lines.rows)

    def added(self, table: sa.Table, rows: int) -> None:
        """Rows were added by a statement."""
        self._added += rows
        if self._added >= self._analyze_at:
            self.server.analyze(self.connection, table)
            self._analyze_at = 2 * self._added
