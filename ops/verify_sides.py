"""Both sides' rows in one form: canonical values in one column order, references as identities.

Invariant: a reference is compared as what it means (the parent's identity), never as the number
that happens to stand for it on one side.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from apply.target import Target
from capture.source import Chunk, Source
from ops.verify_looks import Looks, key_text
from schemas.canonical import canonical
from schemas.codec import ABSENT, Wire, after_of
from schemas.kinds import Kind
from schemas.table import Table

Form = Callable[[Any], Wire]


@dataclass(slots=True)
class Compared:
    """One table, the columns that the target has of it, and what was counted in the last look."""

    table: Table
    number: int
    parents: Mapping[str, Table]
    """By column: the parents of references that the target translates."""
    parent_kinds: Mapping[str, Kind] = field(default_factory=dict)
    """By column: the kind of the parent's identity, as the target compares it."""
    names: tuple[str, ...] = ()
    source_rows: int = 0
    target_rows: int = 0
    forms: dict[str, Form] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forms = {c.name: canonical(c.kind) for c in self.table.columns}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Source columns that are not compared."""
        return tuple(c.name for c in self.table.columns if c.name not in self.names)


def read_kinds(target: Target, compared: Compared) -> None:
    """Ask the target which columns it has, and how its values and its parents' compare."""
    kinds = target.kinds(compared.table)
    compared.names = tuple(kinds)
    compared.forms |= {name: canonical(kind) for name, kind in kinds.items()}
    compared.parent_kinds = {
        name: target.kinds(parent)[parent.identity[0]] for name, parent in compared.parents.items()
    }


def note_source(
    source: Source, looks: Looks, compared: Compared, chunk_rows: int, seen: Callable[[int], None]
) -> None:
    """Read the source's rows into this look."""
    compared.source_rows = 0
    identity = compared.table.identity
    for chunk in chunks(source, compared.table, chunk_rows):
        rows = [after_of(value) for value in chunk.values]
        forms = _forms(compared, _columns(rows, compared.names), _translate(looks, compared))
        keys = _keys(compared, _columns(rows, identity))
        looks.note(compared.number, "source", zip(keys, forms, strict=True))
        compared.source_rows += len(keys)
        seen(len(keys))


def note_target(
    target: Target, looks: Looks, compared: Compared, seen: Callable[[int], None]
) -> None:
    """Read the target's rows into this look; rows without an identity are its own business."""
    compared.target_rows = 0
    for names, block in target.rows(compared.table):
        columns = dict(zip(names, zip(*block, strict=True), strict=True)) if block else {}
        if not columns:
            continue
        forms = _forms(compared, columns, _same_identity(compared))
        keys = _keys(compared, columns)
        identities = zip(*(columns[n] for n in compared.table.identity), strict=True)
        rows = [
            pair
            for pair, identity in zip(zip(keys, forms, strict=True), identities, strict=True)
            if None not in identity
        ]
        looks.note(compared.number, "target", rows)
        compared.target_rows += len(rows)
        seen(len(rows))


def note_parents(
    source: Source, looks: Looks, parent: Table, identity: Kind, chunk_rows: int
) -> None:
    """Read which identity, of that kind, each of the parent's source keys has now."""
    form = canonical(parent.by_name[parent.primary_key[0]].kind)
    for chunk in chunks(source, parent, chunk_rows):
        pairs = zip(chunk.source_keys(), chunk.keys, strict=True)
        looks.note_parents(
            parent.full_name,
            ((str(form(k)), _identity_text(parent, identity, key)) for k, key in pairs),
        )


def chunks(source: Source, table: Table, limit: int) -> Iterator[Chunk]:
    """The whole table, chunk by chunk."""
    after: Any = None
    while True:
        chunk = source.chunk(table, after, limit, epoch=0, run=0)
        yield chunk
        after = chunk.next_key
        if after is None:
            return


def _columns(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row.get(name, ABSENT) for row in rows] for name in names}


def _keys(compared: Compared, columns: Mapping[str, Sequence[Any]]) -> list[str]:
    names = compared.table.identity
    values = [list(map(compared.forms[n], columns[n])) for n in names]
    return [key_text(names, row) for row in zip(*values, strict=True)]


def _forms(
    compared: Compared,
    columns: Mapping[str, Sequence[Any]],
    reference: Callable[[str, Table, Sequence[Any]], list[Wire]],
) -> list[list[Wire]]:
    """Rows of canonical values in the order of `names`; references as parents' identities."""
    values = [
        reference(n, compared.parents[n], columns[n])
        if n in compared.parents
        else list(map(compared.forms[n], columns[n]))
        for n in compared.names
    ]
    return [list(row) for row in zip(*values, strict=True)]


def _translate(
    looks: Looks, compared: Compared
) -> Callable[[str, Table, Sequence[Any]], list[Wire]]:
    def translated(name: str, parent: Table, values: Sequence[Any]) -> list[Wire]:
        form = compared.forms[name]
        keys = [None if v is None else str(form(v)) for v in values]
        known = looks.parents(parent.full_name, {k for k in keys if k is not None})
        # An unknown parent was made after its table was read: no target value equals this one.
        return [None if k is None else known.get(k, f"no parent {k}") for k in keys]

    return translated


def _same_identity(compared: Compared) -> Callable[[str, Table, Sequence[Any]], list[Wire]]:
    def same(name: str, parent: Table, values: Sequence[Any]) -> list[Wire]:
        kind = compared.parent_kinds[name]
        return [None if v is None else _identity_text(parent, kind, v) for v in values]

    return same


def _identity_text(parent: Table, kind: Kind, key: str | bytes) -> str:
    """A translated reference's parent has an identity of one column."""
    (name,) = parent.identity
    return key_text(parent.identity, [canonical(kind)(orjson.loads(key)[name])])
