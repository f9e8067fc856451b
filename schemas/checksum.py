"""The checksum of rows, the same whichever server computes it: its definition, and its Python form.

A row's line is its compared columns' fields, joined by `|`; null is the empty field. Text carries
its length, no other field holds a `|`: so two rows have one line only if they are the same. A row's
hash is the first 64 bits of the line's SHA-256, and a range's checksum their exclusive or with the
number of rows: it needs no order. SHA-256, because MySQL 9.6 and later have no MD5, PostgreSQL
before 18 no CRC.

It is a filter: unequal sums are looked at row by row. Equal rows may have unequal lines (that costs
a look), unequal rows never equal ones.
"""

from binascii import a2b_base64
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from hashlib import sha256
from operator import xor
from typing import Any, Literal

import orjson

from schemas.codec import Wire
from schemas.kinds import Kind
from schemas.mysql_text import ZERO_DATE
from schemas.ranges import Compared, Total

Side = Literal["source", "target"]

DANGLING = {"source": "!s", "target": "!t"}
"""The field of a reference to no known row: nothing on the other side equals it."""

Field = Callable[[Any], str]


def total(compared: Compared, side: Side, forms: Sequence[Sequence[Wire]]) -> Total:
    """The checksum of rows in canonical form (a reference: its parent's identity as JSON text)."""
    if not forms:
        return Total(0, 0)
    columns = [
        list(map(_field_of(compared, name, side), values))
        for name, values in zip(compared.names, zip(*forms, strict=True), strict=True)
    ]
    return Total(len(forms), reduce(xor, map(_hash, map("|".join, zip(*columns, strict=True)))))


def key_text(names: Sequence[str], values: Iterable[Wire]) -> str:
    """An identity as JSON text, from canonical values: the same from either side."""
    return orjson.dumps(dict(zip(names, values, strict=True))).decode()


def _hash(line: str) -> int:
    return int.from_bytes(sha256(line.encode()).digest()[:8], "big")


def _field_of(compared: Compared, name: str, side: Side) -> Field:
    parent = compared.parents.get(name)
    if parent is None:
        return field(compared.kinds[name])
    inner = field(parent.kind)

    def reference(value: str | None) -> str:
        identity = None if value is None else orjson.loads(value)[parent.identity]
        return "" if value is None else DANGLING[side] if identity is None else inner(identity)

    return reference


def field(kind: Kind) -> Field:
    """How a canonical value of this kind stands in a line."""
    form = _FIELDS.get(kind.name, str)
    return lambda value: "" if value is None else form(value)


def _text(value: str) -> str:
    return f"{len(value)}:{value}"


def _binary(value: str) -> str:
    return sha256(a2b_base64(value)).hexdigest()


def _clock(value: str) -> str:
    if value == ZERO_DATE:
        return f"{ZERO_DATE} 00:00:00"
    return value.replace("T", " ").replace("Z", "")


def _float(value: str) -> str:
    """Plain digits from 0.0001 to below 1e15, else all digits, `e` and the power of the first."""
    if value in ("NaN", "inf", "-inf"):
        return value.replace("inf", "Infinity")
    number = abs(float(value))
    if number == 0 or 1e-4 <= number < 1e15:
        return value.removesuffix(".0")
    mantissa, _, power = value.partition("e")
    sign = "-" if value.startswith("-") else ""
    whole, _, _ = mantissa.lstrip("-").partition(".")
    digits = mantissa.replace("-", "").replace(".", "").rstrip("0")
    return f"{sign}{digits}e{int(power) if power else len(whole) - 1}"


_FIELDS: dict[str, Field] = {
    "float": _float,
    "text": _text,
    "binary": _binary,
    "datetime": _clock,
    "timestamp": _clock,
    "json": _text,
    "enum": _text,
}
