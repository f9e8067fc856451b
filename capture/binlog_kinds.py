"""Table maps -> kinds of columns, with hints for what the binlog does not say; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from capture import binlog_table as bt
from capture.binlog_table import MapColumn, TableMap
from schemas.errors import Unsupported
from schemas.kinds import Kind

Decode = Callable[[bytes], str]
BINARY_CHARSET = "binary"

_INTS = {bt.TINY: 8, bt.SHORT: 16, bt.INT24: 24, bt.LONG: 32, bt.LONGLONG: 64}
_FRACTIONS = {bt.TIME2: "time", bt.DATETIME2: "datetime", bt.TIMESTAMP2: "timestamp"}
_TYPE_NAMES = {
    bt.YEAR: "YEAR",
    bt.BIT: "BIT",
    bt.SET: "SET",
    bt.GEOMETRY: "GEOMETRY",
    bt.VECTOR: "VECTOR",
    7: "TIMESTAMP in the format before MySQL 5.6",
    11: "TIME in the format before MySQL 5.6",
    12: "DATETIME in the format before MySQL 5.6",
    140: "compressed BLOB or TEXT",
    141: "compressed VARCHAR or VARBINARY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Charset:
    """A character set: its name, the most bytes of one character, how to decode."""

    name: str
    max_bytes: int
    decode: Decode


Charsets = Callable[[int], Charset]
"""A collation's number -> its character set."""


def stored_kind(column: MapColumn, charsets: Charsets) -> Kind | None:
    """The kind that the log alone gives; None for a type that cannot be carried."""
    kind = column.type
    if kind in _INTS:
        return Kind(name="int", bits=_INTS[kind], unsigned=column.unsigned)
    if kind in _FRACTIONS:
        return Kind(name=_FRACTIONS[kind], fraction=column.size)  # type: ignore[arg-type]
    if kind == bt.DECIMAL:
        return Kind(name="decimal", precision=column.size, scale=column.scale)
    if kind in (bt.FLOAT, bt.DOUBLE):
        return Kind(name="float", bits=32 if kind == bt.FLOAT else 64)
    if kind == bt.DATE:
        return Kind(name="date")
    if kind == bt.JSON:
        return Kind(name="json")
    if kind == bt.ENUM:
        decode = charsets(column.collation).decode
        return Kind(name="enum", labels=tuple(decode(one) for one in column.labels))
    if kind in (bt.VARCHAR, bt.VAR_STRING, bt.STRING, bt.BLOB):
        charset = charsets(column.collation)
        length = None if kind == bt.BLOB else column.size // charset.max_bytes
        name = "binary" if charset.name == BINARY_CHARSET else "text"
        return Kind(name=name, length=length)  # type: ignore[arg-type]
    return None


def refined(stored: Kind | None, hint: Kind | None) -> Kind | None:
    """The hint where it fits what is stored (tinyint(1), UUID, MariaDB JSON), else the stored kind.

    Equal widths and names are what makes a hint fit: it may come from a later catalog.
    """
    if stored is None or hint is None or stored == hint:
        return stored
    fits = {
        "bool": stored.name == "int" and stored.bits == 8 and not stored.unsigned,
        "uuid": stored.name == "binary" and stored.length == 16,
        "json": stored.name == "text" and stored.length is None,
    }
    return hint if fits.get(hint.name, False) else stored


def type_name(column: MapColumn) -> str:
    """What people call a type that cannot be carried."""
    return _TYPE_NAMES.get(column.type, f"type {column.type}")


def map_kinds(
    table: TableMap, hints: Mapping[str, Kind | None], charsets: Charsets, skipped: frozenset[str]
) -> list[Kind | None]:
    """The kind of every column of a map; None for those in `skipped`.

    Raises Unsupported for a type that cannot be carried, by the catalog's word too: a hint of None
    says that the column looks like a known type and is none (INET6).
    """
    kinds: list[Kind | None] = []
    for column in table.columns:
        if column.name in skipped:
            kinds.append(None)
            continue
        kind = refined(stored_kind(column, charsets), hints.get(column.name))
        if kind is None or hints.get(column.name, kind) is None:
            name = f"{table.schema}.{table.name}.{column.name}"
            raise Unsupported(
                f"found column {name} of a type that is not carried yet ({type_name(column)})",
                hint=f'exclude it: exclude_columns = ["{name}"]',
            )
        kinds.append(kind)
    return kinds
