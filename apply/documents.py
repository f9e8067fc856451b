"""Keys inside JSON documents: found by path, replaced where they stand; every other byte stays.

A path is `$`, then `.name`, `."any name"` and `[*]` (every element of a list): `$.items[*].id`. A
document in which nothing stands there has no key there. Members of one name are all looked at.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from json import JSONDecoder
from typing import Any, NamedTuple

import orjson

Steps = tuple[str | None, ...]
"""Members' names; None: every element."""


class Unreadable(ValueError):
    """The text is no JSON document, or something else than a key stands at a path."""


class Found(NamedTuple):
    """A key and where its text stands; is_text: it is written as a string."""

    start: int
    end: int
    key: str
    is_text: bool


_STEP = re.compile(r'\.([A-Za-z_][A-Za-z0-9_-]*)|\.("(?:[^"\\]|\\.)*")|(\[\*\])')
_BLANKS = " \t\n\r"
_BLANK = re.compile(f"[{_BLANKS}]*")
_decode = JSONDecoder().raw_decode


@lru_cache(maxsize=1_000)
def steps(path: str) -> Steps:
    """A path's steps; raises ValueError where it is none."""
    found: list[str | None] = []
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            break
        found.append(None if step[3] else step[1] or orjson.loads(step[2]))
        at = step.end()
    if not path.startswith("$") or at < len(path) or not found:
        raise ValueError(f"{path} is no path like $.customer_id or $.items[*].product_id")
    return tuple(found)


def keys(document: str, path: Steps) -> list[Found]:
    """The keys at a path, in order; null is none. Raises Unreadable."""
    try:
        return [_key(*place) for place in _places(document, _after(document, 0), path)]
    except (ValueError, IndexError, RecursionError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("is no JSON document") from error


def replaced(document: str, found: Sequence[tuple[Found, str | None]]) -> str:
    """The document with these keys, each as it was written: as a number or as text. None: a text
    that is nobody's key.
    """
    parts, at = [], 0
    for (start, end, _, is_text), key in sorted(found):
        new = '"no such row"' if key is None else orjson.dumps(key).decode() if is_text else key
        parts += [document[at:start], new]
        at = end
    return "".join([*parts, document[at:]])


def turned(document: str, paths: Sequence[Steps], key_of: Callable[[int, str], str | None]) -> str:
    """The document with other keys: key_of, given the place among the paths and a key. Raises
    Unreadable.
    """
    found = [
        (f, key_of(nth, f.key)) for nth, path in enumerate(paths) for f in keys(document, path)
    ]
    return replaced(document, found)


def _places(document: str, at: int, path: Steps) -> Iterator[tuple[int, int, Any]]:
    """Start, end and value of what stands at a path below the value that begins at `at`."""
    if not path:
        value, end = _decode(document, at)
        if value is not None:
            yield at, end, value
    elif path[0] is None and document[at] == "[":
        for start in _elements(document, at):
            yield from _places(document, start, path[1:])
    elif path[0] is not None and document[at] == "{":
        for name, start in _members(document, at):
            if name == path[0]:
                yield from _places(document, start, path[1:])


def _members(document: str, at: int) -> Iterator[tuple[str, int]]:
    """The members' names, and where their values begin."""
    at = _after(document, at + 1)
    while document[at] != "}":
        name, at = _decode(document, at)
        start = _past(document, at, ":")
        yield name, start
        at = _next(document, start, "}")


def _elements(document: str, at: int) -> Iterator[int]:
    """Where the elements begin."""
    at = _after(document, at + 1)
    while document[at] != "]":
        yield at
        at = _next(document, at, "]")


def _next(document: str, start: int, end: str) -> int:
    """Where what follows the value that begins at `start` begins, or `end` stands."""
    at = _after(document, _decode(document, start)[1])
    return at if document[at] == end else _past(document, at, ",")


def _past(document: str, at: int, sign: str) -> int:
    """The place after a sign that must come next."""
    at = _after(document, at)
    if document[at] != sign:
        raise ValueError
    return _after(document, at + 1)


def _after(document: str, at: int) -> int:
    """The next place that is not blank."""
    if document[at] not in _BLANKS:
        return at
    blank = _BLANK.match(document, at)
    return blank.end() if blank else at


def _key(start: int, end: int, value: Any) -> Found:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Unreadable("holds something else than a key at a path that is declared")
    return Found(start, end, str(value), isinstance(value, str))
