"""What the catalog says of tables: names, kinds, keys; a few queries for any number of tables."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import Misconfigured
from schemas.kinds import Kind
from schemas.table import CompositeKey, ForeignKey

Query = Callable[[str], list[tuple[Any, ...]]]

_SYSTEM = ("mysql", "information_schema", "performance_schema", "sys")
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_LOBS = {"tinyblob", "blob", "mediumblob", "longblob", "tinytext", "text", "mediumtext", "longtext"}
_LABEL = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogColumn:
    """One column; kind is None for a type that is not carried."""

    name: str
    kind: Kind | None
    nullable: bool
    native: str
    generated: bool


@dataclass(slots=True, kw_only=True)
class CatalogTable:
    """One table as it is now, whether or not it can be captured."""

    schema: str
    name: str
    engine: str = ""
    columns: list[CatalogColumn] = field(default_factory=list)
    keys: dict[str, list[str]] = field(default_factory=dict)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    composite_keys: list[CompositeKey] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """`schema.name`."""
        return f"{self.schema}.{self.name}"

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The primary key's columns, in the key's order."""
        return tuple(self.keys.get("PRIMARY", ()))

    @property
    def uniques(self) -> tuple[tuple[str, ...], ...]:
        """The other unique keys over whole columns, by name."""
        return tuple(tuple(c) for n, c in sorted(self.keys.items()) if n != "PRIMARY")


def read_catalog(
    query: Query, family: str, wants: Callable[[str, str], bool], only: tuple[str, str] | None
) -> list[CatalogTable]:
    """The wanted base tables by full name; `only`: none but this one."""
    tables: dict[tuple[str, str], CatalogTable] = {}
    for schema, name, engine in query(
        "SELECT table_schema, table_name, engine FROM information_schema.tables "
        f"WHERE table_type = 'BASE TABLE' AND {_where('table_schema', 'table_name', only)}"
    ):
        if wants(schema, name):
            tables[schema, name] = CatalogTable(schema=schema, name=name, engine=engine or "")
    json_columns = _mariadb_json(query, only) if family == "mariadb" else set()
    for row in query(
        "SELECT table_schema, table_name, column_name, is_nullable, data_type, column_type, "
        "character_set_name, character_maximum_length, numeric_precision, numeric_scale, "
        "datetime_precision, generation_expression FROM information_schema.columns "
        f"WHERE {_where('table_schema', 'table_name', only)} ORDER BY ordinal_position"
    ):
        if row[:2] in tables:
            tables[row[:2]].columns.append(_column(row, row[:3] in json_columns))
    _read_keys(query, tables, only)
    _read_foreign_keys(query, tables, only)
    return [tables[key] for key in sorted(tables, key=".".join)]


def estimates(query: Query, family: str, wants: Callable[[str, str], bool]) -> dict[str, int]:
    """By full name, how many rows the statistics of InnoDB expect in each wanted table."""
    if family == "mysql":  # which else remembers for a day what it once told
        query("SET SESSION information_schema_stats_expiry = 0")
    return {
        f"{schema}.{name}": int(rows or 0)
        for schema, name, rows in query(
            "SELECT table_schema, table_name, table_rows FROM information_schema.tables "
            f"WHERE table_type = 'BASE TABLE' AND {_where('table_schema', 'table_name', None)}"
        )
        if wants(schema, name)
    }


def quoted(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _where(schema: str, table: str, only: tuple[str, str] | None) -> str:
    if only is None:
        return f"{schema} NOT IN ({', '.join(map(quoted, _SYSTEM))})"
    return f"{schema} = {quoted(only[0])} AND {table} = {quoted(only[1])}"


def _column(row: Sequence[Any], is_json: bool) -> CatalogColumn:
    name, nullable, native, expression = row[2], row[3], row[5], row[11]
    kind = _kind(row, is_json)
    if kind is not None and "?" in "".join(kind.labels):
        native = ""  # perhaps a character outside the BMP, which the catalog cannot show
    return CatalogColumn(
        name=name,
        kind=kind,
        nullable=nullable == "YES",
        native=native,
        generated=bool(expression),
    )


def _kind(row: Sequence[Any], is_json: bool) -> Kind | None:
    _, _, _, _, data_type, native, charset, length, precision, scale, fraction, _ = row
    if "mariadb-5.3" in native or "compressed" in native.lower():
        return None
    if native == "tinyint(1)":
        return Kind(name="bool")
    if data_type in _BITS:
        return Kind(name="int", bits=_BITS[data_type], unsigned="unsigned" in native)
    if data_type == "decimal":
        return Kind(name="decimal", precision=int(precision), scale=int(scale))
    if data_type in ("float", "double"):
        return Kind(name="float", bits=32 if data_type == "float" else 64)
    if data_type in ("time", "datetime", "timestamp"):
        return Kind(name=data_type, fraction=int(fraction or 0))
    if data_type == "enum":
        return Kind(name="enum", labels=_labels(native))
    if data_type in ("date", "uuid"):
        return Kind(name=data_type)
    if data_type == "json" or is_json:
        return Kind(name="json")
    if data_type in ("char", "varchar", "binary", "varbinary"):
        return Kind(name="text" if charset else "binary", length=int(length))
    if data_type in _LOBS:
        return Kind(name="text" if charset else "binary")
    return None


def _labels(native: str) -> tuple[str, ...]:
    return tuple(
        re.sub(r"''|\\(.)", lambda m: m[1] or "'", one[1], flags=re.DOTALL)
        for one in _LABEL.finditer(native)
    )


def _mariadb_json(query: Query, only: tuple[str, str] | None) -> set[tuple[str, ...]]:
    """MariaDB's JSON is a LONGTEXT with a check on the column."""
    found: set[tuple[str, ...]] = set()
    for schema, table, name, clause in query(
        "SELECT constraint_schema, table_name, constraint_name, check_clause "
        "FROM information_schema.check_constraints "
        f"WHERE {_where('constraint_schema', 'table_name', only)}"
    ):
        if clause.lower() == f"json_valid(`{name.lower()}`)":
            found.add((schema, table, name))
    return found


def _read_keys(
    query: Query, tables: dict[tuple[str, str], CatalogTable], only: tuple[str, str] | None
) -> None:
    partial = set()
    keys: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for schema, table, index, column, prefix in query(
        "SELECT table_schema, table_name, index_name, column_name, sub_part "
        f"FROM information_schema.statistics WHERE {_where('table_schema', 'table_name', only)} "
        "AND non_unique = 0 ORDER BY table_schema, table_name, index_name, seq_in_index"
    ):
        keys[schema, table, index].append(column)
        if prefix is not None or column is None:
            partial.add((schema, table, index))
    for (schema, table, index), columns in keys.items():
        if (schema, table) in tables and (
            index == "PRIMARY" or (schema, table, index) not in partial
        ):
            tables[schema, table].keys[index] = columns


def _read_foreign_keys(
    query: Query, tables: dict[tuple[str, str], CatalogTable], only: tuple[str, str] | None
) -> None:
    keys: dict[tuple[str, ...], list[ForeignKey]] = defaultdict(list)
    for schema, table, name, column, to_schema, to_table, to_column, delete, update in query(
        "SELECT k.table_schema, k.table_name, k.constraint_name, k.column_name, "
        "k.referenced_table_schema, k.referenced_table_name, k.referenced_column_name, "
        "r.delete_rule, r.update_rule FROM information_schema.key_column_usage k "
        "LEFT JOIN information_schema.referential_constraints r "
        "ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name "
        "AND r.table_name = k.table_name "
        f"WHERE {_where('k.table_schema', 'k.table_name', only)} "
        "AND k.referenced_table_name IS NOT NULL "
        "ORDER BY k.table_schema, k.table_name, k.constraint_name, k.ordinal_position"
    ):
        if delete is None and (schema, table) in tables:
            # Not a table without foreign keys: their numbers would be copied as they are.
            raise Misconfigured(
                f"was not shown the rules of the foreign keys of {schema}.{table}, which MariaDB "
                "hides from an account that may only SELECT",
                hint=f"run: GRANT REFERENCES ON {schema}.* TO the source's user",
            )
        keys[schema, table, name].append(
            ForeignKey(
                column=column,
                parent=f"{to_schema}.{to_table}",
                parent_column=to_column,
                on_delete=delete,
                on_update=update,
            )
        )
    for (schema, table, _), columns in keys.items():
        if (schema, table) not in tables:
            continue
        if len(columns) == 1:
            tables[schema, table].foreign_keys += columns
            continue
        tables[schema, table].composite_keys.append(
            CompositeKey(
                columns=tuple(c.column for c in columns),
                parent=columns[0].parent,
                parent_columns=tuple(c.parent_column for c in columns),
                on_delete=columns[0].on_delete,
                on_update=columns[0].on_update,
            )
        )
