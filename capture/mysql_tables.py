"""Table descriptions: from the catalog, and from the binlog with the catalog's hints.

The binlog decides names, order and stored types. The catalog is of now, the binlog of its own
moment: where both agree the description is the catalog's, to the letter; where they do not, single
columns that still fit keep their hints, and a warning says so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from capture.binlog_columns import column_code
from capture.binlog_kinds import Charsets, map_kinds
from capture.binlog_native import NativeDecoder
from capture.binlog_rows import Decoder, RowDecoder
from capture.binlog_table import MapColumn, TableMap
from capture.mysql_catalog import CatalogColumn, CatalogTable
from capture.renames import Renames
from schemas.errors import Misconfigured, Unsupported
from schemas.kinds import Kind
from schemas.native import load
from schemas.selection import Selection
from schemas.table import Column, Table

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One table map of a captured table, ready to decode rows."""

    table: Table
    decoder: Decoder
    column_count: int
    shape: tuple[object, ...]
    """Names and stored types: what cannot change without a statement in the log."""
    may_be_null: bool
    """Whether a row's identity may be null, which each row is then looked at for."""


def catalog_table(found: CatalogTable, family: str, selection: Selection) -> Table:
    """The description of a table as the catalog has it.

    Raises Unsupported naming the first column that cannot be carried, Misconfigured without an
    identity.
    """
    columns = []
    for column in found.columns:
        if not selection.wants_column(found.schema, found.name, column.name):
            continue
        if column.generated:
            continue
        if column.kind is None:
            name = f"{found.full_name}.{column.name}"
            raise Unsupported(
                f"found column {name} of type {column.native}, which is not carried yet",
                hint=f'exclude it: exclude_columns = ["{name}"]',
            )
        columns.append(_as_column(column, column.kind))
    return _table(found, family, selection, columns, found.primary_key)


def _as_column(column: CatalogColumn, kind: Kind) -> Column:
    return Column(name=column.name, kind=kind, nullable=column.nullable, native=column.native)


def _table(
    found: CatalogTable,
    family: str,
    selection: Selection,
    columns: Sequence[Column],
    primary_key: tuple[str, ...],
) -> Table:
    names = {c.name for c in columns}
    key = primary_key if names.issuperset(primary_key) else ()
    identity = selection.identity_of(found.schema, found.name, [c.name for c in columns], key)
    return Table(
        family=family,
        schema=found.schema,
        name=found.name,
        columns=tuple(columns),
        primary_key=key,
        identity=identity,
        derived_from=identity if selection.derives(found.full_name) else (),
        uniques=tuple(u for u in found.uniques if names.issuperset(u)),
        foreign_keys=tuple(f for f in found.foreign_keys if f.column in names),
        composite_keys=tuple(f for f in found.composite_keys if not names.isdisjoint(f.columns)),
    )


def described(
    found: TableMap,
    catalog: CatalogTable | None,
    family: str,
    selection: Selection,
    charsets: Charsets,
) -> Described:
    """What a table map of a captured table is, and how its rows are read."""
    schema, name = found.schema, found.name
    current = {c.name: c for c in catalog.columns} if catalog is not None else {}
    skipped = frozenset(
        c.name
        for c in found.columns
        if not selection.wants_column(schema, name, c.name)
        or (c.name in current and current[c.name].generated)
    )
    kinds = map_kinds(found, {n: c.kind for n, c in current.items()}, charsets, skipped)
    table = _from_map(found, kinds, catalog, family, selection)
    decoder = row_decoder(table.full_name, found.columns, kinds, charsets, table.identity)
    shape = tuple(replace(c, labels=()) for c in found.columns)
    return Described(
        table=table,
        decoder=decoder,
        column_count=len(found.columns),
        shape=shape,
        may_be_null=any(table.by_name[n].nullable for n in table.identity),
    )


def row_decoder(
    table: str,
    columns: Sequence[MapColumn],
    kinds: Sequence[Kind | None],
    charsets: Charsets,
    identity: Sequence[str],
) -> Decoder:
    """The compiled decoder where it was built, else the generated one."""
    if native := load():
        return NativeDecoder(native, table, columns, kinds, charsets, identity)
    codes = [column_code(c, k, charsets) for c, k in zip(columns, kinds, strict=True)]
    names, nullable = [c.name for c in columns], [c.nullable for c in columns]
    return RowDecoder(table, names, nullable, codes, identity)


def _from_map(
    found: TableMap,
    kinds: Sequence[Kind | None],
    catalog: CatalogTable | None,
    family: str,
    selection: Selection,
) -> Table:
    primary_key = tuple(found.columns[i].name for i in found.primary_key)
    if catalog is not None and _agree(found, kinds, catalog, primary_key):
        return catalog_table(catalog, family, selection)
    log.warning(
        "description_differs_from_catalog",
        table=f"{found.schema}.{found.name}",
        meaning="the binlog is from before a later ALTER or DROP: types that the binlog does not "
        "tell apart (tinyint(1), UUID, JSON in MariaDB) are taken from columns that still fit",
    )
    hints = {c.name: c for c in catalog.columns} if catalog is not None else {}
    columns = []
    for column, kind in zip(found.columns, kinds, strict=True):
        if kind is not None:
            hint = hints.get(column.name)
            native = hint.native if hint is not None and hint.kind == kind else ""
            columns.append(
                Column(name=column.name, kind=kind, nullable=column.nullable, native=native)
            )
    empty = CatalogTable(schema=found.schema, name=found.name)
    return _table(catalog or empty, family, selection, columns, primary_key)


def _agree(
    found: TableMap,
    kinds: Sequence[Kind | None],
    catalog: CatalogTable,
    primary_key: tuple[str, ...],
) -> bool:
    """Whether the catalog describes what the map does; a kind of None was skipped."""
    return (
        primary_key == catalog.primary_key
        and [c.name for c in found.columns] == [c.name for c in catalog.columns]
        and all(
            kind is None or (kind == column.kind and mapped.nullable == column.nullable)
            for mapped, kind, column in zip(found.columns, kinds, catalog.columns, strict=True)
        )
    )


class Descriptions:
    """Described tables by table map, each made once.

    A map that differs from the table's last one without a statement between them that could explain
    it (an ALTER with sql_log_bin = 0) is refused: rows may have changed unseen.
    """

    def __init__(
        self,
        look_up: Callable[[str, str], CatalogTable | None],
        family: str,
        selection: Selection,
        charsets: Charsets,
        schemas: Iterable[str],
        renames: Renames,
    ) -> None:
        self._schemas, self._renames = set(schemas), renames
        self._look_up, self._family = look_up, family
        self._selection, self._charsets = selection, charsets
        self._known: dict[bytes, Described] = {}
        self._last: dict[str, Described] = {}

    def get(self, content: bytes, parsed: Callable[[], TableMap]) -> Described:
        """The description for a map's bytes."""
        one = self._known.get(content)
        if one is None:
            found = parsed()
            catalog = self._look_up(found.schema, found.name)
            try:
                one = described(found, catalog, self._family, self._selection, self._charsets)
            except Misconfigured as error:
                raise Misconfigured(f"{error} (in the binlog)", hint=error.hint) from error
            self._known[content] = one
            self._renames.described(one.table.full_name, one.table.by_name)
            self._schemas.add(found.schema)
        name = one.table.full_name
        last = self._last.get(name)
        if last is not None and last.shape != one.shape:
            raise Unsupported(
                f"found {name} altered without a statement in the binlog",
                hint="do not alter it with sql_log_bin = 0",
            )
        self._last[name] = one
        return one

    def has_schema(self, name: str) -> bool:
        """Whether a schema has captured tables, now or earlier in this stream."""
        return name in self._schemas

    def altered(self) -> None:
        """A statement came that may change any description, and what the catalog says of it."""
        self._last.clear()
        self._known.clear()
