"""What rows say of their table's keys, as intervals: pure functions, for apply/identity.py.

Facts become intervals of (batch, ordinal), closed and never deleted, so that a late child finds the
parent of *its* moment even when a key was used again.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from schemas.change import Rows
from schemas.codec import after_of

BEFORE_ALL = -1
"""The ordinal of a batch's beginning."""


class Fact(NamedTuple):
    """At `ordinal`, the row `identity` had the key `now` (None: it is gone); `before`: the key
    until then, if known.
    """

    ordinal: int
    identity: str
    now: str | None
    before: str | None


class Interval(NamedTuple):
    """The key meant the identity from `start`, until `end` (None: still)."""

    source_key: str
    identity: str
    start: int
    end: int | None


def facts(rows: Rows, key_column: str, identity_column: str) -> Iterator[Fact]:
    """What each row says about its table's keys."""
    for op, ordinal, key, value in zip(
        rows.ops, rows.ordinals, rows.keys, rows.values, strict=True
    ):
        if op in "cr":
            after = after_of(value)
            identity, now = str(after.get(identity_column)), _text(after.get(key_column))
            yield Fact(ordinal, identity, now, None)
            continue
        row = orjson.loads(value)
        identity = str(orjson.loads(key)[identity_column])
        now = row["after"].get(key_column) if op == "u" else None
        before = (row["before"] or {}).get(key_column)
        if op == "u" and before is None:
            before = now
        yield Fact(ordinal, identity, _text(now), _text(before))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def intervals(
    found: Iterable[Fact], active: Iterable[tuple[str, str]], begin: int, touched: set[str]
) -> tuple[list[tuple[str, int]], list[Interval]]:
    """Facts in order over the (key, identity) pairs active before -> what ends when, and what is
    new.

    A key's first fact also says what it meant before, from `begin` on. touched: keys that had facts
    already; extended here.
    """
    by_key: dict[str, tuple[str, int | None]] = {k: (i, None) for k, i in active}
    by_identity = {i: k for k, (i, _) in by_key.items()}
    ends: list[tuple[str, int]] = []
    new: list[Interval] = []

    def begin_at(key: str, identity: str, start: int) -> None:
        by_key[key] = (identity, start)
        by_identity[identity] = key

    def end(key: str, at: int) -> None:
        identity, start = by_key.pop(key)
        by_identity.pop(identity, None)
        if start is None:
            ends.append((key, at))
        elif start < at:
            new.append(Interval(key, identity, start, at))

    for fact in found:
        before = fact.before
        # Where the log shows no key before, a fact has the one after: of a row with an earlier fact
        # here that is no news of what it was.
        is_first = by_identity.get(fact.identity) not in touched
        if before is not None and is_first and before not in touched and before not in by_key:
            if fact.identity in by_identity:
                end(by_identity[fact.identity], begin)
            begin_at(before, fact.identity, begin)
        touched.update(k for k in (fact.now, before) if k is not None)
        if by_key.get(fact.now or "", ("", 0))[0] == fact.identity and fact.now is not None:
            continue
        if fact.identity in by_identity:
            end(by_identity[fact.identity], fact.ordinal)
        if fact.now is not None:
            if fact.now in by_key:
                end(fact.now, fact.ordinal)
            begin_at(fact.now, fact.identity, fact.ordinal)
    new.extend(Interval(k, i, start, None) for k, (i, start) in by_key.items() if start is not None)
    return ends, new
