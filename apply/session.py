"""What lasts as long as one connection to a target: its staging tables."""

import sqlalchemy as sa

from apply.fields import Lines
from apply.server import Server


class Session:
    """What lasts as long as a connection: which staging tables exist and about how full they
    are.
    """

    def __init__(self, server: Server, connection: sa.Connection) -> None:
        self.server, self.connection = server, connection
        self._full: dict[str, int] = {}

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
