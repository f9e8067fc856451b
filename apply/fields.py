"""Wire values -> fields of COPY's text format, which LOAD DATA reads too: columns at a time, never
a row.

A field is text without tab, line feed or bare backslash; NULL is `\\N`. Nothing is converted here
that a server converts exactly by itself.
"""

import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from struct import pack, unpack
from typing import Any, NamedTuple

from apply import uuids
from schemas.kinds import Kind

NULL = r"\N"

Fields = Callable[[list[Any]], list[str]]
"""A column of wire values -> its fields; raises Unsendable where a value has no field."""


class Unsendable(Exception):
    """The value at `row` cannot be sent to this server without changing it."""

    def __init__(self, row: int) -> None:
        super().__init__(f"cannot send the value of row {row}")
        self.row = row


class Lines(NamedTuple):
    """Rows as the stream that COPY and LOAD DATA read: a line each, a field for each name."""

    names: Sequence[str]
    data: bytes
    rows: int

    def part(self, low: int, high: int) -> "Lines":
        """The lines from `low` to before `high`; a field holds no bare line feed."""
        some = self.data.split(b"\n")[low:high]
        return Lines(self.names, b"\n".join(some) + b"\n", len(some))

    def values(self) -> list[list[str | None]]:
        """Each line's values, for servers that take no stream."""
        lines = self.data.decode().split("\n")[:-1]
        return [[unescape(field) for field in line.split("\t")] for line in lines]


def lines(columns: Mapping[str, Sequence[str]]) -> Lines:
    """Fields by column as lines."""
    rows = list(map("\t".join, zip(*columns.values(), strict=True)))
    return Lines(list(columns), ("\n".join(rows) + "\n").encode(), len(rows))


def plain(values: list[Any]) -> list[str]:
    """Numbers, clocks, UUIDs: text that needs no escape."""
    if None in values:
        return [NULL if v is None else str(v) for v in values]
    return list(map(str, values))


def text(values: list[Any]) -> list[str]:
    """Any text; escapes the whole column in one go, which is five times as fast as value by
    value.
    """
    whole = "\0".join(["" if v is None else v for v in values])
    if whole.count("\0") != len(values) - 1:
        return [NULL if v is None else _escape(v).replace("\0", "\\\0") for v in values]
    fields = _escape(whole).split("\0")
    if None in values:
        return [NULL if v is None else field for v, field in zip(values, fields, strict=True)]
    return fields


def _escape(value: str) -> str:
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if "\n" in value:
        value = value.replace("\n", "\\n")
    if "\t" in value:
        value = value.replace("\t", "\\t")
    return value.replace("\r", "\\r") if "\r" in value else value


def flag(values: list[Any]) -> list[str]:
    """Booleans as 0 and 1; other integers of tinyint(1) as they are, for the server to judge."""
    return [NULL if v is None else str(int(v)) for v in values]


def single(values: list[Any]) -> list[str]:
    """32-bit floats with all digits of their double: MySQL refuses the shortest text of the
    largest.
    """
    return [
        NULL if v is None else v if isinstance(v, str) else repr(unpack("f", pack("f", v))[0])
        for v in values
    ]


def _without_negative_zero(fields: Fields) -> Fields:
    """For servers that take -0 for 0 without a word: it is refused."""

    def refusing(values: list[Any]) -> list[str]:
        sent = fields(values)
        if "-0.0" in sent:
            raise Unsendable(sent.index("-0.0"))
        return sent

    return refusing


single_but_negative_zero = _without_negative_zero(single)
double_but_negative_zero = _without_negative_zero(plain)


def _hexadecimal(prefix: str) -> Fields:
    """Binary as `prefix` and hex digits."""

    def fields(values: list[Any]) -> list[str]:
        return [NULL if v is None else prefix + a2b_base64(v).hex() for v in values]

    return fields


hexadecimal = _hexadecimal("")
hexadecimal_with_prefix = _hexadecimal(r"\\x")


def uuid_of_bytes(values: list[Any]) -> list[str]:
    """Sixteen bytes as a UUID's text."""
    fields = [NULL if v is None else uuids.text_of(v) for v in values]
    _refuse_others(fields, values)
    return fields


def _bytes_of_uuid(prefix: str) -> Fields:
    """A UUID's text as `prefix` and hex digits."""

    def fields(values: list[Any]) -> list[str]:
        _refuse_others(values, values)
        return [NULL if v is None else prefix + v.replace("-", "").lower() for v in values]

    return fields


bytes_of_uuid = _bytes_of_uuid("")
bytes_of_uuid_with_prefix = _bytes_of_uuid(r"\\x")


def _refuse_others(texts: list[Any], values: list[Any]) -> None:
    for row, (text_, value) in enumerate(zip(texts, values, strict=True)):
        if value is not None and not uuids.TEXT.fullmatch(text_):
            raise Unsendable(row)


def of_uuid(kind: Kind, family: str, *, prefix: bool = False) -> Fields | None:
    """How a UUID is written to a column of another form than the source's; None where it is not
    one.
    """
    if uuids.is_text_elsewhere(kind, family):
        return uuid_of_bytes
    if uuids.is_bytes_elsewhere(kind, family):
        return bytes_of_uuid_with_prefix if prefix else bytes_of_uuid
    return None


def without_zone(values: list[Any]) -> list[str]:
    """Instants as UTC clocks, for servers that do not read the Z."""
    return [NULL if v is None else v[:-1] if v[-1] == "Z" else v for v in values]


_LONG_NUMBER = re.compile(r"[0-9][0-9.]{14}|[0-9][eE]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def json_in_doubles(values: list[Any]) -> list[str]:
    """Documents for a server that keeps their numbers as 64-bit integers or doubles: others are
    refused.
    """
    for row, value in enumerate(values):
        if value is not None and _LONG_NUMBER.search(value) and not _numbers_survive(value):
            raise Unsendable(row)
    return text(values)


def _numbers_survive(document: str) -> bool:
    return all(map(_survives, _NUMBER.findall(_STRING.sub('""', document))))


def _survives(number: str) -> bool:
    from decimal import Decimal, InvalidOperation

    if number.lstrip("-").isdigit() and -(2**63) <= int(number) < 2**64:
        return True
    try:
        return Decimal(repr(float(number))) == Decimal(number)
    except (InvalidOperation, OverflowError):
        return False


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r"}


NATIVE: Mapping[Fields, str] = {
    plain: "plain",
    text: "text",
    flag: "flag",
    single: "single",
    single_but_negative_zero: "single, not -0.0",
    double_but_negative_zero: "plain, not -0.0",
    hexadecimal: "hexadecimal",
    hexadecimal_with_prefix: "hexadecimal with prefix",
    uuid_of_bytes: "uuid of bytes",
    bytes_of_uuid: "bytes of uuid",
    bytes_of_uuid_with_prefix: "bytes of uuid with prefix",
    without_zone: "without zone",
    json_in_doubles: "json in doubles",
}
"""What native/src/stage.rs calls each of them."""


def unescape(field: str) -> str | None:
    """The value of one field."""
    if field == NULL:
        return None
    return _ESCAPED.sub(lambda m: _PLAIN.get(m[1], m[1]), field) if "\\" in field else field
