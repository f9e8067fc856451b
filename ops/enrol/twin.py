"""Twins: a table that both databases have, and by which keys their rows are matched.

What is decided here is decided once, before any row is read; nothing here talks to a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from apply.exceptions import name_here, of
from apply.pairs import Paired, partner
from apply.placement import has_referee, own_key, wanted
from apply.references import translated_columns
from apply.target import Placement
from ops.enrol.rules import Step
from schemas.errors import Misconfigured, SchemaConflict
from schemas.selection import Derived, Selection
from schemas.table import SYNC_ID, Table, parents_first


@dataclass(frozen=True, slots=True, kw_only=True)
class Likely:
    """What is compared where no key decides. compare: columns and their method (likely.METHODS);
    at_least: probability from which on two rows are partners; margin: by how much any other pair of
    theirs has to be less probable.
    """

    block: Sequence[str]
    compare: Mapping[str, str]
    at_least: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What the configuration says of one table: key lists, tried in order, each column's steps, and
    what is compared after all keys.
    """

    keys: Sequence[Sequence[str]]
    steps: Mapping[str, Sequence[Step]]
    likely: Likely | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One natural key: columns compared as texts, and references compared by their parents'
    matches. likely: equal keys are only a block, in which rows are compared.
    """

    plain: tuple[str, ...]
    parents: tuple[str, ...]
    likely: Likely | None = None

    @property
    def text(self) -> str:
        """The rule as people read it."""
        key = " + ".join((*self.parents, *self.plain))
        return key if self.likely is None else f"likely ({key}; {', '.join(self.likely.compare)})"

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns whose texts must still be what they were when the match was made."""
        return (*self.parents, *(self.likely.compare if self.likely is not None else ()))


@dataclass(frozen=True, slots=True)
class Parent:
    """A reference to another twin's own key: by number, and which of its columns."""

    number: int
    column: str


@dataclass(kw_only=True)
class Twin:
    """One table on both sides; target: None where it is not there yet.

    number: parents have smaller ones, cycles aside. linked: columns whose texts are kept, because
    they refer to a parent or a child refers to them. compared: columns whose differences count.
    renamed: what columns are called in the target. All other names are the source's.

    sync: the column of the ids. paired: in its place, where neither side may get one, a row's id is
    the source's primary key, and in the target that of its pair; partner: that pair's, as a column,
    None where the target has no pairs yet.
    """

    number: int
    table: Table
    sync: str
    source: sa.Table
    target: sa.Table | None
    rules: Sequence[Rule] = ()
    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    parents: Mapping[str, Parent] = field(default_factory=dict)
    linked: Sequence[str] = ()
    compared: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    paired: Paired | None = None
    partner: Any = None

    @property
    def is_ready(self) -> bool:
        """Whether rows of the target can have an id."""
        if self.target is None:
            return False
        return self.sync in self.target.c if self.paired is None else self.partner is not None

    @property
    def name(self) -> str:
        """The source's full name for it."""
        return self.table.full_name

    @property
    def columns(self) -> list[str]:
        """Every column that is read beside keys and ids, each once."""
        keys = [c for rule in self.rules for c in rule.plain]
        return list(dict.fromkeys([*keys, *self.linked, *self.compared]))

    def column(self, role: str, name: str) -> sa.Column[Any] | None:
        """The column of that name of the source, on one side; None where it is not there."""
        if role == "target":
            name = self.renamed.get(name, name)
        return self.side(role).c.get(name)

    def side(self, role: str) -> sa.Table:
        """The table in the "source" or in the "target"."""
        found = self.source if role == "source" else self.target
        assert found is not None, "asked only of tables that are there"
        return found


def enrolled(tables: Sequence[Table], selection: Selection, placement: Placement) -> dict[str, str]:
    """By full name, parents first, the tables whose rows have an id and its column's name (of a
    derived one the target's alone); those that are identified by their primary key are among them
    where there is a referee, by several columns never.
    """
    found = {}
    for table in parents_first(tables):
        sync = selection.identity_wanted(table.full_name)
        if isinstance(sync, Derived):
            sync = SYNC_ID
        elif sync == "primary_key" and has_referee(table, placement):
            sync = table.primary_key[0] if len(table.primary_key) == 1 else sync
        if isinstance(sync, str) and sync != "primary_key":
            found[table.full_name] = sync
    return found


def twins(
    tables: Sequence[Table],
    selection: Selection,
    placement: Placement,
    matches: Mapping[str, Match],
    sources: Mapping[str, sa.Table],
    targets: Mapping[str, sa.Table | None],
    source: str,
    *,
    has_pairs: bool,
) -> list[Twin]:
    """Every table that is to be enrolled, parents first; sources, targets: reflected, by full name.
    source: what the configuration calls it; has_pairs: whether the target has a table of pairs.

    Raises Misconfigured for rules that name what is not there, SchemaConflict for tables whose rows
    cannot be named or whose key holds a parent that is matched later.
    """
    ids = enrolled(tables, selection, placement)
    named = {n: replace(t, identity=(ids[n],)) if n in ids else t
             for n, t in ((t.full_name, t) for t in tables)}  # fmt: skip
    for name in matches:
        if name not in ids:
            raise Misconfigured(
                f"found match.{name} for a table that is not enrolled",
                hint=f"tables that have ids: {', '.join(ids) or 'none'}",
            )
    made: list[Twin] = []
    numbers = {name: number for number, name in enumerate(ids)}
    for name, sync in ids.items():
        table, target = named[name], targets[name]
        parents = _parents(table, numbers, named, placement, target)
        twin = Twin(
            number=numbers[name],
            table=table,
            sync=sync,
            source=sources[name],
            target=target,
            parents=parents,
        )
        for role in ("source", "target") if target is not None else ("source",):
            if not twin.side(role).primary_key.columns:
                raise SchemaConflict(
                    f"found no primary key on {name} in the {role}, so its rows cannot be named",
                    hint=f"give it one, or exclude {name} from the capture",
                )
        if target is not None:
            if has_referee(table, placement):
                key = next(iter(target.primary_key.columns))
                twin.paired = Paired(source, name, key, placement.shared is not None)
                twin.partner = partner(twin.paired) if has_pairs else None
            exceptions = of(name, placement)
            twin.renamed = exceptions.rename
            match = matches.get(name)
            own = own_key(table, placement)
            twin.rules = [_rule(twin, key, own, numbers) for key in match.keys] if match else []
            if match and match.likely:
                twin.rules = [*twin.rules, _likely(twin, match.likely, own, numbers)]
            twin.steps = match.steps if match else {}
            others = translated_columns(table, named, placement)
            left_out = {sync, own, *parents, *exceptions.own, *others}
            twin.compared = [
                c.name
                for c in wanted(table, placement)
                if c.name in table.by_name
                and c.name not in left_out
                and twin.column("target", c.name) is not None
            ]
        made.append(twin)
    for twin in made:
        asked = [p.column for other in made for p in other.parents.values() if
                 p.number == twin.number]  # fmt: skip
        held = [c for rule in twin.rules for c in rule.kept]
        twin.linked = list(dict.fromkeys([*twin.parents, *asked, *held]))
    return made


def _parents(
    table: Table,
    numbers: Mapping[str, int],
    named: Mapping[str, Table],
    placement: Placement,
    target: sa.Table | None,
) -> dict[str, Parent]:
    """References by which a row means another one here than there: to a parent's own key."""
    found = {}
    for key in table.foreign_keys:
        parent = named.get(key.parent)
        if parent is None or key.parent not in numbers or target is None:
            continue
        here = name_here(table.full_name, key.column, placement)
        if here in target.c and key.parent_column == own_key(parent, placement):
            found[key.column] = Parent(numbers[key.parent], key.parent_column)
    return found


def _rule(twin: Twin, key: Sequence[str], own: str | None, numbers: Mapping[str, int]) -> Rule:
    names = {number: name for name, number in numbers.items()}
    for column in key:
        if column not in twin.table.by_name or twin.column("target", column) is None:
            raise Misconfigured(
                f"found no column {column} of {twin.name} on both sides, which a match key names",
                hint=f"columns of the source: {', '.join(twin.table.by_name)}",
            )
        if column in (twin.sync, own):
            raise Misconfigured(
                f"found {column} in a match key of {twin.name}, whose values differ from database "
                "to database",
                hint="name columns that mean the same on both sides: headwater enrol matches by "
                "those",
            )
        parent = twin.parents.get(column)
        if parent is not None and parent.number >= twin.number:
            raise SchemaConflict(
                f"found {twin.name}.{column} in a match key, whose parent {names[parent.number]} "
                "is matched no earlier",
                hint="leave the column out of the key: its table refers to itself, or in a circle",
            )
    return Rule(
        plain=tuple(c for c in key if c not in twin.parents),
        parents=tuple(c for c in key if c in twin.parents),
    )


def _likely(twin: Twin, likely: Likely, own: str | None, numbers: Mapping[str, int]) -> Rule:
    block = _rule(twin, likely.block, own, numbers)
    references = _rule(twin, list(likely.compare), own, numbers).parents
    if references:
        raise Misconfigured(
            f"found the reference {twin.name}.{references[0]} in likely.compare, whose values have "
            "no likeness",
            hint="name it in likely.block: then its parents' matches are compared",
        )
    return replace(block, likely=likely)
