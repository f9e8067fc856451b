"""How one table of a target differs from its source by configuration: which rows it takes, what
columns are called, computed ones, and those that are the target's own.

From descriptions alone; the rows themselves are looked at in apply/view.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from schemas.compare import Unfit
from schemas.expression import Expression, bind, condition
from schemas.finding import Finding
from schemas.kinds import Kind
from schemas.table import Table

if TYPE_CHECKING:
    from apply.target import Placement


OnLeave = Literal["delete", "keep", "mark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableExceptions:
    """where: a condition over the source's columns; rows without it are not here. on_leave: what
    becomes of a row that no longer meets it; "mark": the column `mark` is true from then on.
    rename: source column -> column here. set: column here -> an expression over the source's
    columns. own: columns that are written when a row is inserted, and then never again.
    ancestors: what its rows reference is here too, and what that references, whatever the
    conditions of those tables say (apply/ancestors.py).
    """

    where: str | None = None
    on_leave: OnLeave = "delete"
    mark: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    own: Sequence[str] = ()
    ancestors: bool = False


NONE = TableExceptions()


def of(full_name: str, placement: "Placement") -> TableExceptions:
    """The table's exceptions."""
    return placement.exceptions.get(full_name, NONE)


def name_here(full_name: str, column: str, placement: "Placement") -> str:
    """What the target calls a column."""
    return of(full_name, placement).rename.get(column, column)


def derived(table: Table, placement: "Placement") -> dict[str, Expression]:
    """The columns whose values are computed, and how; without those that cannot be."""
    found = {}
    for name, text in _computed(of(table.full_name, placement)):
        try:
            found[name] = bind(text, _kinds(table))
        except Unfit:
            continue  # said by `problems`
    return found


def filtered(table: Table, placement: "Placement") -> Expression | None:
    """The condition for rows to be here; raises Unfit."""
    where = of(table.full_name, placement).where
    return None if where is None else condition(where, _kinds(table))


def _computed(exceptions: TableExceptions) -> Iterator[tuple[str, str]]:
    yield from exceptions.set.items()
    if exceptions.on_leave == "mark" and exceptions.mark is not None:
        yield exceptions.mark, "false"


def _kinds(table: Table) -> dict[str, Kind]:
    return {c.name: c.kind for c in table.columns}


def problems(
    table: Table, known: Mapping[str, Table], placement: "Placement", translated: Sequence[str]
) -> Iterator[Finding]:
    """What is wrong with the table's exceptions, and what they let happen; translated: columns
    that hold other values here.
    """
    mine, name = of(table.full_name, placement), table.full_name
    at = f'exceptions."{name}"'
    texts = [("where", mine.where)] if mine.where is not None else []
    for key, text in [*texts, *((f"set.{n}", e) for n, e in _computed(mine))]:
        try:
            bound = (condition if key == "where" else bind)(text, _kinds(table))
        except Unfit as error:
            yield Finding(where=f"{at}.{key}", problem=str(error), fix="mend the expression")
            continue
        for column in sorted(bound.columns & set(translated)) if key != "where" else ():
            yield Finding(
                where=f"{at}.{key}",
                problem=f"reads {column}, whose values are other ones in the target",
                fix='leave it out, or set primary_keys = "copy"',
            )
    for key, names in (("rename", mine.rename), ("own", mine.own)):
        for column in names:
            if column not in table.by_name:
                fix = f"name a column of {name}"
                problem = f"names a column {column} that the table does not have"
                yield Finding(where=f"{at}.{key}", problem=problem, fix=fix)
    for column in table.identity:
        if column in mine.own or column in dict(_computed(mine)):
            yield Finding(
                where=f"{at}",
                problem=f"changes {column}, by which rows are found",
                fix=f"leave {column} as it is (it may be renamed)",
            )
    for reference in table.foreign_keys:
        child = table.by_name.get(reference.column)
        if reference.column in dict(_computed(mine)):
            yield Finding(
                where=f"{at}.set.{reference.column}",
                problem=f"computes a reference to {reference.parent}",
                fix="give the computed column another name",
            )
        if reference.parent not in known or child is None or child.nullable:
            continue
        if of(reference.parent, placement).where is not None:
            fix = f'filter {name} alike: exceptions."{name}".where, or let the column be NULL'
            if mine.ancestors:
                fix = (
                    "let the column be NULL, or raise parked_limit: until that row has been brought"
                )
            yield Finding(
                where=f"{name}.{reference.column}",
                problem=f"may reference a row of {reference.parent} that is not here, and "
                "cannot be NULL: such a row is parked",
                fix=fix,
                refused=False,
            )


def idle(known: Mapping[str, Table], placement: "Placement") -> Iterator[Finding]:
    """A warning for the exceptions of each table that is not captured: often a misspelt name."""
    for name in sorted(placement.exceptions.keys() - known.keys()):
        yield Finding(
            where=f'exceptions."{name}"',
            problem="is of no table that is captured",
            fix='write it as "schema.table" of the source (MySQL: "database.table")',
            refused=False,
        )
