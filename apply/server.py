"""What differs between target servers: the seam that apply/postgres.py, apply/mysql.py and
apply/sqlite.py implement.

Everything else is written once over SQLAlchemy. No plan, no batch and no retry here.
"""

from collections.abc import Container, Iterator, Sequence
from enum import Enum, auto
from typing import Any, Protocol

import sqlalchemy as sa

from apply.fields import Fields, Lines
from schemas.kinds import Kind
from schemas.table import Column

DIRECT = "direct"
"""In a reflected table's `info`: whether `stage` may also fill it, as an INSERT would."""
DECLARED = "declared"
"""In a reflected column's `info`: its type as the table's maker wrote it, where it is another one
here.
"""
LATE_UNIQUES = "late_uniques"
"""In a reflected table's `info`: sets of columns whose unique index may be checked at commit only.
"""


class Cause(Enum):
    """Why a statement failed, as far as it decides what to do."""

    LOST = auto()  # connection, deadlock, disk full: the batch starts again
    LOCKED = auto()  # a lock timeout: on the checkpoint row it is another applier
    UNIQUE = auto()
    FOREIGN = auto()
    ROW = auto()  # a row's values: too long, out of range, NULL, a check
    DENIED = auto()  # password, grants, read-only: the operator's
    TOO_LARGE = auto()  # a transaction beyond what the server allows: the operator's
    UNKNOWN = auto()


class Unstorable(Exception):
    """The server takes this row's value only changed, or not at all. `row` counts within what
    was staged.
    """

    def __init__(self, row: int, column: str | None) -> None:
        super().__init__(f"cannot stage row {row}")
        self.row, self.column = row, column


class Server(Protocol):
    """One kind of server and how to reach it."""

    is_mysql: bool
    is_sqlite: bool
    engine: sa.Engine

    def column_type(self, column: Column, family: str, *, key: bool) -> str:
        """The type text of a column to create; `key`: it will be indexed."""
        ...

    def own_key(self, column: Column) -> tuple[str, str] | None:
        """Type and generator of a primary key the target owns; None where none generates this
        kind.
        """
        ...

    def generates(self, column: sa.Column[Any]) -> bool:
        """Whether the server fills the column when an INSERT leaves it out."""
        ...

    def complete(self, connection: sa.Connection, table: sa.Table) -> None:
        """Add to a reflected table what reflection leaves out: what a staging table needs to hold
        the same values (collations), LATE_UNIQUES and DIRECT.
        """
        ...

    def fields(self, kind: Kind, family: str) -> Fields:
        """How to write the kind's wire values for a column of that family (apply/fit.py)."""
        ...

    def exactly(self, column: Any, other: Any) -> sa.ColumnElement[bool]:
        """`column = other`, by index and without a collation's leniency."""
        ...

    def from_text(self, text: Any, like: sa.Column[Any], kind: Kind | None = None) -> Any:
        """A text column as a value assigned to a column like `like`; of binary, its base64. kind:
        the source's, whose wire form the text has, where a UUID may be kept in another one here.
        """
        ...

    def make(self, connection: sa.Connection, table: sa.Table) -> None:
        """Create a temporary table; no transaction ends."""
        ...

    def clear(self, connection: sa.Connection, table: sa.Table, rows: int) -> None:
        """Empty a temporary table that holds about `rows` rows; no transaction ends."""
        ...

    def stage(self, connection: sa.Connection, table: sa.Table, lines: Lines) -> int:
        """Insert rows; how many were. Raises Unstorable unless every value is kept exactly."""
        ...

    def analyze(self, connection: sa.Connection, table: sa.Table) -> None:
        """Let the planner know what a table holds now; no transaction ends."""
        ...

    def advance(self, connection: sa.Connection, table: sa.Table, written: Container[str]) -> None:
        """Let the generator of the table's primary key stand past the greatest key there, if that
        key is among the columns that were written; never backwards.
        """
        ...

    def hold(self, connection: sa.Connection, source: str) -> bool:
        """Try to take a lock of this name that lasts as long as the connection; False: another
        connection has it.
        """
        ...

    def check_at_once(self, connection: sa.Connection) -> None:
        """Check the rows of this transaction after each statement, also by constraints that are
        else checked at commit, where the server can.
        """
        ...

    def cause(self, error: sa.exc.DBAPIError) -> Cause:
        """Why the statement failed."""
        ...

    def explain(self, error: sa.exc.DBAPIError) -> str:
        """The server's code for the error, without its message, which may hold values."""
        ...

    def warnings(self, connection: sa.Connection) -> list[tuple[str, str, str]]:
        """Settings that make applying slow or fragile: (where, problem, fix)."""
        ...

    def read(
        self,
        columns: Sequence[tuple[Kind, str, Any]],
        statement: sa.Select[Any],
        limit: int,
        *,
        connection: sa.Connection | None = None,
    ) -> Iterator[list[list[str | None]]]:
        """The select's rows as wire fragments by row, in blocks, from one snapshot of its own
        connection; or as this connection's transaction sees them.
        """
        ...

    def field(self, kind: Kind, family: str, column: Any) -> str | None:
        """The column's field of a line (schemas/checksum.py) as SQL; None: no SQL writes it."""
        ...

    def reference(self, column: Any, field: str, dangling: str) -> str:
        """The field of a translated reference whose parent's identity has the field `field`."""
        ...

    def total(self, fields: Sequence[str], key: Sequence[str]) -> str | None:
        """The number of rows and the exclusive or of their hashes, as SQL of two columns."""
        ...
