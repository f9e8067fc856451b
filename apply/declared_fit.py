"""What is wrong with declared references (apply/declared.py), and which columns look like
references that nothing tells of: from descriptions alone.
"""

import re
from collections.abc import Iterator

from apply import exceptions
from apply.declared import Declared, declared
from apply.documents import steps
from apply.placement import own_key, wanted
from apply.references import Known, chosen_keys, is_same_kind, meaning, translated_keys
from apply.target import Placement
from schemas.finding import Finding
from schemas.table import Table

Why = tuple[str, str]
"""A problem, and what to do."""


def unusable(table: Table, known: Known, placement: Placement) -> Iterator[Finding]:
    """Why keys of several tables, or keys in documents, cannot be translated; what is declared of
    columns that are not there.
    """
    for key in declared(table, placement):
        if key.column not in table.by_name:
            why: Why | None = (
                "is declared in references, and the source's table has no such column",
                "mend the name there",
            )
        else:
            why = None if key.is_plain else _why(table, known, placement, key)
        if why is not None:
            yield Finding(where=f"{table.full_name}.{key.column}", problem=why[0], fix=why[1])
    for name in chosen_keys(table, known, placement):
        if name in table.identity:
            yield Finding(
                where=f"{table.full_name}.{name}",
                problem="is part of the identity, and holds keys that are other ones in the "
                "target: rows cannot be found by it",
                fix=f'add a column sync_id to {table.full_name}, or set primary_keys = "copy"',
            )


def _why(table: Table, known: Known, placement: Placement, key: Declared) -> Why | None:
    names = {c.name for c in wanted(table, placement)}
    if placement.primary_keys == "copy" or key.column not in names:
        return None
    parent, to = known.get(key.parent), f"{key.parent}.{key.parent_column}"
    if parent is None:
        fix = f'capture {key.parent}, or set primary_keys = "copy"'
        return f"references {key.parent}, not captured: its keys cannot be translated", fix
    theirs = meaning(parent, key.parent_column, known, placement)
    if theirs is None:
        fix = f"let {to} be copied (exclude_columns), or mend references"
        return f"references {to}, which is not copied: its values in the target are unknown", fix
    why = _why_not_in_documents if key.path is not None else _why_not_by_type
    return why(table, known, placement, key) or (
        _why_not_to(known[theirs[0]], placement) if theirs else None
    )


def _why_not_in_documents(
    table: Table, known: Known, placement: Placement, key: Declared
) -> Why | None:
    try:
        steps(str(key.path))
    except ValueError as error:
        return f"is declared with a path that cannot be read: {error}", "mend the path there"
    if table.by_name[key.column].kind.name not in ("json", "text"):
        return "is declared to hold documents, and is neither JSON nor text", "mend references"
    kind = known[key.parent].by_name[key.parent_column].kind.name
    if kind not in ("int", "text", "uuid"):
        problem = f"references {key.parent}.{key.parent_column} from documents, which is {kind}"
        return problem, "only whole numbers, texts and UUIDs are keys there: mend references"
    return None


def _why_not_by_type(table: Table, known: Known, placement: Placement, key: Declared) -> Why | None:
    name, to = str(key.by), f"{key.parent}.{key.parent_column}"
    column, own = table.by_name.get(name), exceptions.of(table.full_name, placement).own
    computed = exceptions.derived(table, placement)
    if not is_same_kind(table.by_name[key.column], known[key.parent].by_name[key.parent_column]):
        fix = "give both the same type at the source, or leave it out of references"
        return f"references {to}, which is of another type: its keys are written otherwise", fix
    if column is None or name not in {c.name for c in wanted(table, placement)}:
        return f"is told apart by {name}, which is no column that is copied", "mend references"
    if name in computed or name in own or column.kind.name not in ("text", "enum", "int"):
        problem = f"is told apart by {name}, whose values are the target's own, or neither texts"
        return f"{problem} nor whole numbers", "mend references"
    if name in (*translated_keys(table, known, placement), own_key(table, placement)):
        problem = f"is told apart by {name}, whose values are other ones in the target"
        return problem, f'let the table that {name} leads to keep its keys, or "copy"'
    return None


def _why_not_to(parent: Table, placement: Placement) -> Why | None:
    if len(parent.identity) > 1:
        problem = f"references {parent.full_name}, whose rows are identified by several columns"
        fix = f'identify {parent.full_name} by one column, or set primary_keys = "copy"'
        return f"{problem}: its keys cannot be translated", fix
    if exceptions.of(parent.full_name, placement).where is not None:
        problem = f"references {parent.full_name}, of which only some rows are here (exceptions)"
        return problem, f"take all rows of {parent.full_name}, or leave it out of references"
    return None


def idle(known: Known, placement: Placement) -> Iterator[Finding]:
    """A warning for what is declared of each table that is not captured: often a misspelt name."""
    for where in placement.references:
        if where.rpartition(".")[0] not in known:
            yield Finding(
                where=f'references "{where}"',
                problem="is of no table that is captured",
                fix='write it as "schema.table.column" of the source (MySQL: "database.table.…")',
                refused=False,
            )


def suspected(table: Table, known: Known, placement: Placement) -> Iterator[Finding]:
    """Columns that are named like a reference to a table with keys of the target's own, and that
    no foreign key and no configuration says anything of.
    """
    told = {*table.identity, own_key(table, placement)}
    told |= {key.column for key in (*table.foreign_keys, *declared(table, placement))}
    told |= {column for key in table.composite_keys for column in key.columns}
    for column in wanted(table, placement):
        found = _REFERENCE.fullmatch(column.name)
        if found is None or column.name in told:
            continue
        stem, where = found[1], f"{table.full_name}.{column.name}"
        local = [
            (parent, own)
            for parent in known.values()
            if (own := own_key(parent, placement)) is not None
            and is_same_kind(column, parent.by_name[own])
        ]
        if local and (by := _type_beside(table, stem)) is not None:
            yield Finding(
                where=where,
                problem=f"looks like a reference to several tables, of which {by} says which one: "
                "its values are copied, and are other rows' keys in the target",
                fix=f'if it is one: references = {{ "{where}" = {{ by = "{by}", to = {{ '
                '"its value" = "schema.table.column" } } } for this target',
                refused=False,
            )
            continue
        for parent, own in local:
            if not _is_named(parent, stem, of=table):
                continue
            to = f"{parent.full_name}.{own}"
            yield Finding(
                where=where,
                problem=f"looks like a reference to {to} and has no foreign key: its values "
                "are copied, and are other rows' keys in the target",
                fix=f'if it is one: references = {{ "{where}" = "{to}" }} for this target',
                refused=False,
            )


_REFERENCE = re.compile(r"(.+?)(?:_id|_ID|Id)")


def _type_beside(table: Table, stem: str) -> str | None:
    """The column that says, for each row, whose key the stem's column holds."""
    for name in (f"{stem}_type", f"{stem}Type", f"{stem}_TYPE"):
        if name in table.by_name and table.by_name[name].kind.name in ("text", "enum", "int"):
            return name
    return None


def _is_named(parent: Table, stem: str, *, of: Table) -> bool:
    """Whether the stem, or its last words (`billing_user`), name a table's thing, or its parent."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower().split("_")
    if words[-1] == "parent":
        return parent.full_name == of.full_name
    name = parent.name.lower()
    ends = ("_".join(words[at:]) for at in range(len(words)))
    return any(
        name in (end, f"{end}s", f"{end}es", f"{end.removesuffix('y')}ies") for end in ends if end
    )
