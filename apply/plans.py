"""Plans for all described tables of one source: reflection, links between them, and what prevents
them.

Nothing is changed here. A problem is a `Finding`; a plan is made only for a table without refusals.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from apply.fit import family_of, unfit
from apply.placement import conflict_problems, conflict_rules, indexed, lands_at, own_key, wanted
from apply.plan import Link, Plan, Reference, Taken
from apply.references import translated_keys, untranslatable
from apply.server import LATE_UNIQUES, Server
from apply.target import Placement
from schemas.errors import SchemaConflict
from schemas.finding import Finding
from schemas.table import Table

LONGEST_NAME = 64
"""Characters that any of the servers takes."""


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
        return [tuple(names) for names in found if names]

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
                columns = _spelled(child, key["constrained_columns"])
                keys_ = _spelled(self.table(place), key["referred_columns"])
                result.append(Reference(child=child, columns=columns, keys=keys_))
        return result

    def constrained(self, place: tuple[str, str]) -> set[str]:
        """Columns under a foreign key of the target."""
        schema, name = place
        self.references(place)
        return {
            c for n, k in self._references[schema] if n == name for c in k["constrained_columns"]
        }

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
        with warnings.catch_warnings():
            # A type that SQLAlchemy does not know becomes NullType, which `unfit` refuses by name.
            warnings.simplefilter("ignore", sa.exc.SAWarning)
            table = sa.Table(
                name,
                self._metadata,
                schema=schema,
                autoload_with=self._connection,
                resolve_fks=False,
            )
        self._server.complete(self._connection, table)
        return table


def _spelled(table: sa.Table | None, names: Sequence[str]) -> tuple[str, ...]:
    """Columns as their table names them: SQLite keeps a foreign key in its maker's letters."""
    known = {} if table is None else {c.name.lower(): c.name for c in table.c}
    return tuple(n if table is None or n in table.c else known[n.lower()] for n in names)


def ranks(tables: Sequence[Table]) -> dict[str, int]:
    """Parents before children; in a cycle, the order of first meeting."""
    by_name = {t.full_name: t for t in tables}
    order: dict[str, int] = {}
    open_now: set[str] = set()

    def visit(table: Table) -> None:
        if table.full_name in order or table.full_name in open_now:
            return
        open_now.add(table.full_name)
        for parent in table.parents:
            if parent in by_name:
                visit(by_name[parent])
        order[table.full_name] = len(order)

    for table in sorted(tables, key=lambda t: t.full_name):
        visit(table)
    return order


def problems(
    catalog: Catalog, server: Server, placement: Placement, table: Table, known: Mapping[str, Table]
) -> list[Finding]:
    """Why an existing target table, and the description itself, cannot be planned."""
    name = table.full_name
    found = untranslatable(table, known, placement)
    place = catalog.place(name)
    target = catalog.table(place)
    at, own = ".".join(place), own_key(table, placement)
    found += conflict_problems(table, placement, at, own)
    if target is None:
        return found
    translated, keyed = translated_keys(table, known, placement), indexed(table)
    for column in wanted(table, placement):
        where = f"{at}.{column.name}"
        if column.name == own:
            continue
        if column.name not in target.c:
            fix = f'add it, or exclude "{name}.{column.name}" for this target'
            found.append(Finding(where=where, problem="is missing", fix=fix))
            continue
        mine = target.c[column.name]
        why = unfit(column.kind, mine, is_mysql=server.is_mysql, is_key=column.name in keyed)
        if why and column.name not in translated and mine.computed is None:
            fix = f'alter the column, or exclude "{name}.{column.name}" for this target'
            found.append(Finding(where=where, problem=why, fix=fix))
        if mine.identity is not None and mine.identity.always and mine.computed is None:
            fix = f"ALTER TABLE {at} ALTER COLUMN {column.name} SET GENERATED BY DEFAULT"
            found.append(Finding(where=where, problem="is GENERATED ALWAYS", fix=fix))
    found += _key_problems(catalog, server, table, place, target, own)
    names = {c.name for c in wanted(table, placement)} - {own}
    found += [
        Finding(
            where=f"{at}.{column.name}",
            problem="is NOT NULL without a default, and the source does not fill it",
            fix=f"ALTER TABLE {at} ALTER COLUMN {column.name} SET DEFAULT …",
        )
        for column in target.c
        if column.name not in names
        and not column.nullable
        and not server.generates(column)
        and column.name != own
    ]
    return found


def unreferable(
    catalog: Catalog, placement: Placement, table: Table, known: Mapping[str, Table]
) -> Iterator[Finding]:
    """Parents that SQLite lets a new foreign key name, and then refuses every write of."""
    names = {c.name for c in wanted(table, placement)}
    for key in table.foreign_keys:
        if key.parent not in known or key.column not in names:
            continue
        place, columns = catalog.place(key.parent), {key.parent_column}
        if catalog.table(place) is None or any(set(u) == columns for u in catalog.uniques(place)):
            continue
        at = ".".join(place)
        yield Finding(
            where=f"{at}.{key.parent_column}",
            problem=f"is referenced by {table.full_name}.{key.column}, and has no unique index",
            fix=f"CREATE UNIQUE INDEX {place[1]}_{key.parent_column} ON {place[1]} "
            f'({key.parent_column}), or exclude "{table.full_name}.{key.column}" for this target',
        )


def _key_problems(
    catalog: Catalog,
    server: Server,
    table: Table,
    place: tuple[str, str],
    target: sa.Table,
    own: str | None,
) -> list[Finding]:
    at, found = ".".join(place), []
    names = ", ".join(table.identity)
    if not any(set(u) == set(table.identity) for u in catalog.uniques(place)):
        found.append(
            Finding(
                where=f"{at} ({names})",
                problem="is not unique and indexed, so rows cannot be found by it",
                fix=f"CREATE UNIQUE INDEX {table.name}_identity ON {at} ({names})",
            )
        )
    if own is not None:
        keys = list(target.primary_key.columns)
        bad = [c.name for c in keys if not server.generates(c) and c.name not in table.identity]
        unmade = [n for n in bad if n == own or n not in table.by_name]
        found += [
            Finding(
                where=f"{at}.{n}",
                problem="is the target's own primary key, but nothing generates its values",
                fix="give it a default (AUTO_INCREMENT, GENERATED BY DEFAULT AS IDENTITY), "
                'or set primary_keys = "copy"',
            )
            for n in unmade
        ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """newest: by full name, for the newest description. older: by fingerprint, for the others of a
    batch in which a table was altered. refused: by full name, why rows of a table must not be
    written or read, whatever an older version has prepared.
    """

    newest: Mapping[str, Plan]
    older: Mapping[str, Plan]
    refused: Mapping[str, Sequence[Finding]]

    def refuse(self, name: str) -> None:
        """Raise SchemaConflict where the table is refused."""
        found = self.refused.get(name, ())
        if found:
            raise SchemaConflict(
                "cannot follow a reference: " + "; ".join(f"{f.where} {f.problem}" for f in found),
                hint="; ".join(dict.fromkeys(f.fix for f in found)),
            )


def plan_all(
    catalog: Catalog,
    server: Server,
    placement: Placement,
    known: Mapping[str, Table],
    older: Sequence[Table] = (),
) -> Plans:
    """A plan for every described table that the target has, and for older descriptions of them."""
    newest = _plan_known(catalog, server, placement, known)
    before: dict[str, Plan] = {}
    for number, table in enumerate(older, start=len(known)):
        plans = _plan_known(catalog, server, placement, {**known, table.full_name: table})
        if table.full_name in plans:
            # A number of its own: the staging tables of two descriptions differ.
            before[table.fingerprint] = replace(plans[table.full_name], number=number, sets=[])
    refused = {n: untranslatable(t, known, placement) for n, t in known.items()}
    return Plans(newest=newest, older=before, refused=refused)


def _plan_known(
    catalog: Catalog, server: Server, placement: Placement, known: Mapping[str, Table]
) -> dict[str, Plan]:
    order = ranks(list(known.values()))
    tracked = {
        key.parent for t in known.values() for key in translated_keys(t, known, placement).values()
    }
    plans = {}
    for number, (name, table) in enumerate(sorted(known.items())):
        target = catalog.table(catalog.place(name))
        if target is not None:
            plans[name] = _plan(catalog, server, placement, known, table, target, number, order)
            plans[name].is_tracked = name in tracked
            plans[name].conflicts = conflict_rules(table, placement)
    return plans


def _plan(
    catalog: Catalog,
    server: Server,
    placement: Placement,
    known: Mapping[str, Table],
    table: Table,
    target: sa.Table,
    number: int,
    order: Mapping[str, int],
) -> Plan:
    place = catalog.place(table.full_name)
    own = own_key(table, placement)
    taken = []
    for column in wanted(table, placement):
        mine = target.c.get(column.name)
        if mine is None or column.name == own or mine.computed is not None:
            continue
        family = family_of(mine.type)
        fields = server.fields(column.kind, family)
        taken.append(
            Taken(name=column.name, column=mine, kind=column.kind, family=family, fields=fields)
        )
    names = {t.name for t in taken}
    keys = {tuple(target.primary_key.columns.keys()), table.identity}
    return Plan(
        number=number,
        rank=order[table.full_name],
        source=table,
        target=target,
        taken=taken,
        own_key=own,
        links=_links(catalog, placement, known, table, target, names, order),
        references=catalog.references(place),
        uniques=[u for u in catalog.uniques(place) if u not in keys and names.issuperset(u)],
        is_guarded=catalog.is_guarded(place, table.identity),
    )


def _links(
    catalog: Catalog,
    placement: Placement,
    known: Mapping[str, Table],
    table: Table,
    target: sa.Table,
    names: set[str],
    order: Mapping[str, int],
) -> list[Link]:
    translated = translated_keys(table, known, placement)
    constrained = catalog.constrained(catalog.place(table.full_name))
    links = []
    for key in table.foreign_keys:
        parent = known.get(key.parent)
        mine = catalog.table(catalog.place(key.parent)) if parent is not None else None
        if key.column not in names or parent is None or mine is None:
            continue
        follows = order[key.parent] >= order[table.full_name]
        nullable = bool(target.c[key.column].nullable)
        is_bound = key.column in translated or key.column in constrained
        links.append(
            Link(
                column=key.column,
                parent_name=key.parent,
                parent=mine,
                parent_key=key.parent_column,
                parent_identity=parent.identity[0],
                translated=key.column in translated,
                late=follows and nullable and is_bound,
                nullable=nullable,
            )
        )
    return links
