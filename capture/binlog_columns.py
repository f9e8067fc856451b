"""How one column of a row image becomes a wire fragment: the source lines of generated decoders.

A column is fixed (read by a struct code) or has a length prefix. Its lines turn `x`, the raw value,
into `c`, whose text is the JSON fragment. Formats: MySQL's log_event.cc and field.cc.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from capture import binlog_table as bt
from capture import binlog_values as values
from capture.binlog_json import json_text
from capture.binlog_kinds import Charsets
from capture.binlog_table import MapColumn
from schemas.codec import quote
from schemas.kinds import Kind

_CODES = {bt.TINY: "b", bt.SHORT: "h", bt.LONG: "i", bt.LONGLONG: "q"}
_DOUBLES = {bt.FLOAT: "f", bt.DOUBLE: "d"}

UTF8 = ("utf8mb4", "utf8mb3", "utf8", "ascii")
"""Character sets whose bytes are UTF-8."""

BOOLS = ["false", "true", *map(str, range(2, 128)), *map(str, range(-128, 0))]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnCode:
    """`code`: the struct code of a fixed column, or "" and `prefix` bytes of length before it.

    lines: what sets `c` from `x`. names: what the lines need besides the shared names; `@` in a
    name stands for the column's number.
    """

    code: str = ""
    prefix: int = 0
    lines: tuple[str, ...] = ("c=x",)
    names: Mapping[str, Any] = field(default_factory=dict)


SHARED: dict[str, Any] = {
    "q": quote,
    "fb": int.from_bytes,
    "BOOLS": BOOLS,
    "DATES": values.Seconds(values.date),
    "CLOCKS": values.Seconds(values.datetime_seconds),
    "STAMPS": values.Seconds(values.timestamp_seconds),
    "ZERO": values.ZERO_DATE,
    "clock": values.time,
    "json_text": json_text,
    "base64": values.base64,
    "uuid": values.uuid,
    "single": values.single,
}
"""Names every generated decoder may use."""


def column_code(column: MapColumn, kind: Kind | None, charsets: Charsets) -> ColumnCode:
    """The code that reads `column` as `kind`; None: that steps over it."""
    code, prefix = _layout(column)
    if kind is None:
        return ColumnCode(code=code, prefix=prefix, lines=())
    lines, names = _LINES[kind.name](column, kind, charsets)
    return ColumnCode(code=code, prefix=prefix, lines=tuple(lines), names=names)


def _layout(column: MapColumn) -> tuple[str, int]:
    kind, size = column.type, column.size
    if kind in _CODES:
        return _CODES[kind].upper() if column.unsigned else _CODES[kind], 0
    if kind in _DOUBLES:
        return _DOUBLES[kind], 0
    if kind in (bt.VARCHAR, bt.VAR_STRING, bt.STRING):
        return "", 1 if size < 256 else 2
    if kind in (bt.BLOB, bt.JSON, bt.GEOMETRY, bt.VECTOR, 140):
        return "", size
    if kind == 141:
        return "", 1 if size < 256 else 2
    fixed = {
        bt.INT24: 3,
        bt.DATE: 3,
        bt.YEAR: 1,
        bt.ENUM: size,
        bt.SET: size,
        bt.BIT: (size >> 8) + bool(size & 255),
        bt.TIME2: 3 + (size + 1) // 2,
        bt.DATETIME2: 5 + (size + 1) // 2,
        bt.TIMESTAMP2: 4 + (size + 1) // 2,
        7: 4,
        11: 3,
        12: 8,
    }
    if kind == bt.DECIMAL:
        return f"{values.decimal_size(size, column.scale)}s", 0
    return f"{fixed[kind]}s", 0


_Lines = tuple[list[str], dict[str, Any]]


def _int(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    if column.type == bt.INT24:
        return [f"c=fb(x,'little',signed={not column.unsigned})"], {}
    return ["c=x"], {}


def _bool(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    return ["c=BOOLS[x]"], {}  # a negative number counts from the end


def _float(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    return ["c=single(x)" if kind.bits == 32 else "c=repr(x)"], {}


def _decimal(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    sign = 1 << 8 * values.decimal_size(column.size, column.scale) - 1
    text = values.decimal_source(column.size, column.scale, "v")
    return [
        "v=fb(x,'big')",
        f"if v&{sign}: s='';v^={sign}",
        f"else: s='-';v^={sign - 1}",
        f"c=f'\"{{s}}{text}\"'",
    ], {}


def _date(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    return ["c=DATES[fb(x,'little')]"], {}


def _time(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    return [f"c=clock(fb(x,'big'),{column.size})"], {}


def _moment(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    """DATETIME2 and TIMESTAMP2: whole seconds through a memo, then the fraction's bytes."""
    stamp = column.type == bt.TIMESTAMP2
    memo, zone, width = ("STAMPS", "Z", 4) if stamp else ("CLOCKS", "", 5)
    part = (column.size + 1) // 2
    lines = ["v=fb(x,'big')" if stamp else f"v=fb(x,'big')-{1 << 8 * (width + part) - 1}"]
    if not part:
        return [*lines, f"c=f'\"{{{memo}[v]}}{zone}\"' if v else ZERO"], {}
    scale = (1, 10000, 100, 1)[part]
    return [
        *lines,
        f"u=(v&{(1 << 8 * part) - 1})*{scale}",
        f"if u: c='\"'+{memo}[v>>{8 * part}]+f'.{{u:06d}}'.rstrip('0')+'{zone}\"'",
        f"else: c=f'\"{{{memo}[v>>{8 * part}]}}{zone}\"' if v else ZERO",
    ], {}


def _text(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    charset = charsets(column.collation)
    if charset.name in UTF8:
        return ["c=q(x.decode())"], {}
    name = f"decode_{charset.name}"
    return [f"c=q({name}(x))"], {name: charset.decode}


def _binary(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    # BINARY(n) is logged without its trailing zero bytes.
    pad = f".ljust({column.size},b'\\0')" if column.type == bt.STRING else ""
    return [f"c=base64(x{pad})"], {}


def _uuid(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    return ["c=uuid(x.ljust(16,b'\\0'))"], {}


def _json(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    if column.type == bt.JSON:
        return ["c=q(json_text(x))"], {}
    return _text(column, kind, charsets)


def _enum(column: MapColumn, kind: Kind, charsets: Charsets) -> _Lines:
    return ["c=labels_@[fb(x,'little')]"], {"labels_@": ['""', *map(quote, kind.labels)]}


_LINES: dict[str, Callable[[MapColumn, Kind, Charsets], _Lines]] = {
    "int": _int,
    "bool": _bool,
    "float": _float,
    "decimal": _decimal,
    "date": _date,
    "time": _time,
    "datetime": _moment,
    "timestamp": _moment,
    "text": _text,
    "binary": _binary,
    "uuid": _uuid,
    "json": _json,
    "enum": _enum,
}
