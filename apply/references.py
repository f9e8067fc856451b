"""Which foreign keys are translated, and which cannot be followed: from descriptions alone.

A value means what it means at the source only where it is copied. A primary key of the target's own
and a translated reference are other numbers there, so a reference to one of them must be translated
to it or is refused: copied, it would point at somebody else's row.
"""

from collections.abc import Iterator, Mapping

from apply.placement import own_key, wanted
from apply.target import Placement
from schemas.finding import Finding
from schemas.table import Column, ForeignKey, Table

Known = Mapping[str, Table]
"""The newest descriptions by full name."""


def translated_keys(table: Table, known: Known, placement: Placement) -> dict[str, ForeignKey]:
    """The foreign keys whose column takes the parent's local key, by column."""
    return {
        key.column: key
        for key in table.foreign_keys
        if key.parent in known and own_key(known[key.parent], placement) == key.parent_column
    }


def untranslatable(table: Table, known: Known, placement: Placement) -> list[Finding]:
    """Every reference of the table that would point elsewhere, and an identity that would find
    other rows.
    """
    translated = translated_keys(table, known, placement)
    found = [
        Finding(
            where=f"{table.full_name}.{name}",
            problem=f"is part of the identity, and references {_parent(translated[name])}, which "
            "has other values in the target: rows cannot be found by it",
            fix=f'add a column sync_id to {table.full_name}, or set primary_keys = "copy"',
        )
        for name in table.identity
        if name in translated
    ]
    return found + list(_unfollowed(table, known, placement))


def _unfollowed(table: Table, known: Known, placement: Placement) -> Iterator[Finding]:
    names = {c.name for c in wanted(table, placement)}
    translated = translated_keys(table, known, placement)
    singles = [((f.column,), f.parent, (f.parent_column,)) for f in table.foreign_keys]
    composites = [(f.columns, f.parent, f.parent_columns) for f in table.composite_keys]
    for columns, parent_name, parent_columns in singles + composites:
        parent = known.get(parent_name)
        for column, parent_column in zip(columns, parent_columns, strict=True):
            where = f"{table.full_name}.{column}"
            exclude = f'exclude "{where}" for this target'
            if column not in names:
                continue
            if parent is None and placement.primary_keys == "local":
                yield Finding(
                    where=where,
                    problem=f"references {parent_name}, not captured: its keys cannot be "
                    "translated",
                    fix=f'capture {parent_name}, exclude the column, or set primary_keys = "copy"',
                )
            if parent is None:
                continue
            to = f"{parent_name}.{parent_column}"
            theirs = _meaning(parent, parent_column, known, placement)
            if theirs is None:
                yield Finding(
                    where=where,
                    problem=f"references {to}, which is not copied: its values in the target are "
                    "unknown",
                    fix=f"let {to} be copied (exclude_columns), or {exclude}",
                )
            elif _meaning(table, column, known, placement) != theirs:
                yield Finding(
                    where=where,
                    problem=f"references {to}, which has other values in the target than in the "
                    "source",
                    fix=f'set primary_keys = "copy", or {exclude}',
                )
            elif theirs and not _is_same_kind(table.by_name[column], parent.by_name[parent_column]):
                yield Finding(
                    where=where,
                    problem=f"references {to}, which is of another type: its keys are written in "
                    "another way and cannot be translated",
                    fix=f'give both the same type at the source, set primary_keys = "copy", or '
                    f"{exclude}",
                )
            elif len(columns) == 1 and column in translated and to != _parent(translated[column]):
                yield Finding(
                    where=where,
                    problem=f"references both {to} and {_parent(translated[column])}: it can be "
                    "translated to one of them only",
                    fix=f'set primary_keys = "copy", or {exclude}',
                )


def _meaning(
    table: Table, column: str, known: Known, placement: Placement
) -> tuple[str, str] | tuple[()] | None:
    """Whose local key the column holds in the target; () where it holds the source's values; None
    where the source's rows do not fill it.
    """
    if column not in table.by_name:
        return None
    if own_key(table, placement) == column:
        return table.full_name, column
    if column not in {c.name for c in wanted(table, placement)}:
        return None
    key = translated_keys(table, known, placement).get(column)
    return (key.parent, key.parent_column) if key is not None else ()


def _is_same_kind(one: Column, other: Column) -> bool:
    """Whether equal values of both are written alike, as keys are compared by their text."""
    a, b = one.kind, other.kind
    is_alike = a.name == b.name or {a.name, b.name} <= {"text", "enum"}
    return is_alike and (a.name == "int" or (a.scale, a.fraction) == (b.scale, b.fraction))


def _parent(key: ForeignKey) -> str:
    return f"{key.parent}.{key.parent_column}"
