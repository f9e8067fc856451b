"""Source table -> target table: where it lands and which columns are written; nothing here talks
to a server.
"""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

import sqlalchemy as sa

from apply.exceptions import derived
from apply.target import MissingParent, Placement
from schemas.conflict import ConflictRules, problems
from schemas.finding import Finding
from schemas.table import Column, Table


def lands_at(
    full_name: str, placement: Placement, schemas: Collection[str], default: str
) -> tuple[str, str]:
    """The target's schema and table name for a source's full name; `schemas`: those that the
    target has.
    """
    if full_name in placement.tables:
        schema, _, name = placement.tables[full_name].rpartition(".")
        return schema or default, name
    schema, _, name = full_name.partition(".")
    if schema in placement.schemas:
        return placement.schemas[schema], name
    return (schema if schema in schemas else default), name


def wanted(table: Table, placement: Placement) -> list[Column]:
    """The columns that this target takes, in the source's order; then those whose values are
    computed for it (apply/exceptions.py).
    """
    computed = derived(table, placement)
    return [
        c
        for c in table.columns
        if c.name not in computed
        and not any(
            fnmatchcase(f"{table.full_name}.{c.name}", p) for p in placement.exclude_columns
        )
    ] + [Column(name=name, kind=e.kind, nullable=True) for name, e in computed.items()]


def indexed(table: Table) -> set[str]:
    """Columns under a key of the source: where an index limits a text's length, so may its
    column.
    """
    keys = (table.identity, table.primary_key, *table.uniques)
    return {name for key in keys for name in key} | {key.column for key in table.foreign_keys}


def own_key(table: Table, placement: Placement) -> str | None:
    """The primary key column whose values belong to the target; None where the source's are kept.

    Only a single column that is neither the identity nor itself a foreign key: the columns of
    composite keys, and keys shared with a parent, are data like any other. With a referee it is the
    identity, too: the log has the source's value, the target's rows have their own.
    """
    if placement.primary_keys == "copy" or len(table.primary_key) != 1:
        return None
    (name,) = table.primary_key
    if any(f.column == name for f in table.foreign_keys):
        return None
    if any(name in f.columns for f in table.composite_keys):
        return None
    if f"{table.full_name}.{name}" in placement.references:
        return None
    is_identity = table.identity == table.primary_key
    return None if is_identity and not has_referee(table, placement) else name


def has_referee(table: Table, placement: Placement) -> bool:
    """Whether the table's rows are found through headwater_referee (apply/referee.py)."""
    return any(fnmatchcase(table.full_name, pattern) for pattern in placement.referees)


def conflict_rules(table: Table, placement: Placement) -> ConflictRules | None:
    """What is done with rows of the table that were changed in the target too; None: nothing is
    looked for.
    """
    for pattern, rules in placement.conflicts.items():
        if fnmatchcase(table.full_name, pattern):
            return rules
    return None


def conflict_problems(
    table: Table,
    placement: Placement,
    at: str,
    own: str | None,
    uniques: Iterable[tuple[str, ...]],
) -> list[Finding]:
    """What the table's conflict rules cannot mean; at: where it lands, own: see `own_key`; uniques:
    the keys that it has there.
    """
    rules = conflict_rules(table, placement)
    out = {own, *table.identity}
    kinds = {c.name: c.kind for c in wanted(table, placement) if c.name not in out}
    fix = f"mend conflicts for {table.full_name}"
    if rules is None:
        return []
    found = problems(rules, kinds)
    for where, keys in (("", uniques), (" in the source", table.uniques)):
        if rules.same_by and set(rules.same_by) not in map(set, keys):
            key = ", ".join(rules.same_by)
            found.append(("", f"has no unique key ({key}){where}, as same_by needs"))
    if rules.same_by and (own in table.identity or len(table.identity) > 1):
        found.append(("", "cannot have same_by: its identity is several columns, or a referee's"))
    return [
        Finding(where=f"{at}.{name}" if name else at, problem=why, fix=fix) for name, why in found
    ]


def missing_parent(table: Table, column: str, placement: Placement) -> MissingParent:
    """What becomes of a row whose parent by this reference is not there."""
    name = f"{table.full_name}.{column}"
    found = (p for pattern, p in placement.missing_parents.items() if fnmatchcase(name, pattern))
    return next(found, "park")


def waiting_problems(
    table: Table, placement: Placement, at: str, target: sa.Table
) -> list[Finding]:
    """References that are to be NULL for a while, and cannot be."""
    return [
        Finding(
            where=f"{at}.{key.column}",
            problem="cannot be NULL until its parent comes (null_then_fix)",
            fix=f"let the column be NULL in the target, or park: missing_parents for {at}",
        )
        for key in table.foreign_keys
        if missing_parent(table, key.column, placement) == "null_then_fix"
        and key.column in target.c
        and not target.c[key.column].nullable
    ]
