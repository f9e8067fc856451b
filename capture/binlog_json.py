"""MySQL's binary JSON -> the text that SELECT gives for it; pure.

Format: MySQL's sql-common/json_binary.h; text: sql-common/json_dom.cc (wrapper_to_string).
"""

from binascii import b2a_base64
from struct import Struct, error

from capture.binlog_values import decimal_reader, json_datetime, json_time
from schemas.codec import quote
from schemas.errors import Unsupported

_I16, _U16, _I32, _U32, _I64, _U64, _F64 = (Struct("<" + f).unpack_from for f in "hHiIqQd")
_LITERALS = ("null", "true", "false")
_NUMBERS = {5: _I16, 6: _U16, 7: _I32, 8: _U32, 9: _I64, 10: _U64}
_INLINE_SMALL = (4, 5, 6)
_INLINE_LARGE = (4, 5, 6, 7, 8)
_DATE, _TIMESTAMP, _TIME, _DATETIME, _DECIMAL = 10, 7, 11, 12, 246


def json_text(data: bytes) -> str:
    """One document; an empty one is JSON's null, as the server reads it (a failed conversion)."""
    if not data:
        return "null"
    try:
        return _value(data[0], data, 1)
    except (IndexError, KeyError, ValueError, RecursionError, error):
        raise Unsupported(
            "found a JSON value of unknown form in the binlog",
            hint="exclude the column, or report it",
        ) from None  # the cause may hold the value


def _value(kind: int, data: bytes, at: int) -> str:
    if kind < 4:
        return _container(kind, data, at)
    if kind == 12:
        size, at = _size(data, at)
        return quote(data[at : at + size].decode())
    if kind == 4:
        return _LITERALS[data[at]]
    if kind == 11:
        return double_text(_F64(data, at)[0])
    if kind == 15:
        return _opaque(data, at)
    return str(_NUMBERS[kind](data, at)[0])


def _container(kind: int, data: bytes, start: int) -> str:
    """Offsets inside count from the container's own start; large ones have four bytes."""
    large = kind & 1
    number, width = (_U32, 4) if large else (_U16, 2)
    inline = _INLINE_LARGE if large else _INLINE_SMALL
    (count,) = number(data, start)
    at = start + 2 * width
    is_object = kind < 2
    keys = []
    if is_object:
        for _ in range(count):
            begin = start + number(data, at)[0]
            (size,) = _U16(data, at + width)
            keys.append(quote(data[begin : begin + size].decode()))
            at += width + 2
    values = []
    for _ in range(count):
        one = data[at]
        values.append(
            _value(one, data, at + 1)
            if one in inline
            else _value(one, data, start + number(data, at + 1)[0])
        )
        at += 1 + width
    if is_object:
        return "{" + ", ".join(f"{k}: {v}" for k, v in zip(keys, values, strict=True)) + "}"
    return "[" + ", ".join(values) + "]"


def _size(data: bytes, at: int) -> tuple[int, int]:
    """A length in groups of seven bits, lowest first."""
    size = shift = 0
    while True:
        size |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return size, at
        shift += 7


def _opaque(data: bytes, at: int) -> str:
    """A value of a column's type that JSON has no type for."""
    kind = data[at]
    size, at = _size(data, at + 1)
    raw = data[at : at + size]
    if kind == _DECIMAL:
        return decimal_reader(raw[0], raw[1])(raw[2:])
    if kind in (_DATE, _DATETIME, _TIMESTAMP):
        return f'"{json_datetime(_U64(raw)[0], kind != _DATE)}"'
    if kind == _TIME:
        return f'"{json_time(_I64(raw)[0])}"'
    return f'"base64:type{kind}:{b2a_base64(raw, newline=False).decode()}"'


def double_text(number: float) -> str:
    """A double as the server prints it: shortest digits, an exponent outside 1e-15..1e15
    unless digits follow the point.
    """
    sign = "-" if str(number).startswith("-") else ""
    digits, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, part = digits.partition(".")
    part = "" if part == "0" else part
    point = len(whole) + int(exponent or 0)
    digits = (whole + part).lstrip("0")
    point -= len(whole + part) - len(digits)
    digits = digits.rstrip("0")
    if not digits:
        return sign + "0.0"
    if -15 < point <= 15 or 15 < point < len(digits):
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if len(digits) <= point:
            return f"{sign}{digits.ljust(point, '0')}.0"
        return f"{sign}{digits[:point]}.{digits[point:]}"
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{point - 1}"
