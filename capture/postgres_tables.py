"""Descriptions: the log's names, order and types, with the catalog's hints where both agree.

The same function describes a table from the catalog alone and from a Relation message, so that both
have one fingerprint while nothing changed. Hints are matched by column name and type: of a table
altered since, only what still holds is taken, else what was last known, else nothing is claimed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from capture import pgoutput, postgres_catalog
from capture.postgres_catalog import CatalogColumn
from capture.postgres_kinds import kind_of
from capture.postgres_session import Session
from capture.renames import Renames
from schemas.errors import Unsupported
from schemas.selection import Selection
from schemas.table import Column, Table

log = structlog.get_logger()


class LogColumn(NamedTuple):
    """A column as the log or the catalog lays it out."""

    name: str
    type_oid: int
    typmod: int


class Described(NamedTuple):
    """A table, and which of the log's columns are its columns: those not excluded."""

    table: Table
    taken: tuple[bool, ...]


def describe(
    selection: Selection,
    schema: str,
    name: str,
    layout: Sequence[LogColumn],
    known: Mapping[str, CatalogColumn],
    keys: postgres_catalog.Relation | None,
) -> Described:
    """Make the description; known: hints of every column in `layout`.

    Raises Unsupported naming the first column whose type cannot be carried, Misconfigured for a
    table without identity.
    """
    taken = tuple(
        not known[c.name].generated and selection.wants_column(schema, name, c.name) for c in layout
    )
    columns = []
    for column in (c for c, wanted in zip(layout, taken, strict=True) if wanted):
        hint = known[column.name]
        kind = kind_of(column.type_oid, column.typmod, hint.labels)
        if kind is None:
            full_name = f"{schema}.{name}.{column.name}"
            raise Unsupported(
                f"found {full_name} of type {hint.native or column.type_oid}, which is not carried",
                hint=f'exclude it: exclude_columns = ["{full_name}"]',
            )
        columns.append(
            Column(name=column.name, kind=kind, nullable=hint.nullable, native=hint.native)
        )
    names = [c.name for c in columns]
    primary_key = _within(keys.primary_key if keys else (), names)
    identity = selection.identity_of(schema, name, names, primary_key)
    table = Table(
        family="postgres",
        schema=schema,
        name=name,
        columns=tuple(columns),
        primary_key=primary_key,
        identity=identity,
        derived_from=identity if selection.derives(f"{schema}.{name}") else (),
        uniques=tuple(u for u in keys.uniques if set(u) <= set(names)) if keys else (),
        foreign_keys=tuple(f for f in keys.foreign_keys if f.column in names) if keys else (),
        composite_keys=tuple(f for f in keys.composite_keys if not set(names).isdisjoint(f.columns))
        if keys
        else (),
    )
    return Described(table, taken)


def from_catalog(selection: Selection, relation: postgres_catalog.Relation) -> Table:
    """The description of a table as it is now; generated columns are not in the log, nor here."""
    layout = [
        LogColumn(name, c.type_oid, c.typmod)
        for name, c in relation.columns.items()
        if not c.generated
    ]
    return describe(
        selection, relation.schema, relation.name, layout, relation.columns, relation
    ).table


class Describer:
    """Describes what the log lays out, remembering hints by relation and column name."""

    def __init__(self, session: Session, selection: Selection) -> None:
        self._session = session
        self._selection = selection
        self._last: dict[int, dict[str, CatalogColumn]] = {}
        tables = [r for r in postgres_catalog.tables(session) if selection.wants(r.schema, r.name)]
        self._renames = Renames({r.full_name: self._taken(r) for r in tables})

    def described(self, relation: pgoutput.Relation) -> Described | None:
        """The description of a Relation message; None for a table that is not selected."""
        if not self._selection.wants(relation.schema, relation.name):
            return None
        layout = [LogColumn(c.name, c.type_oid, c.typmod) for c in relation.columns]
        now = postgres_catalog.by_oid(self._session, [relation.oid]).get(relation.oid)
        last = self._last.setdefault(relation.oid, {})
        hints = {**last, **(now.columns if now else {})}
        known, strangers = self._matched(layout, hints, last)
        if now is None or strangers:
            log.warning(
                "catalog_differs_from_log",
                table=f"{relation.schema}.{relation.name}",
                columns=strangers,
            )
        last.update(known)
        keys = now or _from_flags(relation)
        found = describe(self._selection, relation.schema, relation.name, layout, known, keys)
        self._renames.described(found.table.full_name, found.table.by_name)
        return found

    def _taken(self, relation: postgres_catalog.Relation) -> list[str]:
        """The columns that leave the source."""
        names = [n for n, c in relation.columns.items() if not c.generated]
        return [n for n in names if self._selection.wants_column(relation.schema, relation.name, n)]

    def _matched(
        self,
        layout: Sequence[LogColumn],
        hints: Mapping[str, CatalogColumn],
        last: Mapping[str, CatalogColumn],
    ) -> tuple[dict[str, CatalogColumn], list[str]]:
        known, strangers = {}, []
        for column in layout:
            agreeing = [
                h
                for h in (hints.get(column.name), last.get(column.name))
                if h is not None and (h.type_oid, h.typmod) == column[1:]
            ]
            if agreeing:
                known[column.name] = agreeing[0]
            else:
                strangers.append(column)
        known |= self._unhinted(strangers)
        return known, [c.name for c in strangers]

    def _unhinted(self, columns: Iterable[LogColumn]) -> dict[str, CatalogColumn]:
        """Columns of which the catalog knows the type at most: nullable, nothing else claimed."""
        columns = list(columns)
        found = postgres_catalog.types(self._session, [(c.type_oid, c.typmod) for c in columns])
        return {
            c.name: CatalogColumn(c.type_oid, c.typmod, True, native, labels, False)
            for c, (native, labels) in zip(columns, found, strict=True)
        }


def _from_flags(relation: pgoutput.Relation) -> postgres_catalog.Relation:
    """What the log alone says of a dropped table: under the default identity, its primary key."""
    flagged = tuple(c.name for c in relation.columns if c.in_key)
    key = postgres_catalog.Index("", flagged, True, True, True)
    return postgres_catalog.Relation(
        oid=relation.oid,
        schema=relation.schema,
        name=relation.name,
        kind="r",
        replica_identity=relation.replica_identity,
        is_logged=True,
        indexes=(key,) if relation.replica_identity == "d" and flagged else (),
    )


def _within(key: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    return key if set(key) <= set(names) else ()
