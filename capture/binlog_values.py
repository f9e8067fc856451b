"""Single values of a row image -> wire fragments: what generated decoders call (binlog_rows.py).

Formats: MySQL's strings/decimal.cc (decimals), mysys/my_time.cc (packed times). Pure.
"""

from binascii import b2a_base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

from schemas.codec import float_fragment

ZERO_DATE = '"0000-00-00"'
_MEMO = 1 << 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that hold 0-9 decimal digits."""


def date(packed: int) -> str:
    """A DATE from its three bytes."""
    return f'"{packed >> 9:04d}-{packed >> 5 & 15:02d}-{packed & 31:02d}"'


class Seconds(dict[int, str]):
    """Texts of whole seconds by their packed number; rows of one time share them."""

    def __init__(self, text: Callable[[int], str]) -> None:
        super().__init__()
        self._text = text

    def __missing__(self, packed: int) -> str:
        if len(self) > _MEMO:
            self.clear()
        text = self[packed] = self._text(packed)
        return text


def datetime_seconds(packed: int) -> str:
    """A DATETIME2 without fraction, from its 40 bits less the sign, without quotes."""
    months = packed >> 22
    return (
        f"{months // 13:04d}-{months % 13:02d}-{packed >> 17 & 31:02d}"
        f"T{packed >> 12 & 31:02d}:{packed >> 6 & 63:02d}:{packed & 63:02d}"
    )


def timestamp_seconds(seconds: int) -> str:
    """A TIMESTAMP2 without fraction, without quotes and Z; years up to 2106."""
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def fraction(micros: int) -> str:
    """`.5` for 500,000; nothing for 0."""
    return f".{micros:06d}".rstrip("0") if micros else ""


def time(packed: int, digits: int) -> str:
    """A TIME2 from its big-endian bytes with `digits` of a fraction."""
    bits = 8 * ((digits + 1) // 2)
    # Stored with an offset so that bytes compare as times do: negative times are below it.
    whole = packed - (0x800000 << bits)
    sign, whole = ("-", -whole) if whole < 0 else ("", whole)
    part = whole & ((1 << bits) - 1)
    clock = whole >> bits
    micros = part * (1, 10000, 100, 1)[bits // 8]
    text = f"{clock >> 12 & 1023:02d}:{clock >> 6 & 63:02d}:{clock & 63:02d}"
    return f'"{sign}{text}{fraction(micros)}"'


def decimal_size(precision: int, scale: int) -> int:
    """How many bytes a DECIMAL takes."""
    whole, part = divmod(precision - scale, 9), divmod(scale, 9)
    return whole[0] * 4 + _DIGIT_BYTES[whole[1]] + part[0] * 4 + _DIGIT_BYTES[part[1]]


def decimal_source(precision: int, scale: int, value: str) -> str:
    """Python source for the text of a DECIMAL without its sign.

    `value` names the bytes as one big-endian number, already without the sign bit and made
    positive: groups of nine digits in four bytes each, a shorter group at either end.
    """
    whole, part = divmod(precision - scale, 9), divmod(scale, 9)
    before = [(whole[1], _DIGIT_BYTES[whole[1]])] * bool(whole[1]) + [(9, 4)] * whole[0]
    after = [(9, 4)] * part[0] + [(part[1], _DIGIT_BYTES[part[1]])] * bool(part[1])
    shift = 8 * decimal_size(precision, scale)
    digits_before, digits_after = "", ""
    for nth, (digits, size) in enumerate(before + after):
        shift -= 8 * size
        group = f"({value}>>{shift}&{(1 << 8 * size) - 1})"
        if nth >= len(before):
            digits_after += f"{{{group}:0{digits}d}}"
        else:
            digits_before = f"({digits_before})*{10**digits}+{group}" if digits_before else group
    return f"{{{digits_before or 0}}}" + ("." + digits_after if digits_after else "")


@cache
def decimal_reader(precision: int, scale: int) -> Callable[[bytes], str]:
    """How to read one DECIMAL that stands alone (inside JSON); generated code has its own."""
    size = decimal_size(precision, scale)
    sign = 1 << 8 * size - 1
    scope: dict[str, Callable[[int], str]] = {}
    exec(f"def text(n): return f'{decimal_source(precision, scale, 'n')}'", scope)
    text = scope["text"]

    def read(raw: bytes) -> str:
        number = int.from_bytes(raw[:size], "big")
        return text(number ^ sign) if number & sign else "-" + text(number ^ (sign - 1))

    return read


def json_datetime(packed: int, with_time: bool) -> str:
    """A DATE or DATETIME inside JSON: eight bytes, the fraction lowest."""
    whole, micros = packed >> 24, packed & 0xFFFFFF
    day, _, clock = datetime_seconds(whole).partition("T")
    return f"{day} {clock}.{micros:06d}" if with_time else day


def json_time(packed: int) -> str:
    """A TIME inside JSON: eight bytes, signed, the fraction lowest."""
    sign, packed = ("-", -packed) if packed < 0 else ("", packed)
    whole, micros = packed >> 24, packed & 0xFFFFFF
    clock = f"{whole >> 12 & 1023:02d}:{whole >> 6 & 63:02d}:{whole & 63:02d}"
    return f"{sign}{clock}.{micros:06d}"


def base64(raw: bytes) -> str:
    """A binary value."""
    return f'"{b2a_base64(raw, newline=False).decode()}"'


def uuid(raw: bytes) -> str:
    """MariaDB's UUID: its sixteen bytes stand in the log as they are written, in every version.

    Tried on 10.11: rows on disk have swapped segments for versions 1 to 5, the log does not.
    """
    text = raw.hex()
    return f'"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"'


def single(number: float) -> str:
    """A FLOAT: the shortest text that gives the same four bytes."""
    return float_fragment(number, 32)
