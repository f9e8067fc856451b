"""What lasts as long as one connection to a target: its staging tables, and what it added to our
own.
"""

import sqlalchemy as sa

from apply.fields import Lines
from apply.known import made
from apply.server import Server

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
        # Whether the target may hold placeholders (apply/placeholders.py); None: not looked yet.
        self.has_placeholders: bool | None = None
        # The same of aliases (apply/aliases.py).
        self.has_aliases: bool | None = None
        self._numbers: dict[str, int] = {}

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
