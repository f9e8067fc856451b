"""What PostgreSQL's catalog says about tables: hints for the log's descriptions, and the tables
there are. It knows today's tables only; which rows have which layout is the log's word.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from capture.postgres_session import Session, quoted
from schemas.table import CompositeKey, ForeignKey


class CatalogColumn(NamedTuple):
    """One column now; labels: an enum's, else None."""

    type_oid: int
    typmod: int
    nullable: bool
    native: str
    labels: tuple[str, ...] | None
    generated: bool


class Index(NamedTuple):
    """A valid unique index over plain columns, without a condition."""

    name: str
    columns: tuple[str, ...]
    is_primary: bool
    is_replica_identity: bool
    is_immediate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One table, or one partition of a table; kind: "r" or "p" (partitioned)."""

    oid: int
    schema: str
    name: str
    kind: str
    replica_identity: str
    is_logged: bool
    columns: Mapping[str, CatalogColumn] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    composite_keys: tuple[CompositeKey, ...] = ()

    @property
    def full_name(self) -> str:
        """schema.name."""
        return f"{self.schema}.{self.name}"

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The primary key's columns, () without one."""
        return next((i.columns for i in self.indexes if i.is_primary), ())

    @property
    def uniques(self) -> tuple[tuple[str, ...], ...]:
        """The unique keys other than the primary key, each once, in a fixed order."""
        return tuple(sorted({i.columns for i in self.indexes if not i.is_primary}))


_RELATIONS = """
    SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text,
           c.relreplident::text, c.relpersistence = 'p'
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
_TABLES = """
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
_COLUMNS = """
    SELECT a.attrelid::bigint, a.attname::text, a.atttypid::bigint, a.atttypmod, NOT a.attnotnull,
           pg_catalog.format_type(a.atttypid, a.atttypmod), t.typtype = 'e',
           ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
                 WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
           a.attgenerated <> ''
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum
"""
_INDEXES = """
    SELECT i.indrelid::bigint, c.relname::text, i.indisprimary, i.indisreplident, i.indimmediate,
           ARRAY(SELECT a.attname::text
                 FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                 JOIN pg_catalog.pg_attribute a
                   ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 WHERE k.place <= i.indnkeyatts ORDER BY k.place)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = ANY(%s::oid[]) AND i.indisunique AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL
    ORDER BY i.indrelid, c.relname COLLATE "C"
"""
_FOREIGN_KEYS = """
    SELECT f.conrelid::bigint, a.attname::text, n.nspname || '.' || p.relname, b.attname::text,
           f.confdeltype::text, f.confupdtype::text
    FROM pg_catalog.pg_constraint f
    JOIN pg_catalog.pg_class p ON p.oid = f.confrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
    JOIN pg_catalog.pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = f.confkey[1]
    WHERE f.conrelid = ANY(%s::oid[]) AND f.contype = 'f' AND cardinality(f.conkey) = 1
      AND NOT p.relispartition
    ORDER BY f.conrelid, f.conname COLLATE "C"
"""
_COMPOSITE_KEYS = """
    SELECT f.conrelid::bigint, n.nspname || '.' || p.relname,
           ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY k(attnum, place)
                 JOIN pg_catalog.pg_attribute a
                   ON a.attrelid = f.conrelid AND a.attnum = k.attnum ORDER BY k.place),
           ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY k(attnum, place)
                 JOIN pg_catalog.pg_attribute a
                   ON a.attrelid = f.confrelid AND a.attnum = k.attnum ORDER BY k.place)
    FROM pg_catalog.pg_constraint f
    JOIN pg_catalog.pg_class p ON p.oid = f.confrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
    WHERE f.conrelid = ANY(%s::oid[]) AND f.contype = 'f' AND cardinality(f.conkey) > 1
      AND NOT p.relispartition
    ORDER BY f.conrelid, f.conname COLLATE "C"
"""
_TYPES = """
    SELECT k.type_oid, k.typmod, pg_catalog.format_type(k.type_oid::oid, k.typmod),
           t.typtype = 'e',
           ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
                 WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
    FROM unnest(%s::bigint[], %s::int[]) k(type_oid, typmod)
    LEFT JOIN pg_catalog.pg_type t ON t.oid = k.type_oid
"""
_SIZES = """
    SELECT c.oid::bigint, CASE WHEN c.relkind = 'p' THEN (
               SELECT coalesce(sum(pg_catalog.pg_relation_size(p.relid)), 0)
               FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.isleaf
           ) ELSE pg_catalog.pg_relation_size(c.oid) END > 0
    FROM pg_catalog.pg_class c WHERE c.oid = ANY(%s::oid[])
"""
_ACTIONS = {
    "a": "NO ACTION",
    "r": "RESTRICT",
    "c": "CASCADE",
    "n": "SET NULL",
    "d": "SET DEFAULT",
}


def tables(session: Session) -> list[Relation]:
    """Every table of the database, partitioned ones as a whole, ordered by full name."""
    return _filled(session, session.query(_RELATIONS + _TABLES))


def names(session: Session) -> dict[int, tuple[str, str]]:
    """Schema and name of every table of the database, partitioned ones as a whole, by oid."""
    return {row[0]: (row[1], row[2]) for row in session.query(_RELATIONS + _TABLES)}


def by_oid(session: Session, oids: Iterable[int]) -> dict[int, Relation]:
    """The relations that still exist, by their oid."""
    rows = session.query(_RELATIONS + "WHERE c.oid = ANY(%s::oid[])", list(oids))
    return {r.oid: r for r in _filled(session, rows)}


def partitions(session: Session, oid: int) -> list[Relation]:
    """All partitions below a partitioned table, partitioned ones included."""
    below = session.query(
        "SELECT relid::oid::bigint FROM pg_catalog.pg_partition_tree(%s::oid::regclass) "
        "WHERE relid::oid <> %s",
        oid,
        oid,
    )
    found = by_oid(session, [row[0] for row in below]).values()
    return sorted(found, key=lambda r: r.full_name)


def estimates(session: Session, relations: Sequence[Relation]) -> dict[str, int]:
    """By full name, how many rows the planner expects: pg_class.reltuples brought up to the
    table's size of now, where it was never analysed too. Of an empty table it expects some.
    """
    is_filled = dict(session.query(_SIZES, [r.oid for r in relations]))
    return {r.full_name: _planned(session, r) if is_filled.get(r.oid) else 0 for r in relations}


def _planned(session: Session, relation: Relation) -> int:
    only = "" if relation.kind == "p" else "ONLY "
    name = f"{quoted(relation.schema)}.{quoted(relation.name)}"
    plan = session.one(f"EXPLAIN (FORMAT JSON) SELECT FROM {only}{name}")
    return int(plan[0]["Plan"]["Plan Rows"])


def types(
    session: Session, wanted: Sequence[tuple[int, int]]
) -> list[tuple[str, tuple[str, ...] | None]]:
    """For each (type oid, typmod) its text and, for an enum, its labels."""
    oids, typmods = [o for o, _ in wanted], [m for _, m in wanted]
    found = {
        (o, m): (native or "", tuple(labels) if is_enum else None)
        for o, m, native, is_enum, labels in session.query(_TYPES, oids, typmods)
    }
    return [found[key] for key in wanted]


def _filled(session: Session, rows: Sequence[tuple[object, ...]]) -> list[Relation]:
    oids = [row[0] for row in rows]
    if not oids:
        return []
    columns: dict[object, dict[str, CatalogColumn]] = defaultdict(dict)
    for oid, name, type_oid, typmod, nullable, native, is_enum, labels, generated in session.query(
        _COLUMNS, oids
    ):
        columns[oid][name] = CatalogColumn(
            type_oid, typmod, nullable, native, tuple(labels) if is_enum else None, generated
        )
    indexes: dict[object, list[Index]] = defaultdict(list)
    for oid, name, primary, replica, immediate, names in session.query(_INDEXES, oids):
        indexes[oid].append(Index(name, tuple(names), primary, replica, immediate))
    keys: dict[object, list[ForeignKey]] = defaultdict(list)
    for oid, column, parent, parent_column, deleted, updated in session.query(_FOREIGN_KEYS, oids):
        keys[oid].append(
            ForeignKey(
                column=column,
                parent=parent,
                parent_column=parent_column,
                on_delete=_ACTIONS[deleted],
                on_update=_ACTIONS[updated],
            )
        )
    composites: dict[object, list[CompositeKey]] = defaultdict(list)
    for oid, parent, mine, theirs in session.query(_COMPOSITE_KEYS, oids):
        composites[oid].append(
            CompositeKey(columns=tuple(mine), parent=parent, parent_columns=tuple(theirs))
        )
    return [
        Relation(
            oid=int(str(row[0])),
            schema=str(row[1]),
            name=str(row[2]),
            kind=str(row[3]),
            replica_identity=str(row[4]),
            is_logged=bool(row[5]),
            columns=columns[row[0]],
            indexes=tuple(indexes[row[0]]),
            foreign_keys=tuple(keys[row[0]]),
            composite_keys=tuple(composites[row[0]]),
        )
        for row in rows
    ]
