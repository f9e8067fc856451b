"""What verify asks of a source and of a target: one table's rows by ranges of their identity.

Not the canonical form (schemas/canonical.py), and no comparison (ops/verify.py): a side gives wire
values, or the checksum of a range that its own SQL has computed (schemas/checksum.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import orjson

from schemas.codec import Wire
from schemas.kinds import Kind
from schemas.table import Table

Key = Sequence[Wire]
"""The identity's wire values, in the identity's order."""

ALONE = 500
"""So many keys are asked for in one statement."""


def wires(fragments: Iterable[str | None]) -> list[Wire]:
    """A column of wire fragments as values, parsed in one go; None is null."""
    found: list[Wire] = orjson.loads(f"[{','.join([f or 'null' for f in fragments])}]")
    return found


class Parent(NamedTuple):
    """What a translated reference means: a row of this table, whose identity compares as `kind`."""

    table: Table
    key: str
    """The parent's column that the reference holds at the source."""
    kind: Kind

    @property
    def identity(self) -> str:
        """A translated reference's parent has an identity of one column."""
        return self.table.identity[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One table as both sides compare it. kinds: the compared columns, in order, each with the
    kind that both sides' values compare by. parents: by column, of references that the target
    translates.
    """

    table: Table
    kinds: Mapping[str, Kind]
    parents: Mapping[str, Parent]

    @property
    def names(self) -> tuple[str, ...]:
        """The compared columns."""
        return tuple(self.kinds)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Source columns that are not compared."""
        return tuple(c.name for c in self.table.columns if c.name not in self.kinds)


class Total(NamedTuple):
    """How many rows there are, and the exclusive or of their hashes (schemas/checksum.py)."""

    rows: int
    hashes: int

    def __add__(self, other: object) -> "Total":
        assert isinstance(other, Total)
        return Total(self.rows + other.rows, self.hashes ^ other.hashes)


class Ranges(Protocol):
    """One side of one table, over a connection of its own: for one thread at a time.

    A range is what comes after `low` up to and with `high` in this side's own order, which need not
    be the other's; None is the table's end. Each call is one short read of its own.
    """

    @property
    def sorts_alike(self) -> bool:
        """Whether UUIDs sort here as their texts do: MariaDB's type sorts them by their ends."""
        ...

    def total(self, low: Key | None, high: Key | None) -> Total | None:
        """The range's checksum; None where no SQL of this server writes the compared form."""
        ...

    def rows(self, low: Key | None, high: Key | None) -> Iterator[list[list[Wire]]]:
        """The range's rows in blocks: wire values in the order of the compared columns, translated
        references as the parent's wire key (its identity null where there is no such parent).
        """
        ...

    def rows_of(self, keys: Sequence[Key]) -> list[list[Wire]]:
        """The rows of these identities, at most ALONE; also rows that only a collation takes for
        the same.
        """
        ...

    def close(self) -> None:
        """Close the connection; idempotent."""
        ...


class SourceRanges(Ranges, Protocol):
    """The source's side, which also says where ranges end."""

    def end(self, after: Key | None, rows: int) -> Key | None:
        """The identity of the row that is `rows` rows after `after`; None where fewer are left."""
        ...
