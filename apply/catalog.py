"""A target's tables as they are, reflected at first use; columns go by the source's names."""

import warnings
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from apply.placement import lands_at
from apply.plan import Reference
from apply.server import LATE_UNIQUES, Server
from apply.target import Placement
from schemas.table import Table

LONGEST_NAME = 64
"""Characters that any of the servers takes."""


LOCAL = " (here)"
"""Added to the key of a column of the target's own that is called as a renamed one is there."""

_PARTIAL = ("postgresql", "sqlite")
"""Whose indexes may have conditions."""


class Catalog:
    """The target's tables as they are now, reflected at first use."""

    def __init__(self, server: Server, connection: sa.Connection, placement: Placement) -> None:
        self._server, self._connection, self._placement = server, connection, placement
        self._inspector = sa.inspect(connection)
        self._metadata = sa.MetaData()
        self._tables: dict[tuple[str, str], sa.Table | None] = {}
        self._references: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.default: str = self._inspector.default_schema_name or ""
        self.schemas = frozenset(self._inspector.get_schema_names())
        # SQLite finds a table in any letters, SQLAlchemy in its maker's.
        names = self._inspector.get_table_names() if server.is_sqlite else ()
        self._spelling = {name.lower(): name for name in names}
        # Columns are known by the source's names everywhere (SQLAlchemy's keys), and called by the
        # target's own in SQL alone.
        self._keys = {
            self.place(full_name): {here: there for there, here in mine.rename.items()}
            for full_name, mine in placement.exceptions.items()
            if mine.rename
        }

    def place(self, full_name: str) -> tuple[str, str]:
        """Where a source's table lands."""
        # MySQL's schemas are databases, and the url names one: rows go there unless told otherwise.
        kept = () if self._server.is_mysql and self.default else self.schemas
        schema, name = lands_at(full_name, self._placement, kept, self.default)
        return schema, self._spelling.get(name.lower(), name)

    def is_same(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        """Whether two places are one table: SQLite takes no notice of case."""
        lower = [name.lower() for name in one] == [name.lower() for name in other]
        return one == other or (lower and self._server.is_sqlite)

    def table(self, place: tuple[str, str]) -> sa.Table | None:
        """The target's table, or None where it has none."""
        if place not in self._tables:
            self._tables[place] = self._reflect(*place)
        return self._tables[place]

    def uniques(self, place: tuple[str, str]) -> list[tuple[str, ...]]:
        """Column sets under a unique key or index without conditions, the primary key's among
        them.
        """
        schema, name = place
        found = [self._inspector.get_pk_constraint(name, schema)["constrained_columns"]]
        # SQLite's indexes of unique keys are given only when asked for.
        asked = {"include_auto_indexes": True} if self._server.is_sqlite else {}
        for index in self._inspector.get_indexes(name, schema, **asked):
            options = index.get("dialect_options") or {}
            is_partial = any(options.get(f"{d}_where") is not None for d in _PARTIAL)
            names = index["column_names"]
            if index["unique"] and not is_partial and None not in names:
                found.append([n for n in names if n is not None])
        table = self.table(place)
        return [_keyed(table, names) for names in found if names]

    def is_guarded(self, place: tuple[str, str], names: Sequence[str]) -> bool:
        """Whether a second row with the same values of these columns is refused at once."""
        table = self.table(place)
        late = table.info.get(LATE_UNIQUES, ()) if table is not None else ()
        found = {frozenset(unique) for unique in self.uniques(place)}
        return frozenset(names) in found and frozenset(names) not in late

    def references(self, place: tuple[str, str]) -> list[Reference]:
        """The foreign keys of any table of the same schema that point at this one."""
        schema = place[0]
        if schema not in self._references:
            keys = self._inspector.get_multi_foreign_keys(schema=schema)
            self._references[schema] = [(k[1], dict(f)) for k, fs in keys.items() for f in fs]
        result = []
        for child_name, key in self._references[schema]:
            parent = (key["referred_schema"] or schema, key["referred_table"])
            child = self.table((schema, child_name)) if self.is_same(parent, place) else None
            if child is not None:
                columns = _keyed(child, key["constrained_columns"])
                keys_ = _keyed(self.table(place), key["referred_columns"])
                result.append(Reference(child=child, columns=columns, keys=keys_))
        return result

    def constrained(self, place: tuple[str, str]) -> set[str]:
        """Columns under a foreign key of the target."""
        schema, name = place
        self.references(place)
        mine = (k["constrained_columns"] for n, k in self._references[schema] if n == name)
        table = self.table(place)
        return {key for names in mine for key in _keyed(table, names)}

    def holds_rows(self, table: Table) -> bool:
        """Whether the source's table has rows here: those with an identity."""
        target = self.table(self.place(table.full_name))
        if target is None or not set(table.identity) <= set(target.c.keys()):
            return False
        row = sa.select(sa.literal(1)).select_from(target)
        row = row.where(*(target.c[n].is_not(None) for n in table.identity))
        return self._connection.scalar(row.limit(1)) is not None

    def _reflect(self, schema: str, name: str) -> sa.Table | None:
        # MySQL answers a question for a longer name with an error.
        if schema not in self.schemas or len(name) > LONGEST_NAME:
            return None
        if not self._inspector.has_table(name, schema):
            return None
        keys = self._keys.get((schema, name), {})

        def keyed(inspector: Any, table: sa.Table, column: Any) -> None:
            is_local = column["name"] in keys.values() and column["name"] not in keys
            column["key"] = keys.get(column["name"], column["name"] + LOCAL * is_local)

        with warnings.catch_warnings():
            # A type that SQLAlchemy does not know becomes NullType, which `unfit` refuses by name.
            warnings.simplefilter("ignore", sa.exc.SAWarning)
            table = sa.Table(
                name,
                self._metadata,
                schema=schema,
                autoload_with=self._connection,
                resolve_fks=False,
                listeners=[("column_reflect", keyed)],
            )
        self._server.complete(self._connection, table)
        return table


def _keyed(table: sa.Table | None, names: Sequence[str]) -> tuple[str, ...]:
    """The target's names as keys of the table's columns; SQLite keeps a foreign key in its maker's
    letters.
    """
    if table is None:
        return tuple(names)
    exact = {c.name: c.key for c in table.c}
    known = {c.name.lower(): c.key for c in table.c}
    return tuple(exact.get(n) or known[n.lower()] for n in names)
