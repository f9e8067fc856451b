"""How one described table is written to one target table: columns, keys, references, staging
tables.

A plan holds no rows and no connection; it is made once per description and thrown away when the
target's tables change.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson
import sqlalchemy as sa

from apply.documents import Steps, Unreadable, keys
from apply.fields import NATIVE, Fields
from apply.own import KEY_LENGTH, name_type, text_type
from apply.view import View
from schemas.codec import ABSENT
from schemas.conflict import ConflictRules
from schemas.kinds import Kind
from schemas.native import load
from schemas.table import Table

ORDINAL, SET, HOLD = "hw_ordinal", "hw_set", "hw_hold"

SOURCE_KEY = "hw_source_key"
"""The staging column of the source's key where rows are found through headwater_referee."""

NEW = -1
"""In SET: a whole row that was new to the source; other whole rows have 0, partial ones more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A source column that is written: the target's column, and how values become fields."""

    name: str
    column: sa.Column[Any]
    kind: Kind
    family: str
    fields: Fields
    once: bool = False
    """Written when a row is inserted, and then the target's own: not updated, not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A single-column foreign key of the source, or a declared one, between planned tables.

    by, value: it is one of the rows whose column `by` holds that value; steps: of the keys at that
    path of the column's documents. Several such are one column's; nth: among those. is_kept: the
    parent's keys are the same here.

    translated: the column gets the parent's local key. late: the parent may come after the child
    (itself, a cycle), so rows are inserted without it. parent is None where it was never described.
    waits: where the parent is not there, the reference is NULL until it is. placeholder: a row is
    made that stands for it. on_delete: the source's
    action.
    """

    column: str
    parent_name: str
    parent: sa.Table | None
    parent_key: str
    parent_identity: str
    identity_kind: Kind
    """What the parent's identity is at the source."""
    translated: bool
    late: bool
    nullable: bool
    waits: bool = False
    placeholder: bool = False
    on_delete: str = "NO ACTION"
    brings: bool = False
    """Whether the parent is here for the row, whatever its own table's condition says."""
    named: Fields | None = None
    """How the text of the parent's identity is staged; None where that is not done."""
    key_kind: Kind | None = None
    """What the parent's key is at the source, where the column may hold several tables' keys."""
    by: str | None = None
    value: str | None = None
    steps: Steps | None = None
    nth: int = 0
    is_kept: bool = False

    @property
    def is_chosen(self) -> bool:
        """Whether a row's own values say that the reference is one, or where: it is declared."""
        return self.by is not None or self.steps is not None

    @property
    def is_refereed(self) -> bool:
        """Whether the parent's rows are found through headwater_referee."""
        return self.translated and self.parent_identity == self.parent_key and not self.is_kept

    def is_of(self, image: Mapping[str, Any]) -> bool:
        """Whether it is a reference of that row."""
        told = None if self.by is None else image.get(self.by)
        return self.by is None or (told is not None and str(told) == self.value)

    def keys_in(self, image: Mapping[str, Any]) -> list[str]:
        """The parent's keys at the source that a row holds; none in what is no document."""
        value = image.get(self.column, ABSENT)
        if value is None or value is ABSENT or self.is_kept or not self.is_of(image):
            return []
        if self.steps is not None:
            try:
                return [found.key for found in keys(str(value), self.steps)]
            except Unreadable:
                return []
        return [str(value)]

    def may_be(self, key: str) -> bool:
        """Whether a text that was found in a document may be a key that is kept here."""
        if self.is_refereed:
            return re.fullmatch(r"-?[0-9]{1,18}", key) is not None
        return len(key) <= KEY_LENGTH

    @property
    def source_key(self) -> str:
        """The staging column of the source's value, as text."""
        return f"hw_k_{self.column}"

    @property
    def identity(self) -> str:
        """The staging column of the parent's identity."""
        return f"hw_i_{self.column}_{self.nth}" if self.nth else f"hw_i_{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A foreign key of the target that points at a planned table, from any table of the target."""

    child: sa.Table
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    by: tuple[str, str] | None = None
    """The column, and its value, where a declared reference is one."""


@dataclass(kw_only=True)
class Plan:
    """One table's plan; `number` names its staging tables, `rank` orders parents before
    children.
    """

    number: int
    rank: int
    source: Table
    target: sa.Table
    taken: Sequence[Taken]
    own_key: str | None
    links: Sequence[Link]
    references: Sequence[Reference]
    uniques: Sequence[tuple[str, ...]]
    is_guarded: bool
    """The target refuses a second row of one identity at once, not only at commit."""
    links_here: Sequence[Reference] = ()
    """The links of planned tables to this one, also where the target has no foreign key; but those
    in documents.
    """
    is_in_documents: bool = False
    """Whether documents hold keys of the table."""
    source_name: str = ""
    is_tracked: bool = False
    conflicts: ConflictRules | None = None
    view: View | None = None
    """How the table's rows are seen here, where not as they are (apply/exceptions.py)."""
    sets: list[frozenset[str]] = field(default_factory=list)
    """The column sets of partial rows met so far; set 0 is every column."""

    def __post_init__(self) -> None:
        self.sets.append(frozenset(t.name for t in self.taken))

    @property
    def all_references(self) -> list[Reference]:
        """By foreign keys of the target, and by links."""
        every = (*self.references, *self.links_here)
        return list({(r.child.fullname, r.columns, r.by): r for r in every}.values())

    @property
    def name(self) -> str:
        """The source table's full name."""
        return self.source.full_name

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The columns that find a row."""
        return self.source.identity

    @property
    def has_condition(self) -> bool:
        """Whether only rows that meet a condition are here."""
        return self.view is not None and self.view.where is not None

    @property
    def is_refereed(self) -> bool:
        """Whether rows are found through headwater_referee: the identity is the target's own key,
        and the source's is staged beside it.
        """
        return self.identity == (self.own_key,)

    def staged_name(self, name: str) -> str:
        """The column in which an identity's value is staged as the log has it."""
        return SOURCE_KEY if self.is_refereed else name

    @cached_property
    def identity_kind(self) -> Kind:
        """What an identity of one column is at the source."""
        return self.source.by_name[self.identity[0]].kind

    @cached_property
    def is_of_any_case(self) -> bool:
        """Whether texts that differ in case alone are one identity here: UUIDs."""
        taken = self.by_name.get(self.identity[0])
        if taken is None or len(self.identity) > 1:
            return False
        return taken.kind.name == "text" and taken.family in ("uuid", "binary")

    def one_case(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Wire keys as they are the same here."""
        if not self.is_of_any_case or b"".join(keys).islower():
            return keys
        start = len(orjson.dumps(self.identity[0])) + 2
        return [key[:start] + key[start:].lower() for key in keys]

    @cached_property
    def by_name(self) -> dict[str, Taken]:
        """Taken columns by name."""
        return {t.name: t for t in self.taken}

    @cached_property
    def translated(self) -> dict[str, Link]:
        """Links whose column is translated, by column; of several the first."""
        return {k.column: k for k in self.links if k.translated and k.nth == 0}

    @cached_property
    def chosen(self) -> Sequence[Link]:
        """Links that are references of some rows only, or of keys in documents."""
        return [link for link in self.links if link.is_chosen]

    def undeclared(self, image: Mapping[str, Any]) -> str | None:
        """The column of that row whose key is of a table that no reference tells of."""
        told: dict[str, bool] = {}
        for link in self.chosen:
            if link.by is not None and image.get(link.column) is not None:
                told[link.column] = told.get(link.column, False) or link.is_of(image)
        return next((column for column, is_told in told.items() if not is_told), None)

    @cached_property
    def stage(self) -> sa.Table:
        """Where rows are staged: the target's own types, every column nullable."""
        table = _staging(f"headwater_stage_{self.number}")
        for taken in self.taken:
            table.append_column(sa.Column(taken.name, taken.column.type))
        for link in self.links:
            if not link.translated:
                continue
            if link.nth == 0:
                kept = name_type() if link.steps is None else text_type()
                table.append_column(sa.Column(link.source_key, kept))
            if link.parent is not None and link.steps is None:
                kind = link.parent.c[link.parent_identity].type
                table.append_column(sa.Column(link.identity, kind))
        return self._with_source_key(table)

    @cached_property
    def staged_names(self) -> list[str]:
        """The columns that are staged, in order; of a translated one, the source's key and, where
        it is remembered, what that meant.
        """
        names = [ORDINAL, SET]
        for taken in self.taken:
            link = self.translated.get(taken.name)
            name = taken.name if link is None else link.source_key
            names.append(self.staged_name(name) if name in self.identity else name)
            if link is not None and link.named is not None:
                names.append(link.identity)
        return names

    @cached_property
    def remembered(self) -> list[Link]:
        """The links whose parents' identities are staged, in the order of their columns."""
        links = (self.translated.get(t.name) for t in self.taken)
        return [link for link in links if link is not None and link.named is not None]

    @cached_property
    def stager(self) -> Any:
        """The compiled maker of staged lines (native/src/stage.rs), or None without it."""
        native = load()
        if native is None:
            return None
        forms = [(t.name, self._form(t)) for t in self.taken]
        return native.Stager([(name, form, name in self.identity) for name, form in forms])

    def _form(self, taken: Taken) -> str:
        link = self.translated.get(taken.name)
        if link is None:
            return NATIVE[taken.fields]
        return "key" if link.named is None else f"known key, {NATIVE[link.named]}"

    @cached_property
    def keys(self) -> sa.Table:
        """Where the identities of deleted rows are staged."""
        table = _staging(f"headwater_keys_{self.number}")
        for name in self.identity:
            table.append_column(sa.Column(name, self.by_name[name].column.type))
        return self._with_source_key(table)

    def _with_source_key(self, table: sa.Table) -> sa.Table:
        if self.is_refereed:
            table.append_column(sa.Column(SOURCE_KEY, sa.BigInteger))
        return table

    def set_of(self, names: frozenset[str]) -> int:
        """The number of a set of present columns."""
        if names not in self.sets:
            self.sets.append(names)
        return self.sets.index(names)


Bringing = Mapping[str, Sequence[tuple[Plan, Link]]]
"""By parent's full name: the references whose parents are here for them (apply/ancestors.py); of
tables without one, nothing.
"""


def _staging(name: str) -> sa.Table:
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column(ORDINAL, sa.BigInteger, autoincrement=False),
        sa.Column(SET, sa.SmallInteger),
        sa.Column(HOLD, sa.SmallInteger, server_default=sa.text("0")),
        prefixes=["TEMPORARY"],
    )
