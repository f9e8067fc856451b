"""Make a target ready for a source: own tables, missing tables, widened ones; problems first.

The invariant: nothing is written while anything is refused, and preparing twice changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from apply import declared_fit, exceptions
from apply.catalog import Catalog
from apply.fit import integer_of
from apply.own import (
    ADOPTED,
    CHECKPOINT,
    MADE,
    MAKING,
    METADATA,
    STREAM,
    TABLES,
    describe,
    described,
    half_made,
)
from apply.placement import indexed, own_key, wanted
from apply.plannable import MISSING, problems, unreferable
from apply.plans import ranks
from apply.references import chosen_keys, translated_keys
from apply.server import Cause, Server
from apply.target import Placement
from schemas.errors import SchemaConflict
from schemas.finding import Finding
from schemas.kinds import Kind
from schemas.table import Column, ForeignKey, Table


class _Native(sa.types.UserDefinedType[Any]):
    """A type by its text."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **kw: Any) -> str:
        return self.text


class Preparation:
    """What `prepare` would do for these tables, given the target as it is now."""

    def __init__(
        self,
        server: Server,
        connection: sa.Connection,
        source: str,
        placement: Placement,
        tables: Sequence[Table],
    ) -> None:
        self._server, self._connection = server, connection
        self._source, self._placement = source, placement
        self._catalog = Catalog(server, connection, placement)
        inspector = sa.inspect(connection)
        self._own_missing = [t for t in METADATA.sorted_tables if not inspector.has_table(t.name)]
        had = {} if TABLES in self._own_missing else described(connection, source)
        self._had = had
        self._half = set() if TABLES in self._own_missing else half_made(connection, source)
        self._tables = {t.full_name: t for t in tables}
        self._known = {n: t for n, (t, _) in had.items()} | self._tables

    def findings(self) -> list[Finding]:
        """Everything that is refused, of all tables."""
        idle = (exceptions.idle, declared_fit.idle) if self._tables else ()
        found = [f for each in idle for f in each(self._known, self._placement)]
        for name, table in self._tables.items():
            place = self._catalog.place(name)
            if self._catalog.table(place) is None:
                found += self._creation_problems(table, place)
                found += self._type_problems(table, place)
                if self._server.is_sqlite:
                    found += unreferable(self._catalog, self._placement, table, self._known)
            found += self._name_problems(table, place)
            added = {f"{'.'.join(place)}.{self._here(table, n)}" for n in self._widened(table)}
            found += [
                Finding(
                    where=".".join(place),
                    problem=f"would receive both {name} and {other}",
                    fix=f'give {name} a place of its own: tables = {{ "{name}" = "…" }}',
                )
                for other in self._known
                if other < name and self._catalog.is_same(place, self._catalog.place(other))
            ]
            args = (self._catalog, self._server, self._placement, table, self._known)
            found += [f for f in problems(*args) if f.where not in added or f.problem != MISSING]
        return found

    def statements(self) -> list[str]:
        """The DDL to run, in order."""
        names = ranks(list(self._known.values()))
        fresh = [t for t in self._tables.values() if self._is_missing(t)]
        fresh.sort(key=lambda t: names[t.full_name])
        made = {t.full_name: self._definition(t) for t in fresh}
        begun = [t for n, t in self._tables.items() if n in self._half or self._is_missing(t)]
        begun.sort(key=lambda t: names[t.full_name])
        if self._server.is_sqlite:
            # Foreign keys stand in CREATE TABLE there or nowhere; a parent may come later.
            for table in begun:
                self._constraints(table, made)
            begun = []
        texts = self._own_statements()
        for table in fresh:
            texts.append(self._render(CreateTable(made[table.full_name])))
            texts += self._indexes(table, made[table.full_name])
        texts += [self._render(AddConstraint(c)) for t in begun for c in self._constraints(t, made)]
        return texts + [s for t in self._tables.values() for s in self._widening(t)]

    def _own_statements(self) -> list[str]:
        ddl: list[Any] = [CreateTable(t) for t in self._own_missing]
        ddl += [CreateIndex(i) for t in self._own_missing for i in t.indexes]
        return [self._render(d) for d in ddl]

    def run(self, statements: Sequence[str]) -> None:
        """Run the DDL and keep descriptions and checkpoint row.

        Raises SchemaConflict for a statement that the server refuses. On MySQL and MariaDB each
        statement commits: what was made until then stays, marked as begun, and the next
        preparation completes it.
        """
        begun = {n: self._is_missing(t) or n in self._half for n, t in self._tables.items()}
        own = len(self._own_statements())
        for statement in statements[:own]:
            self._execute(statement)
        fresh = [(t, MAKING) for t in self._tables.values() if self._is_missing(t)]
        describe(self._connection, self._source, fresh)
        for statement in statements[own:]:
            self._execute(statement)
        rows = [
            (t, MADE if begun[n] or (n in self._had and self._had[n][1]) else ADOPTED)
            for n, t in self._tables.items()
            if begun[n] or n not in self._had or self._had[n][0] != t
        ]
        describe(self._connection, self._source, rows)
        there = sa.select(CHECKPOINT.c.source).where(
            CHECKPOINT.c.source == self._source, CHECKPOINT.c.stream == STREAM
        )
        if self._connection.scalar(there) is None:
            zero = {"epoch": 0, "batch": 0, "applied_at": 0, "rows_applied": 0}
            place = {"source": self._source, "stream": STREAM}
            self._connection.execute(sa.insert(CHECKPOINT).values(place | zero))

    def _execute(self, statement: str) -> None:
        formats = self._server.engine.dialect.paramstyle in ("format", "pyformat")
        try:
            self._connection.exec_driver_sql(statement.replace("%", "%%") if formats else statement)
        except sa.exc.DBAPIError as error:
            if self._server.cause(error) in (Cause.LOST, Cause.LOCKED, Cause.DENIED):
                raise
            words = " ".join(statement.split())
            raise SchemaConflict(
                f"cannot prepare the target: {self._server.explain(error)} for: {words}",
                hint="mend what it refuses (a parent's unique key, a type, a name), or map or "
                "exclude the table; then run headwater prepare, which completes what was begun",
            ) from error

    # Creating.

    def _is_missing(self, table: Table) -> bool:
        return self._catalog.table(self._catalog.place(table.full_name)) is None

    def _creation_problems(self, table: Table, place: tuple[str, str]) -> list[Finding]:
        at = ".".join(place)
        if not self._placement.create:
            fix = "create it, or allow it with create = true"
            return [Finding(where=at, problem="is missing", fix=fix)]
        if place[0] not in self._catalog.schemas:
            fix = f"CREATE SCHEMA {place[0]}, or map the schema to one that exists"
            return [
                Finding(where=at, problem=f"needs schema {place[0]}, which is missing", fix=fix)
            ]
        own = own_key(table, self._placement)
        if own is not None and self._server.own_key(table.by_name[own]) is None:
            return [
                Finding(
                    where=f"{at}.{own}",
                    problem=f"is a {table.by_name[own].kind.name} primary key, for which the "
                    "target cannot generate values of its own",
                    fix='set primary_keys = "copy", or create the table with a default for it',
                )
            ]
        return []

    def _name_problems(self, table: Table, place: tuple[str, str]) -> list[Finding]:
        """Names that the server would cut, refuse or take for the same: of what is to be made."""
        at, is_missing = ".".join(place), self._is_missing(table)
        columns = [c.name for c in wanted(table, self._placement)] if is_missing else []
        columns = columns or self._widened(table)
        tables = [(at, place[1], f'name it here: tables = {{ "{table.full_name}" = "…" }}')]
        here = [(n, self._here(table, n)) for n in columns]
        names = [(f"{at}.{name}", name, self._exclusion(table, n)) for n, name in here]
        # SQLite has no limit; ours is MySQL's.
        is_postgres = not (self._server.is_mysql or self._server.is_sqlite)
        longest = "63 bytes" if is_postgres else "64 characters"
        found = [
            Finding(where=where, problem=f"has a name longer than {longest}", fix=fix)
            for where, name, fix in (tables if is_missing else []) + names
            if (len(name.encode()) > 63 if is_postgres else len(name) > 64)
        ]
        by_lower: dict[str, str] = {}
        for column in wanted(table, self._placement):
            name = self._here(table, column.name)
            is_second = (name if is_postgres else name.lower()) in by_lower
            other = by_lower.setdefault(name if is_postgres else name.lower(), name)
            if is_second:
                fix = self._exclusion(table, column.name)
                problem = f"differs from {other} by case only, which is the same column there"
                problem = "is two columns (rename, set)" if other == name else problem
                found.append(Finding(where=f"{at}.{name}", problem=problem, fix=fix))
        return found

    def _type_problems(self, table: Table, place: tuple[str, str]) -> Iterator[Finding]:
        """References that MySQL and MariaDB join to integers of the same width and sign only."""
        translated = translated_keys(table, self._known, self._placement)
        names = {c.name for c in wanted(table, self._placement)} - set(translated)
        for key in table.foreign_keys if self._server.is_mysql else ():
            parent = self._known.get(key.parent)
            if key.column not in names or parent is None or key.parent_column not in parent.by_name:
                continue
            mine = self._type(table, table.by_name[key.column], key=True)
            there = self._catalog.table(self._catalog.place(key.parent))
            if there is not None and key.parent_column in there.c:
                kind = there.c[key.parent_column].type
                theirs = str(kind.compile(dialect=self._server.engine.dialect)).lower()
            else:
                theirs = self._type(parent, parent.by_name[key.parent_column], key=True)
            widths = integer_of(mine), integer_of(theirs)
            if {None} < set(widths) or widths[0] == widths[1]:
                continue
            yield Finding(
                where=f"{'.'.join(place)}.{key.column}",
                problem=f"would be {mine}, and {key.parent}.{key.parent_column}, which it "
                f"references, is {theirs}: no foreign key joins them",
                fix=f"make {'.'.join(place)} by hand, both columns of the wider type",
            )

    def _here(self, table: Table, name: str) -> str:
        return exceptions.name_here(table.full_name, name, self._placement)

    def _exclusion(self, table: Table, name: str) -> str:
        return f'exclude "{table.full_name}.{name}" for this target'

    def _definition(self, table: Table) -> sa.Table:
        schema, name = self._catalog.place(table.full_name)
        own = own_key(table, self._placement)
        keyed = indexed(table)
        has_key = False
        columns: list[Any] = []
        for column in wanted(table, self._placement):
            nullable = column.nullable and column.name not in table.primary_key
            if column.name == own:
                made = self._server.own_key(column)
                assert made is not None
                # The generator is part of the type's text: AUTO_INCREMENT, GENERATED …
                has_key = "PRIMARY KEY" in made[1]
                text, nullable = " ".join(made), False
            else:
                text = self._type(table, column, key=column.name in keyed)
            columns.append(
                sa.Column(
                    self._here(table, column.name),
                    _Native(text),
                    key=column.name,
                    nullable=nullable,
                    autoincrement=False,
                )
            )
        names = {c.key for c in columns}
        parts: list[Any] = []
        if table.primary_key and names.issuperset(table.primary_key) and not has_key:
            parts.append(sa.PrimaryKeyConstraint(*table.primary_key))
        uniques = [table.identity, *table.uniques]
        for unique in dict.fromkeys(u for u in uniques if u != table.primary_key):
            if names.issuperset(unique) and self._can_index(table, unique):
                parts.append(sa.UniqueConstraint(*unique))
        return sa.Table(
            name,
            sa.MetaData(),
            *columns,
            *parts,
            schema=schema,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            sqlite_strict=True,
        )

    def _indexes(self, table: Table, made: sa.Table) -> list[str]:
        """The server must find a parent's children: MySQL makes this index itself, PostgreSQL and
        SQLite do not; PostgreSQL gives it a name that is free.
        """
        if self._server.is_mysql:
            return []
        quote = self._server.engine.dialect.identifier_preparer
        keys = dict.fromkeys(k.column for k in table.foreign_keys if k.column in made.c)
        columns = [made.c[key].name for key in keys]
        if self._server.is_sqlite:
            found = [sa.Index(f"{made.name}.{made.c[k].name}", made.c[k]) for k in keys]
            return [self._render(CreateIndex(index)) for index in found]
        return [
            f"CREATE INDEX ON {quote.format_table(made)} ({quote.quote(name)})".replace("%%", "%")
            for name in columns
        ]

    def _can_index(self, table: Table, names: Sequence[str]) -> bool:
        """Whether a unique key is kept: on MySQL never one whose text is cut to fit an index."""
        kinds = [table.by_name[n].kind for n in names]
        roomy = any(
            k.name in ("text", "binary") and (k.length is None or k.length > 700) for k in kinds
        )
        return not (self._server.is_mysql and roomy) or tuple(names) == table.identity

    def _type(self, table: Table, column: Column, *, key: bool) -> str:
        """The column's type; a translated reference has its parent's, one of several any number."""
        foreign = translated_keys(table, self._known, self._placement).get(column.name)
        if foreign is None:
            chosen = chosen_keys(table, self._known, self._placement).get(column.name)
            if chosen is not None and chosen[0].by and column.kind.name == "int":
                column = replace(column, kind=Kind(name="int", bits=64), native="")
            return self._server.column_type(column, table.family, key=key)
        parent = self._catalog.table(self._catalog.place(foreign.parent))
        if parent is not None and foreign.parent_column in parent.c:
            kind = parent.c[foreign.parent_column].type
            return str(kind.compile(dialect=self._server.engine.dialect))
        made = self._server.own_key(self._known[foreign.parent].by_name[foreign.parent_column])
        return made[0] if made else self._server.column_type(column, table.family, key=key)

    def _constraints(
        self, table: Table, made: dict[str, sa.Table]
    ) -> list[sa.ForeignKeyConstraint]:
        """Foreign keys as the source has them, cascades included, where the parent can carry
        them, and the table does not have them yet; the server names them.
        """
        found = []
        place = self._catalog.place(table.full_name)
        mine = made.get(table.full_name)
        there = set() if mine is not None else self._catalog.constrained(place)
        if mine is None:
            mine = self._catalog.table(place)
        assert mine is not None, "made now, or begun earlier"
        keys = {(k.column, k.parent, k.parent_column): k for k in table.foreign_keys}
        for key in keys.values():
            parent = made.get(key.parent)
            if parent is None and key.parent in self._known:
                parent = self._catalog.table(self._catalog.place(key.parent))
            if parent is None or key.column not in mine.c or not self._is_unique(key):
                continue
            if key.column in there:
                continue
            constraint = sa.ForeignKeyConstraint(
                [key.column],
                [parent.c[key.parent_column]],
                ondelete=key.on_delete,
                onupdate=key.on_update,
            )
            mine.append_constraint(constraint)
            found.append(constraint)
        return found

    def _is_unique(self, key: ForeignKey) -> bool:
        parent = self._known[key.parent]
        return (key.parent_column,) in (parent.primary_key, *parent.uniques, parent.identity)

    # Widening.

    def _widened(self, table: Table) -> list[str]:
        """Columns to add to a table that Headwater made."""
        target = self._catalog.table(self._catalog.place(table.full_name))
        if target is None or not self._had.get(table.full_name, (None, False))[1]:
            return []
        own = own_key(table, self._placement)
        names = [c.name for c in wanted(table, self._placement) if c.name != own]
        return [n for n in names if n not in target.c]

    def _widening(self, table: Table) -> list[str]:
        target = self._catalog.table(self._catalog.place(table.full_name))
        if target is None:
            return []
        quote = self._server.engine.dialect.identifier_preparer
        columns = {c.name: c for c in wanted(table, self._placement)}
        begin = f"ALTER TABLE {quote.format_table(target)} ADD COLUMN "
        return [
            f"{begin}{quote.quote(self._here(table, name))} ".replace("%%", "%")
            + f"{self._type(table, columns[name], key=False)} NULL"
            for name in self._widened(table)
        ]

    def _render(self, ddl: Any) -> str:
        # SQLAlchemy doubles percent signs for drivers that format statements; people read these.
        return str(ddl.compile(dialect=self._server.engine.dialect)).strip().replace("%%", "%")
