"""References that configuration tells of where the source has no foreign key: of a column, of one
that holds several tables' keys, and of keys inside JSON documents.

From configuration alone; what may be wrong with them is said in apply/declared_fit.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.table import ForeignKey, Table

if TYPE_CHECKING:
    from apply.target import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class ByType:
    """A column that holds keys of several tables. by: the column that says of which; to: its value
    = `schema.table.column`.
    """

    by: str
    to: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InDocument:
    """A column of JSON documents that hold keys. at: a path (apply/documents.py) =
    `schema.table.column`.
    """

    at: Mapping[str, str]


Declaration = str | ByType | InDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared(ForeignKey):
    """One reference that is declared. by, value: of the rows whose column `by` holds that value.
    path: of the keys there in the column's documents. is_kept: the parent's keys are the same here.
    """

    by: str | None = None
    value: str | None = None
    path: str | None = None
    is_kept: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is like a foreign key: every value of the column is the parent's key."""
        return self.by is None and self.path is None


def declared(table: Table, placement: "Placement") -> Iterator[Declared]:
    """The references of a table that configuration tells of."""
    for where, declaration in placement.references.items():
        name, _, column = where.rpartition(".")
        if name != table.full_name:
            continue
        if isinstance(declaration, str):
            yield _to(column, declaration)
        elif isinstance(declaration, ByType):
            for value, to in declaration.to.items():
                yield _to(column, to, by=declaration.by, value=value)
        else:
            for path, to in declaration.at.items():
                yield _to(column, to, path=path)


def told_parents(placements: Iterable["Placement"]) -> dict[str, set[str]]:
    """By full name, the tables that a table refers to by what these targets are told."""
    found: dict[str, set[str]] = {}
    for placement in placements:
        for where, to in placement.references.items():
            every = (
                [to]
                if isinstance(to, str)
                else (to.to if isinstance(to, ByType) else to.at).values()
            )
            table = where.rpartition(".")[0]
            found.setdefault(table, set()).update(name.rpartition(".")[0] for name in every)
            found[table].discard(table)
    return found


def _to(
    column: str,
    to: str,
    *,
    by: str | None = None,
    value: str | None = None,
    path: str | None = None,
) -> Declared:
    parent, _, parent_column = to.rpartition(".")
    return Declared(
        column=column, parent=parent, parent_column=parent_column, by=by, value=value, path=path
    )
