"""What MySQL and MariaDB say in their text protocol, as wire fragments; pure, no driver.

The text protocol is exact for every kind but FLOAT (six digits), and zero-fills: `expression` gives
what to SELECT a column by, `fragment` what to make of its bytes. The session must have
`time_zone = '+00:00'` and `character_set_results = utf8mb4`.
"""

from binascii import b2a_base64
from collections.abc import Callable

from schemas.codec import float_fragment, fraction_trimmed, quote
from schemas.kinds import Kind

Fragment = Callable[[bytes], str]

ZERO_DATE = "0000-00-00"


def expression(kind: Kind, column: str) -> str:
    """What to SELECT so that `column` (already quoted) loses nothing in the text protocol."""
    if kind.name == "float" and kind.bits == 32:
        # The server prints FLOAT with FLT_DIG = 6 digits; as DOUBLE it prints what round-trips.
        return f"({column} * 1e0)"
    return column


def fragment(kind: Kind) -> Fragment:
    """How to make a wire fragment of one value's bytes; NULL is left to the caller."""
    if kind.name == "float":
        bits = kind.bits
        return lambda raw: float_fragment(float(raw), bits)
    return _FRAGMENTS[kind.name]


def _int(raw: bytes) -> str:
    return str(int(raw))


def _bool(raw: bytes) -> str:
    return "true" if raw == b"1" else "false" if raw == b"0" else str(int(raw))


def _decimal(raw: bytes) -> str:
    text = raw.decode()
    if text.startswith("0") and len(text) > 1 and text[1] != ".":  # ZEROFILL
        text = text.lstrip("0")
        text = text if text[:1].isdigit() else "0" + text
    return f'"{text}"'


def _text(raw: bytes) -> str:
    return quote(raw.decode())


def _binary(raw: bytes) -> str:
    return f'"{b2a_base64(raw, newline=False).decode()}"'


def _date(raw: bytes) -> str:
    return f'"{raw.decode()}"'


def _time(raw: bytes) -> str:
    return f'"{fraction_trimmed(raw.decode())}"'


def datetime_text(text: str, zone: str = "") -> str:
    """`2026-11-22 12:34:56.700` as the wire has it; the zero date has no time on the wire."""
    day, _, clock = text.partition(" ")
    clock = fraction_trimmed(clock)
    return ZERO_DATE if day == ZERO_DATE and clock == "00:00:00" else f"{day}T{clock}{zone}"


def _datetime(raw: bytes) -> str:
    return f'"{datetime_text(raw.decode())}"'


def _timestamp(raw: bytes) -> str:
    return f'"{datetime_text(raw.decode(), "Z")}"'


_FRAGMENTS: dict[str, Fragment] = {
    "int": _int,
    "decimal": _decimal,
    "bool": _bool,
    "text": _text,
    "binary": _binary,
    "date": _date,
    "time": _time,
    "datetime": _datetime,
    "timestamp": _timestamp,
    "json": _text,
    "uuid": _text,
    "enum": _text,
}
