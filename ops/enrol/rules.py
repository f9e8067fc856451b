"""Natural keys: values made comparable by declared steps, and the digests that stand for them.

Pure, and by columns: nothing here knows a row, a table or a server. Invariant: two digests are
equal where every text of the key is, and (blake2b, 128 bits) nowhere else. A null, an empty text
and a value that a step cannot read have no digest: they are equal to nothing.
"""

import unicodedata
from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import partial
from hashlib import blake2b

from schemas.canonical import canonical
from schemas.kinds import Kind

Text = str | None
Step = Callable[[str], str]
"""Raises ValueError where it cannot read the text."""


def _accents(text: str) -> str:
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))


def _spaces(text: str) -> str:
    return " ".join(text.split())


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


_decimal = canonical(Kind(name="decimal"))


def _number(text: str) -> str:
    return str(_decimal(text.strip()))


def _decimal_comma(text: str) -> str:
    """1.234,50, and what has no comma as `number`: the other side may hold numbers."""
    return _number(text.replace(".", "").replace(",", ".") if "," in text else text)


def _date(form: str, text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return datetime.strptime(text, form).date().isoformat()


STEPS: dict[str, Step] = {
    "trim": str.strip,
    "spaces": _spaces,
    "lower": str.casefold,
    "nfc": partial(unicodedata.normalize, "NFC"),
    "nfkc": partial(unicodedata.normalize, "NFKC"),
    "accents": _accents,
    "digits": _digits,
    "number": _number,
    "decimal_comma": _decimal_comma,
}
"""Beside these `date:FORM`, with the form of strptime; a text in ISO form is read in any case."""


def step(name: str) -> Step:
    """The step of that name; raises ValueError naming those there are."""
    if name.startswith("date:") and "%" in name:
        return partial(_date, name.removeprefix("date:"))
    if name not in STEPS:
        raise ValueError(f"has no step {name}: choose from {', '.join(STEPS)}, date:%d.%m.%Y")
    return STEPS[name]


def normalised(values: Sequence[Text], steps: Sequence[Step]) -> tuple[list[Text], int]:
    """The texts after all steps, empty ones None; and how many could not be read, None as well."""
    unreadable = 0
    for each in steps:
        try:
            values = [None if v is None else each(v) for v in values]
        except ValueError:
            read = [_tried(each, v) for v in values]
            unreadable += sum(v is not None for v in values) - sum(v is not None for v in read)
            values = read
    return [v or None for v in values], unreadable


def _tried(each: Step, value: Text) -> Text:
    try:
        return None if value is None else each(value)
    except ValueError:
        return None


def digests(columns: Sequence[Sequence[Text]], rows: int) -> list[bytes | None]:
    """One digest a row over the texts of its columns, None where one of them is None.

    Each text but the last carries its length, so that no two keys run into the same text.
    """
    if not columns:
        return [b""] * rows
    *others, joined = columns
    for column in reversed(others):
        joined = [
            None if a is None or b is None else f"{len(a)}:{a}{b}"
            for a, b in zip(column, joined, strict=True)
        ]
    return [None if v is None else blake2b(v.encode(), digest_size=16).digest() for v in joined]
