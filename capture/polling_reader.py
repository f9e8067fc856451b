"""What differs between databases that are polled: the seam of capture/polling_mysql.py and
capture/polling_postgres.py. Only SELECT is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple, Protocol

from schemas.codec import Envelope
from schemas.kinds import Kind
from schemas.ranges import Compared, SourceRanges
from schemas.selection import Selection
from schemas.table import Table

Key = Sequence[str]
"""A row's paging columns, as the server prints them."""


class Page(NamedTuple):
    """Wire rows in paging order (op "r", ordinals their places here), and the last one's key."""

    keys: list[bytes]
    values: list[bytes]
    last: Key | None


class Snapshot(Protocol):
    """A read-only transaction: every read in it sees the same. clock: of the server, noted before
    it began, so all that was committed earlier is seen (microseconds since 1970 UTC).
    """

    clock: int

    def page(
        self,
        table: Table,
        by: Table,
        *,
        after: Key | None,
        limit: int,
        envelope: Envelope,
        until: Key | None = None,
        where: str = "",
    ) -> Page:
        """At most `limit` rows of (after, until] in the order of `by`'s paging columns (see
        `paged_by`); where: a condition more.
        """
        ...

    def listed(
        self, table: Table, identities: Sequence[bytes], envelope: Envelope, where: str
    ) -> Page:
        """The rows that have one of these wire keys, in no order."""
        ...

    def after(self, table: Table, column: str, value: str) -> str:
        """The condition that the column is greater than a value, given as it was printed."""
        ...


class Reader(Protocol):
    """One database; its methods may be called from several threads."""

    @property
    def connector(self) -> str:
        """The family, as envelopes name it."""
        ...

    def describe(self) -> list[Table]:
        """The selected tables."""
        ...

    def estimate(self) -> Mapping[str, int]:
        """See Source.estimate."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """See Snapshot."""
        ...

    def clock(self) -> int:
        """The server's clock (microseconds since 1970 UTC)."""
        ...

    def greatest(self, table: Table, column: str) -> str | None:
        """The column's greatest value as it is printed; None where the table is empty."""
        ...

    def any_null(self, table: Table, column: str) -> bool:
        """Whether a row has none."""
        ...

    def boundary(
        self, table: Table, after: Key | None, rows: int, until: Key | None, where: str
    ) -> Key | None:
        """See Source.boundary."""
        ...

    def ranges(self, compared: Compared, living: Callable[[Table], str]) -> SourceRanges:
        """See Source.ranges; only of rows that live."""
        ...

    def quoted(self, name: str) -> str:
        """A name as SQL."""
        ...

    def close(self) -> None:
        """Close every connection; idempotent."""
        ...


class Opens(Protocol):
    """How a reader is made."""

    def __call__(self, name: str, url: str, selection: Selection) -> Reader: ...


def paged_by(table: Table, column: str) -> Table:
    """The table as one that is paged by this column first."""
    key = (column, *(n for n in table.primary_key or table.identity if n != column))
    return replace(table, primary_key=key, identity=key)


def dead(kind: Kind, column: str) -> str:
    """The condition that a tombstone (already quoted) says that the row is deleted."""
    if kind.name == "bool":
        return f"COALESCE({column}, false)"
    return f"COALESCE({column}, 0) <> 0" if kind.name == "int" else f"{column} IS NOT NULL"


def joined(first: str, *conditions: str) -> str:
    """A WHERE clause and more conditions as one clause."""
    found = [c for c in conditions if c]
    if not found:
        return first
    return f"{first}{' AND ' if first else ' WHERE '}{' AND '.join(f'({c})' for c in found)}"
