"""A source table as capture describes it: what `shop.schemas` holds, what targets are made from."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from schemas.kinds import Kind

SYNC_ID = "sync_id"
"""The column that identifies rows, unless something else is configured."""

NO_PARENTS: Mapping[str, Collection[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, in the log's order. `native` is the source's own type text, for targets of the
    same family.
    """

    name: str
    kind: Kind
    nullable: bool
    native: str = ""
    generated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A single-column foreign key of the source; `parent` is the parent's full name, e.g.
    "public.users".
    """

    column: str
    parent: str
    parent_column: str
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeKey:
    """A foreign key of several columns, in the order of `parent_columns`.

    Its actions are known where the binlog does not show them, and are not part of a description.
    """

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table under one description. Names are the source's: `schema` is MySQL's database.

    `identity` names the columns whose values make the wire key (("sync_id",), or the primary key's
    columns); `uniques` are the unique keys other than the primary key. `family` is "mysql",
    "mariadb" or "postgres".

    derived_from: the columns of which the identity is computed (schemas/derived.py), which the
    source does not hold. Such a table is described in two ways: as it is `at_source`, identified by
    these columns; and as it is `published`, with the computed column, to all the rest.
    """

    family: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    identity: tuple[str, ...]
    uniques: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    composite_keys: tuple[CompositeKey, ...] = ()
    derived_from: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """`schema.name`: how configuration, commit records and people name the table."""
        return f"{self.schema}.{self.name}"

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Columns by name."""
        return {c.name: c for c in self.columns}

    @property
    def parents(self) -> tuple[str, ...]:
        """Full names of the tables that its foreign keys reference."""
        return tuple(key.parent for key in self.foreign_keys) + tuple(
            key.parent for key in self.composite_keys
        )

    @property
    def is_derived(self) -> bool:
        """Whether the identity is a column that the source does not hold."""
        return bool(self.derived_from) and self.identity != self.derived_from

    @cached_property
    def published(self) -> "Table":
        """What the log and targets know the table as."""
        if not self.derived_from or self.is_derived:
            return self
        column = Column(name=SYNC_ID, kind=Kind(name="uuid"), nullable=False)
        return replace(self, columns=(*self.columns, column), identity=(SYNC_ID,))

    @cached_property
    def at_source(self) -> "Table":
        """What the source's own tables are read as."""
        if not self.is_derived:
            return self
        columns = tuple(c for c in self.columns if c.name not in self.identity)
        return replace(self, columns=columns, identity=self.derived_from)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when anything in the description does."""
        return sha256(self.published.dumps().encode()).hexdigest()[:12]

    def dumps(self) -> str:
        """Compact JSON with sorted keys; the value in `shop.schemas`."""
        data: dict[str, Any] = {
            "family": self.family,
            "schema": self.schema,
            "name": self.name,
            "columns": [
                {
                    "name": c.name,
                    "kind": c.kind.to_json(),
                    "nullable": c.nullable,
                    "native": c.native,
                }
                | ({"generated": True} if c.generated else {})
                for c in self.columns
            ],
            "primary_key": self.primary_key,
            "identity": self.identity,
            "uniques": self.uniques,
            "foreign_keys": [
                {
                    k: getattr(f, k)
                    for k in ("column", "parent", "parent_column", "on_delete", "on_update")
                }
                for f in self.foreign_keys
            ],
        }
        if self.composite_keys:
            data["composite_keys"] = [
                {k: getattr(f, k) for k in ("columns", "parent", "parent_columns")}
                for f in self.composite_keys
            ]
        if self.derived_from:
            data["derived_from"] = self.derived_from
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def loads(text: str) -> "Table":
        """The inverse of `dumps`; raises KeyError or TypeError on what is not a description."""
        data = json.loads(text)
        return Table(
            family=data["family"],
            schema=data["schema"],
            name=data["name"],
            columns=tuple(
                Column(
                    name=c["name"],
                    kind=Kind.from_json(c["kind"]),
                    nullable=c["nullable"],
                    native=c["native"],
                    generated=c.get("generated", False),
                )
                for c in data["columns"]
            ),
            primary_key=tuple(data["primary_key"]),
            identity=tuple(data["identity"]),
            uniques=tuple(tuple(u) for u in data["uniques"]),
            foreign_keys=tuple(ForeignKey(**f) for f in data["foreign_keys"]),
            # Descriptions without one do not say so, nor did older versions.
            composite_keys=tuple(
                CompositeKey(
                    columns=tuple(f["columns"]),
                    parent=f["parent"],
                    parent_columns=tuple(f["parent_columns"]),
                )
                for f in data.get("composite_keys", ())
            ),
            derived_from=tuple(data.get("derived_from", ())),
        )


def parents_first(
    tables: Sequence[Table], more: Mapping[str, Collection[str]] = NO_PARENTS
) -> list[Table]:
    """Tables so ordered that a foreign key's parent comes before its child, cycles aside. more: by
    full name, tables that come before that one, too.
    """
    by_name = {t.full_name: t for t in tables}
    ordered: dict[str, Table] = {}

    def place(table: Table, above: frozenset[str]) -> None:
        for parent in (*table.parents, *more.get(table.full_name, ())):
            if parent in by_name and parent not in above and parent not in ordered:
                place(by_name[parent], above | {table.full_name})
        ordered.setdefault(table.full_name, table)

    for table in tables:
        place(table, frozenset((table.full_name,)))
    return list(ordered.values())
