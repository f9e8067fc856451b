"""How two wire values compare, by their kinds: exactly, alike for every server."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from schemas.codec import Wire
from schemas.kinds import Kind


class Unfit(ValueError):
    """An expression, or a value in it, that cannot be evaluated exactly; the text says why."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares columns of values; None where either is None."""

    test: Callable[[Any, Any], bool]
    one: Callable[[Any], Any] | None
    other: Callable[[Any], Any] | None

    def pairs(self, ones: Sequence[Any], others: Sequence[Any]) -> list[bool | None]:
        """Value by value."""
        test, one, other = self.test, self.one or _same, self.other or _same
        return [
            None if a is None or b is None else test(one(a), other(b))
            for a, b in zip(ones, others, strict=True)
        ]

    def to(self, value: Wire) -> Callable[[Sequence[Any]], list[bool | None]]:
        """With one value that is not null."""
        test, one, fixed = self.test, self.one, (self.other or _same)(value)
        if one is None:
            return lambda ones: [None if a is None else test(a, fixed) for a in ones]
        return lambda ones: [None if a is None else test(one(a), fixed) for a in ones]


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "LT": operator.lt,
    "LTE": operator.le,
    "GT": operator.gt,
    "GTE": operator.ge,
}
_TEXTS = ("text", "enum")
_CLOCKS = ("date", "datetime", "timestamp")


def comparison(name: str, one: Kind, other: Kind) -> Comparison:
    """How values of these kinds compare; raises Unfit where they do not."""
    kinds, test = {one.name, other.name}, _TESTS[name]
    if "float" in kinds and kinds <= {"int", "decimal", "float"}:
        return Comparison(test, _double, _double)
    if kinds <= {"int", "decimal"}:
        return Comparison(test, *(None if k.name == "int" else _exact for k in (one, other)))
    if "bool" in kinds and kinds <= {"bool", "int"}:
        # MySQL's tinyint(1) may hold other integers, which equal neither true nor false.
        return Comparison(test, int, int)
    if kinds <= set(_TEXTS):
        return Comparison(test, None, None)
    if "uuid" in kinds and kinds <= {"uuid", "text"} and name in ("EQ", "NEQ"):
        return Comparison(test, str.lower, str.lower)
    for clock in _CLOCKS:
        if clock in kinds and kinds <= {clock, "text"}:
            reads = _clock(clock)
            return Comparison(test, reads, reads)
    raise Unfit(f"compares {one.name} with {other.name}")


def like(pattern: str) -> Callable[[str], Any]:
    """What matches LIKE's pattern: `%` any text, `_` any character, a backslash before either
    itself.
    """
    parts = re.findall(r"\\.|%|_|[^\\%_]+|\\", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    made = [wild.get(p) or re.escape(p[1:] if p[0] == "\\" and len(p) > 1 else p) for p in parts]
    return re.compile("".join(made), re.DOTALL).fullmatch


def _same(value: Any) -> Any:
    return value


def _exact(value: Any) -> Decimal:
    number = Decimal(value)
    if not number.is_finite():
        raise Unfit("compares a number that is not finite")
    return number


def _double(value: Any) -> float:
    number = float(value)
    if number != number:
        raise Unfit("compares NaN")
    return number


_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")


def _clock(name: str) -> Callable[[Any], str]:
    """Instants and wall clocks as texts that sort as they do."""
    shape = _DATE if name == "date" else _MOMENT

    def reads(value: Any) -> str:
        text = str(value)
        if text in ("infinity", "-infinity"):
            return text  # sorts after digits, and before them
        if name != "date":
            text = text.removesuffix("Z").replace(" ", "T")
            text = f"{text}T00:00:00" if _DATE.fullmatch(text) else text
            text = text.rstrip("0").rstrip(".") if "." in text else text
        if not shape.fullmatch(text):
            raise Unfit(f"compares a {name} that is not written as 2026-11-22")
        return f"{text}:00" if name != "date" and len(text) == 16 else text

    return reads
