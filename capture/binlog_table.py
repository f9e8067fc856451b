"""Table maps: how the binlog describes the rows that follow; pure.

With `binlog_row_metadata = FULL` a map has names, signedness, charsets, enum labels and the primary
key, so that rows are decoded by the description of their own moment, never by today's catalog.
Format: MySQL's Table_map_event in libbinlogevents/include/rows_event.h; MariaDB 10.5 has the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from capture.binlog import packed_int
from schemas.errors import Unsupported

TINY, SHORT, LONG, FLOAT, DOUBLE, LONGLONG, INT24 = 1, 2, 3, 4, 5, 8, 9
DATE, YEAR, VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2 = 10, 13, 15, 16, 17, 18, 19
VECTOR, JSON, DECIMAL, ENUM, SET, BLOB, VAR_STRING, STRING, GEOMETRY = (
    *(242, 245, 246, 247, 248),
    *(252, 253, 254, 255),
)
_BLOBS = (249, 250, 251, 252)
_NUMERIC = {TINY, SHORT, INT24, LONG, LONGLONG, DECIMAL, FLOAT, DOUBLE, YEAR}
_CHARACTER = {
    "mysql": {VARCHAR, VAR_STRING, STRING, *_BLOBS, VECTOR},
    "mariadb": {VARCHAR, VAR_STRING, STRING, *_BLOBS, GEOMETRY},
}
"""Types whose charset is listed, by family: tried on MySQL 9.7 and MariaDB 10.11."""
_META_SIZES = {
    **dict.fromkeys((FLOAT, DOUBLE, BLOB, GEOMETRY, JSON, VECTOR, TIMESTAMP2, DATETIME2, TIME2), 1),
    **dict.fromkeys((VARCHAR, BIT, DECIMAL, VAR_STRING, STRING, ENUM, SET), 2),
    **dict.fromkeys((249, 250, 251, 140), 1),
    141: 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapColumn:
    """One column as stored: `size` is bytes of a string, digits of a decimal, digits of a fraction,
    or bytes of a length prefix; `scale` a decimal's. `labels` are bytes in the column's charset.
    """

    name: str
    type: int
    size: int
    scale: int
    nullable: bool
    unsigned: bool
    collation: int
    labels: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMap:
    """One description. `primary_key` holds places in `columns`."""

    schema: str
    name: str
    columns: tuple[MapColumn, ...]
    primary_key: tuple[int, ...]


def table_id(body: bytes) -> int:
    """The number by which row events name the map."""
    return int.from_bytes(body[:6], "little")


def table_name(body: bytes) -> tuple[str, str]:
    """Schema and table, without parsing the rest."""
    schema_end = 9 + body[8]
    table_at = schema_end + 2
    return (
        body[9:schema_end].decode(),
        body[table_at : table_at + body[schema_end + 1]].decode(),
    )


def parse(body: bytes, family: str) -> TableMap:
    """Parse TABLE_MAP; raises Unsupported when it lacks the columns' names."""
    schema, name = table_name(body)
    count, at = packed_int(body, 8 + 1 + body[8] + 1 + 1 + body[9 + body[8] + 1] + 1)
    types = body[at : at + count]
    meta_size, at = packed_int(body, at + count)
    metas = list(_metas(types, body[at : at + meta_size]))
    at += meta_size
    nulls = int.from_bytes(body[at : at + (count + 7) // 8], "little")
    optional = dict(_fields(body, at + (count + 7) // 8))
    if count and 4 not in optional:
        raise Unsupported(
            f"found a description of {schema}.{name} without column names in the binlog",
            hint="run: SET GLOBAL binlog_row_metadata = FULL",
        )
    real = [meta[0] for meta in metas]
    names = [text.decode() for text in _texts(optional.get(4, b""), 0)]
    unsigned = _unsigned(real, optional.get(1, b""))
    collations = _collations(real, optional, _CHARACTER[family])
    labels = iter([tuple(one) for one in _label_lists(optional.get(6, b""))])
    sets = iter([tuple(one) for one in _label_lists(optional.get(5, b""))])
    columns = tuple(
        MapColumn(
            name=names[i],
            type=kind,
            size=size,
            scale=scale,
            nullable=bool(nulls >> i & 1),
            unsigned=unsigned[i],
            collation=collations[i],
            labels=next(labels, ()) if kind == ENUM else next(sets, ()) if kind == SET else (),
        )
        for i, (kind, size, scale) in enumerate(metas)
    )
    return TableMap(schema=schema, name=name, columns=columns, primary_key=_primary_key(optional))


def _metas(types: bytes, meta: bytes) -> Iterator[tuple[int, int, int]]:
    """The real type, size and scale of each column."""
    at = 0
    for kind in types:
        width = _META_SIZES.get(kind, 0)
        one = meta[at : at + width]
        at += width
        if kind in (STRING, ENUM, SET):
            if one[0] & 0x30 != 0x30:
                # Lengths above 255 have their two high bits, inverted, in the type's byte.
                yield one[0] | 0x30, one[1] | ((one[0] & 0x30) ^ 0x30) << 4, 0
            else:
                yield one[0], one[1], 0
        elif kind == DECIMAL:
            yield kind, one[0], one[1]
        elif kind in (249, 250, 251):
            yield BLOB, one[0], 0
        else:
            yield kind, int.from_bytes(one, "little"), 0


def _fields(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at < len(body):
        field = body[at]
        size, at = packed_int(body, at + 1)
        yield field, body[at : at + size]
        at += size


def _texts(data: bytes, at: int, count: int | None = None) -> Iterator[bytes]:
    while at < len(data) and count != 0:
        size, at = packed_int(data, at)
        yield data[at : at + size]
        at += size
        count = None if count is None else count - 1


def _label_lists(data: bytes) -> Iterator[list[bytes]]:
    at = 0
    while at < len(data):
        count, at = packed_int(data, at)
        labels = list(_texts(data, at, count))
        at += sum(len(one) + (1 if len(one) < 251 else 3) for one in labels)
        yield labels


def _ints(data: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = packed_int(data, at)
        numbers.append(number)
    return numbers


def _unsigned(types: list[int], bits: bytes) -> list[bool]:
    """Signedness has one bit, highest first, for each numeric column; YEAR counts as one."""
    result, at = [], 0
    for kind in types:
        if kind in _NUMERIC and at // 8 < len(bits):
            result.append(bool(bits[at // 8] & 0x80 >> at % 8))
            at += 1
        else:
            result.append(False)
    return result


def _collations(types: list[int], optional: dict[int, bytes], character: set[int]) -> list[int]:
    result = [0] * len(types)
    for wanted, default, listed in ((character, 2, 3), ({ENUM, SET}, 10, 11)):
        places = [i for i, kind in enumerate(types) if kind in wanted]
        if listed in optional:
            for place, collation in zip(places, _ints(optional[listed]), strict=True):
                result[place] = collation
        elif default in optional:
            common, *pairs = _ints(optional[default])
            for place in places:
                result[place] = common
            for nth, collation in zip(pairs[::2], pairs[1::2], strict=True):
                result[places[nth]] = collation
    return result


def _primary_key(optional: dict[int, bytes]) -> tuple[int, ...]:
    if 9 in optional:
        return tuple(_ints(optional[9])[::2])
    return tuple(_ints(optional.get(8, b"")))
