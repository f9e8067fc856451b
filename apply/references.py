"""Which foreign keys are translated, and which cannot be followed: from descriptions alone.

A value means what it means at the source only where it is copied. A primary key of the target's own
and a translated reference are other numbers there, so a reference to one of them must be translated
to it or is refused: copied, it would point at somebody else's row.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from apply.placement import own_key, wanted
from apply.target import Placement
from schemas.finding import Finding
from schemas.table import Column, ForeignKey, Table

Known = Mapping[str, Table]
"""The newest descriptions by full name."""


def translated_keys(table: Table, known: Known, placement: Placement) -> dict[str, ForeignKey]:
    """The columns that take a local key, each as a reference to the table whose key it is.

    That is the parent, or where the parent's column is such a reference itself (a key shared with
    its parent, a unique `user_id`), whoever that leads to. A composite key may be what leads there.
    """
    found = {}
    for key in _by_column(table, placement):
        if (root := _root(key.parent, key.parent_column, known, placement)) is not None:
            parent, parent_column = root
            if (parent, parent_column) != (key.parent, key.parent_column):
                key = replace(key, on_delete="NO ACTION")  # that is the nearer parent's
            found[key.column] = replace(key, parent=parent, parent_column=parent_column)
    return found


def followed(table: Table, known: Known, placement: Placement) -> list[ForeignKey]:
    """The references whose parents must be there before a row: those that are translated first."""
    translated = list(translated_keys(table, known, placement).values())
    places = {(key.column, key.parent, key.parent_column) for key in translated}
    straight = (*table.foreign_keys, *_declared(table, placement))
    others = (k for k in straight if (k.column, k.parent, k.parent_column) not in places)
    return [*translated, *others]


def _declared(table: Table, placement: Placement) -> Iterator[ForeignKey]:
    """The references that configuration tells of."""
    for where, to in placement.references.items():
        (name, _, column), (parent, _, parent_column) = where.rpartition("."), to.rpartition(".")
        if name == table.full_name:
            yield ForeignKey(column=column, parent=parent, parent_column=parent_column)


def _by_column(table: Table, placement: Placement) -> Iterator[ForeignKey]:
    """Foreign keys as references of one column; what a single-column key says of it comes last."""
    for whole in table.composite_keys:
        for column, parent_column in zip(whole.columns, whole.parent_columns, strict=True):
            yield ForeignKey(column=column, parent=whole.parent, parent_column=parent_column)
    yield from table.foreign_keys
    yield from _declared(table, placement)


def _root(
    parent: str,
    column: str,
    known: Known,
    placement: Placement,
    above: frozenset[tuple[str, str]] = frozenset(),
) -> tuple[str, str] | None:
    """The table and primary key whose local values the parent's column holds; None: none's."""
    if parent not in known or (parent, column) in above:
        return None
    if own_key(known[parent], placement) == column:
        return parent, column
    for key in _by_column(known[parent], placement):
        if key.column == column:
            above |= {(parent, column)}
            root = _root(key.parent, key.parent_column, known, placement, above)
            if root is not None:
                return root
    return None


def untranslatable(table: Table, known: Known, placement: Placement) -> list[Finding]:
    """Every reference of the table that would point elsewhere, and an identity that would find
    other rows.
    """
    translated = translated_keys(table, known, placement)
    names = {c.name for c in wanted(table, placement)}
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
    found += [
        Finding(
            where=f"{table.full_name}.{name}",
            problem=f"references {_parent(key)}, whose rows are identified by several columns "
            f"({', '.join(known[key.parent].identity)}): its keys cannot be translated",
            fix=f"identify {key.parent} by one column (sync_id, or a unique one), set "
            f'primary_keys = "copy", or exclude "{table.full_name}.{name}" for this target',
        )
        for name, key in translated.items()
        if len(known[key.parent].identity) > 1 and name in names
    ]
    return found + list(_unfollowed(table, known, placement))


def _unfollowed(table: Table, known: Known, placement: Placement) -> Iterator[Finding]:
    names = {c.name for c in wanted(table, placement)}
    straight = (*table.foreign_keys, *_declared(table, placement))
    singles = [((f.column,), f.parent, (f.parent_column,)) for f in straight]
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


def suspected(table: Table, known: Known, placement: Placement) -> Iterator[Finding]:
    """Columns that are named like a reference to a table with keys of the target's own, and that
    no foreign key and no configuration says anything of; and declarations of what is not there.
    """
    told = {key.column for key in _by_column(table, placement)} | {*table.identity}
    for column in wanted(table, placement):
        found = _REFERENCE.fullmatch(column.name)
        if found is None or column.name in told or column.name == own_key(table, placement):
            continue
        for parent in known.values():
            own = own_key(parent, placement)
            if own is None or not _is_named(parent.name.lower(), found[1].lower()):
                continue
            if _is_same_kind(column, parent.by_name[own]):
                where, to = f"{table.full_name}.{column.name}", f"{parent.full_name}.{own}"
                yield Finding(
                    where=where,
                    problem=f"looks like a reference to {to} and has no foreign key: its values "
                    "are copied, and are other rows' keys in the target",
                    fix=f'if it is one: references = {{ "{where}" = "{to}" }} for this target',
                    refused=False,
                )
    for key in _declared(table, placement):
        if key.column not in table.by_name:
            yield Finding(
                where=f"{table.full_name}.{key.column}",
                problem="is declared in references, and the source's table has no such column",
                fix="mend the name there",
            )


_REFERENCE = re.compile(r"(.+?)(?:_id|_ID|Id)")


def _is_named(table: str, stem: str) -> bool:
    """Whether the table is named for that thing, or many of it."""
    return table in (stem, f"{stem}s", f"{stem}es", f"{stem.removesuffix('y')}ies")


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
