"""PostgreSQL's text output -> wire fragments (schemas/kinds.py), the same for stream, first copy,
target and verify.

Pure: bytes in, JSON text out. Each kind is one Python expression, so that generated row decoders
can hold it inline; `fragment` is the same expression as a function. The session that printed the
bytes must have `SESSION` set.
"""

from binascii import b2a_base64, unhexlify
from collections.abc import Callable
from struct import pack, unpack
from typing import Any

from schemas.codec import float_fragment, quote
from schemas.kinds import Kind

SESSION = {
    "client_encoding": "UTF8",
    "datestyle": "ISO",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",  # shortest digits that give the same float, PostgreSQL 12 and later
}
"""Settings that decide how a session prints values."""

_QUOTED = "f'\"{{{0}.decode()}}\"'"
_STRING = "quote({0}.decode())"
_EXPRESSIONS = {
    "int": "{0}.decode()",
    "decimal": _QUOTED,
    "float": "float{bits}({0})",
    # A boolean prints as t, its cast to text as true.
    "bool": "('true' if {0} in (b't', b'true') else 'false')",
    "text": _STRING,
    "binary": "base64({0})",
    "date": _QUOTED,
    "time": _QUOTED,
    "datetime": "f'\"{{{0}.replace(SPACE, TEE, 1).decode()}}\"'",
    "timestamp": "instant({0})",
    "json": _STRING,
    "uuid": _QUOTED,
    "enum": _STRING,
}


def expression(kind: Kind, source: str, *, blank_padded: bool = False) -> str:
    """The fragment of the bytes that `source` (Python text) gives; evaluate it among `NAMES`.

    blank_padded: the column is character(n), whose trailing blanks mean nothing and are left out.
    """
    if blank_padded:
        source += ".rstrip(SPACE)"
    return _EXPRESSIONS[kind.name].format(source, bits=kind.bits)


def fragment(kind: Kind, *, blank_padded: bool = False) -> Callable[[bytes], str]:
    """A function from one value's text output to its fragment; NULL is `null` without it."""
    code = expression(kind, "value", blank_padded=blank_padded)
    function: Callable[[bytes], str] = eval(f"lambda value: {code}", dict(NAMES))
    return function


def _float32(value: bytes) -> str:
    # The text is the shortest for 32 bits; as a double it is another number than the column's.
    number: float = unpack("f", pack("f", float(value)))[0]
    return float_fragment(number, 32)


def _float64(value: bytes) -> str:
    return float_fragment(float(value), 64)


def _base64(value: bytes) -> str:
    return f'"{b2a_base64(unhexlify(value[2:]), newline=False).decode()}"'


def _instant(value: bytes) -> str:
    text = value.decode()
    if text.endswith("+00"):
        return f'"{text[:-3].replace(" ", "T", 1)}Z"'
    if text.endswith("+00 BC"):
        return f'"{text[:-6].replace(" ", "T", 1)}Z BC"'
    if text in ("infinity", "-infinity"):
        return f'"{text}"'
    raise ValueError("found a timestamp that was not printed in UTC")


NAMES: dict[str, Any] = {
    "SPACE": b" ",
    "TEE": b"T",
    "quote": quote,
    "float32": _float32,
    "float64": _float64,
    "base64": _base64,
    "instant": _instant,
}
"""The globals that `expression` needs."""
