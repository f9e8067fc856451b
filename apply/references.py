"""Which references are translated, and which foreign keys cannot be followed: from descriptions
alone.

A value means what it means at the source only where it is copied. A primary key of the target's own
and a translated reference are other numbers there, so a reference to one of them must be translated
to it or is refused: copied, it would point at somebody else's row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from apply import exceptions
from apply.declared import Declared, declared
from apply.placement import has_referee, own_key, wanted
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


def chosen_keys(table: Table, known: Known, placement: Placement) -> dict[str, list[Declared]]:
    """By column that says for each row which table's keys it holds, or holds keys in documents: the
    tables whose local keys it takes, and with them those whose keys are the same here. Not columns
    that take no local key: their values are copied.
    """
    found: dict[str, list[Declared]] = {}
    for key in declared(table, placement):
        if not key.is_plain:
            root = _root(key.parent, key.parent_column, known, placement)
            kept = replace(key, is_kept=True)
            mine = replace(key, parent=root[0], parent_column=root[1]) if root else kept
            found.setdefault(key.column, []).append(mine)
    return {
        column: [key for key in keys if key.by or not key.is_kept]
        for column, keys in found.items()
        if not all(key.is_kept for key in keys)
    }


def translated_columns(table: Table, known: Known, placement: Placement) -> list[str]:
    """The columns whose values are other ones in the target, its own key aside."""
    return [
        *translated_keys(table, known, placement),
        *chosen_keys(table, known, placement),
    ]


def leads_to(table: Table, known: Known, placement: Placement) -> set[str]:
    """The tables whose local keys a table takes."""
    chosen = chosen_keys(table, known, placement).values()
    every = [*translated_keys(table, known, placement).values(), *(k for ks in chosen for k in ks)]
    return {key.parent for key in every if not (isinstance(key, Declared) and key.is_kept)}


def followed(table: Table, known: Known, placement: Placement) -> list[ForeignKey]:
    """The references whose parents must be there before a row: those that are translated first."""
    translated = list(translated_keys(table, known, placement).values())
    places = {(key.column, key.parent, key.parent_column) for key in translated}
    straight = (*table.foreign_keys, *_plain(table, placement))
    others = (k for k in straight if (k.column, k.parent, k.parent_column) not in places)
    chosen = chosen_keys(table, known, placement).values()
    return [*translated, *(key for keys in chosen for key in keys), *others]


def _plain(table: Table, placement: Placement) -> Iterator[ForeignKey]:
    """The references that are declared like foreign keys."""
    return (key for key in declared(table, placement) if key.is_plain)


def with_ancestors(known: Known, placement: Placement) -> list[str]:
    """The tables whose rows' parents are here too: those configured so, and all above them."""
    found = [name for name in known if exceptions.of(name, placement).ancestors]
    for name in found:
        parents = {key.parent for key in followed(known[name], known, placement)}
        found += sorted(parents & known.keys() - {*found})
    return found


def without_ancestors(table: Table, known: Known, placement: Placement) -> Iterator[Finding]:
    """The parents of a table's rows that are to be brought and cannot be."""
    if table.full_name not in with_ancestors(known, placement):
        return
    translated = translated_keys(table, known, placement)
    for key in followed(table, known, placement):
        parent = known.get(key.parent)
        if parent is None or exceptions.of(key.parent, placement).where is None:
            continue
        if key.column not in translated or has_referee(parent, placement):
            yield Finding(
                where=f"{table.full_name}.{key.column}",
                problem=f"leads to rows of {key.parent} that cannot be brought as ancestors: only "
                "a translated reference to rows found by their identity can be followed",
                fix='leave ancestors out, or set primary_keys = "local" and an identity',
            )


def _by_column(table: Table, placement: Placement) -> Iterator[ForeignKey]:
    """Foreign keys as references of one column; what a single-column key says of it comes last."""
    for whole in table.composite_keys:
        for column, parent_column in zip(whole.columns, whole.parent_columns, strict=True):
            yield ForeignKey(column=column, parent=whole.parent, parent_column=parent_column)
    yield from table.foreign_keys
    yield from _plain(table, placement)


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
    straight = (*table.foreign_keys, *_plain(table, placement))
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
            theirs = meaning(parent, parent_column, known, placement)
            if theirs is None:
                yield Finding(
                    where=where,
                    problem=f"references {to}, which is not copied: its values in the target are "
                    "unknown",
                    fix=f"let {to} be copied (exclude_columns), or {exclude}",
                )
            elif meaning(table, column, known, placement) != theirs:
                yield Finding(
                    where=where,
                    problem=f"references {to}, which has other values in the target than in the "
                    "source",
                    fix=f'set primary_keys = "copy", or {exclude}',
                )
            elif theirs and not is_same_kind(table.by_name[column], parent.by_name[parent_column]):
                yield Finding(
                    where=where,
                    problem=f"references {to}, which is of another type: its keys are written in "
                    "another way and cannot be translated",
                    fix=f'give both the same type at the source, set primary_keys = "copy", or '
                    f"{exclude}",
                )


def meaning(
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


def is_same_kind(one: Column, other: Column) -> bool:
    """Whether equal values of both are written alike, as keys are compared by their text."""
    a, b = one.kind, other.kind
    is_alike = a.name == b.name or {a.name, b.name} <= {"text", "enum"}
    return is_alike and (a.name == "int" or (a.scale, a.fraction) == (b.scale, b.fraction))


def _parent(key: ForeignKey) -> str:
    return f"{key.parent}.{key.parent_column}"
