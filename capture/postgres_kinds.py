"""PostgreSQL's types as kinds. A type that is not here is refused by name, never guessed."""

from collections.abc import Callable

from schemas.kinds import Kind
from schemas.table import Column

BLANK_PADDED = 1042
"""character(n)."""

_KINDS: dict[int, Callable[[int], Kind]] = {
    16: lambda _: Kind(name="bool"),
    17: lambda _: Kind(name="binary"),
    19: lambda _: Kind(name="text", length=63),  # name
    20: lambda _: Kind(name="int", bits=64),
    21: lambda _: Kind(name="int", bits=16),
    23: lambda _: Kind(name="int", bits=32),
    25: lambda _: Kind(name="text"),
    114: lambda _: Kind(name="json"),
    700: lambda _: Kind(name="float", bits=32),
    701: lambda _: Kind(name="float", bits=64),
    BLANK_PADDED: lambda typmod: Kind(name="text", length=_length(typmod)),
    1043: lambda typmod: Kind(name="text", length=_length(typmod)),
    1082: lambda _: Kind(name="date"),
    1083: lambda typmod: Kind(name="time", fraction=_fraction(typmod)),
    1114: lambda typmod: Kind(name="datetime", fraction=_fraction(typmod)),
    1184: lambda typmod: Kind(name="timestamp", fraction=_fraction(typmod)),
    1700: lambda typmod: _decimal(typmod),
    2950: lambda _: Kind(name="uuid"),
    3802: lambda _: Kind(name="json"),
}


def kind_of(type_oid: int, typmod: int, labels: tuple[str, ...] | None) -> Kind | None:
    """The kind of a column; labels: an enum's, None for every other type. None: not carried."""
    if labels is not None:
        return Kind(name="enum", labels=labels)
    make = _KINDS.get(type_oid)
    return make(typmod) if make else None


def is_blank_padded(column: Column) -> bool:
    """Whether a described column is character(n), whose trailing blanks mean nothing."""
    return column.native.startswith(("character(", "bpchar"))


def _length(typmod: int) -> int | None:
    return typmod - 4 if typmod >= 4 else None


def _fraction(typmod: int) -> int:
    return typmod if typmod >= 0 else 6


def _decimal(typmod: int) -> Kind:
    if typmod < 4:
        return Kind(name="decimal")
    packed = typmod - 4
    # The scale has eleven bits and a sign since PostgreSQL 15 (numeric.c, numeric_typmod_scale).
    scale = (packed & 0x7FF ^ 1024) - 1024
    return Kind(name="decimal", precision=packed >> 16 & 0xFFFF, scale=scale)
