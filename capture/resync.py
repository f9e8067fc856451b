"""What a statement took from tables without a word in the rows of the source's log, and who brings
it back: the copies that `headwater snapshot` asks for.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from schemas.errors import Operator
from schemas.table import ForeignKey


class CatalogTable(Protocol):
    """A table as a source's catalog has it now."""

    @property
    def full_name(self) -> str: ...
    @property
    def foreign_keys(self) -> Sequence[ForeignKey]: ...


class Resync:
    """The tables of one source that are being copied anew, by full name; the collection may change.

    Invariant: a table's loss is passed over only if it is copied, and with it every table that
    refers to it: a target gives the rows that come anew other primary keys.
    """

    def __init__(
        self,
        source: str,
        tables: Collection[str],
        catalog: Callable[[], Sequence[CatalogTable]],
    ) -> None:
        self._source, self._tables, self._catalog = source, tables, catalog

    def emptied(self, lost: Iterable[tuple[str, str]], problem: Operator) -> list[str]:
        """The tables that hold nothing known once `lost` ("*": any table of the schema) were
        changed unseen.

        Raises `problem` with what to do where they are not copied anew.
        """
        catalog = {t.full_name: t for t in self._catalog()}
        names = [n for one in lost for n in self._matching(one, catalog)]
        emptied = [*names, *_children(names, catalog.values())]
        if set(self._tables).issuperset(emptied):
            return emptied
        go_on = self._way_on(names, emptied, catalog)
        problem.hint = f"{problem.hint}; to go past it {go_on}" if problem.hint else go_on
        raise problem

    def _matching(self, lost: tuple[str, str], catalog: Iterable[str]) -> list[str]:
        schema, name = lost
        if name != "*":
            return [f"{schema}.{name}"]
        found = [n for n in {*catalog, *self._tables} if n.startswith(f"{schema}.")]
        return sorted(found) or [f"{schema}.*"]

    def _way_on(
        self, names: Sequence[str], emptied: Sequence[str], catalog: Collection[str]
    ) -> str:
        gone = [n for n in names if n not in catalog]
        there = [n for n in emptied if n in catalog]
        exclude = "exclude = [" + ", ".join(f'"{n}"' for n in gone or names) + "]"
        again = f"run: headwater snapshot {self._source} {' '.join(there)}"
        if not gone:
            return f"{again} (or leave the table out: {exclude})"
        return f"leave out what the source no longer has: {exclude}" + (
            f"; then {again}" if there else ""
        )


def _children(names: Sequence[str], tables: Collection[CatalogTable]) -> Iterator[str]:
    """The tables that refer to these, and those that refer to them, and so on."""
    known = set(names)
    while True:
        found = {
            t.full_name
            for t in tables
            if t.full_name not in known and any(k.parent in known for k in t.foreign_keys)
        }
        if not found:
            return
        known |= found
        yield from sorted(found)
