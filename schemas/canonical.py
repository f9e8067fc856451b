"""One comparable form per kind: equal values compare equal whichever server gave them.

Not the wire form (schemas/kinds.py), which keeps what a server wrote: here 1.50 is 1.5 and a
document's members have one order. The invariant: two wire values of one kind mean the same iff
their canonical forms are equal. Used by verify and by tests, never on the way of a row.
"""

import json
import math
import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from schemas.codec import ABSENT, Wire
from schemas.kinds import Kind


def canonical(kind: Kind) -> Callable[[Wire], Wire]:
    """Give the function from this kind's wire values to their comparable form; null stays None.

    The function raises ValueError for ABSENT, which is no value, and for what the kind cannot hold.
    """
    form = _float32 if kind.name == "float" and kind.bits == 32 else _FORMS[kind.name]

    def of(value: Any) -> Wire:
        if value is None:
            return None
        if value is ABSENT:
            raise ValueError("cannot compare a column that its row does not carry")
        return form(value)

    return of


def _same(value: Any) -> Wire:
    return value  # type: ignore[no-any-return]


def _int(value: Any) -> Wire:
    # Also true and false: PostgreSQL's boolean next to MySQL's tinyint(1).
    number = int(value)
    return number if number == value or isinstance(value, str) else repr(value)


def _decimal(value: Any) -> Wire:
    text = str(value)
    if text.lower() in _SPECIALS:
        return _SPECIALS[text.lower()]
    sign, digits, exponent = _number_parts(text)
    if exponent >= 0:
        return f"{sign}{digits}{'0' * exponent}"
    digits = digits.rjust(1 - exponent, "0")
    return f"{sign}{digits[:exponent]}.{digits[exponent:]}"


def _float(value: Any) -> Wire:
    # Text, because Python's 0.0 == -0.0 and nan != nan, both the wrong way round here.
    number = float(value)
    return "NaN" if math.isnan(number) else repr(number)


def _float32(value: Any) -> Wire:
    # Servers print six to nine digits of one FLOAT: its 32 bits are the value, not the text.
    number = float(value)
    try:
        return _float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return _float(number)


def _clock(value: Any) -> Wire:
    text = str(value).replace("+00:00", "Z")
    found = _FRACTION.search(text)
    if found is None:
        return text
    fraction = found[1].rstrip("0")
    return f"{text[: found.start()]}{'.' if fraction else ''}{fraction}{found[2]}"


def _json(value: Any) -> Wire:
    try:
        parsed = json.loads(
            value, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant
        )
        return _written(parsed)
    except (ValueError, RecursionError):
        # MariaDB's JSON is text and, without its CHECK, may hold anything: then only the same
        # text is equal. No canonical document starts like this.
        return f"text:{value}"


def _uuid(value: Any) -> Wire:
    return str(value).lower()


def _binary(value: Any) -> Wire:
    # PostgreSQL's encode() breaks lines after 76 characters; the bytes are the value.
    return b64encode(b64decode(value.replace("\n", ""), validate=True)).decode()


_NUMBER = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_FRACTION = re.compile(r"\.(\d+)(\D.*|)$")
_SPECIALS = {"nan": "NaN", "infinity": "Infinity", "-infinity": "-Infinity"}
_FORMS: dict[str, Callable[[Any], Wire]] = {
    "int": _int,
    "decimal": _decimal,
    "float": _float,
    "bool": _int,
    "text": _same,
    "binary": _binary,
    "date": _same,
    "time": _clock,
    "datetime": _clock,
    "timestamp": _clock,
    "json": _json,
    "uuid": _uuid,
    "enum": _same,
}


class _Number(str):
    """A JSON number as text; not a Decimal, which refuses the exponents that JSON text may hold."""

    __slots__ = ()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number_parts(text: str) -> tuple[str, str, int]:
    """A number as sign, digits without outer zeros, and power of ten; zero is ("", "0", 0)."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError("cannot compare a number that holds more than digits")
    sign, whole, fraction, exponent = found.groups(default="")
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return "", "0", 0
    power = int(exponent or 0) - len(fraction) + len(digits) - len(stripped)
    return sign.strip("+"), stripped, power


def _written(value: Any) -> str:
    """One text per document: members sorted, numbers by value, strings escaped one way."""
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"{json.dumps(k)}:{_written(v)}" for k, v in sorted(value.items())) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, _Number):
        sign, digits, exponent = _number_parts(value)
        return f"{sign}{digits}e{exponent}"
    return json.dumps(value)
