"""The newest row of every key, whatever the order in which rows come."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from apply import newest
from apply.newest import Newest
from schemas.change import Rows
from schemas.errors import LogTruncated
from schemas.kinds import Kind
from schemas.table import Column, Table

Change = tuple[int, str, str, dict[str, Any] | None]
"""ordinal, op, key, after-image."""


def table(name: str, *columns: str) -> Table:
    return Table(
        family="postgres",
        schema="app",
        name=name,
        columns=tuple(Column(name=n, kind=Kind(name="text"), nullable=True) for n in columns),
        primary_key=("k",),
        identity=("k",),
    )


T, WIDER, OTHER = table("t", "k", "a"), table("t", "k", "a", "b"), table("other", "k", "a")


def rows(of: Table, *changes: Change, partial: bool = False) -> Rows:
    return Rows(
        table=of,
        ops=[op for _, op, _, _ in changes],
        ordinals=[ordinal for ordinal, _, _, _ in changes],
        keys=[key.encode() for _, _, key, _ in changes],
        values=[
            b"" if after is None else b'{"after":' + orjson.dumps(after) + b',"op":"u"}'
            for _, _, _, after in changes
        ],
        partial=partial,
    )


def held(found: Newest, name: str = "app.t") -> dict[str, tuple[str, dict[str, Any]]]:
    """By key: the description's fingerprint and the after-image."""
    result = {}
    for some in found.read(name):
        assert set(some.ops) == {"r"}
        for key, value in zip(some.keys, some.values, strict=True):
            assert key.decode() not in result
            result[key.decode()] = some.table.fingerprint, orjson.loads(value)["after"]
    return result


@pytest.mark.parametrize("held_bytes", [1 << 30, 200])
def test_the_newest_counts_in_any_order(monkeypatch: pytest.MonkeyPatch, held_bytes: int) -> None:
    """H96, H83: by the batch's number and the ordinal in it, never by when a row came. In memory
    and on disk, under two descriptions.
    """
    monkeypatch.setattr(newest, "HELD_BYTES", held_bytes)
    draw = random.Random(4)
    changes = [
        (ordinal, draw.choice("cuud"), f"k{draw.randrange(40)}", draw.choice([T, WIDER]))
        for ordinal in range(400)
    ]
    wanted: dict[str, tuple[str, dict[str, Any]]] = {}
    for ordinal, op, key, of in changes:
        wanted.pop(key, None)
        if op != "d":
            wanted[key] = of.fingerprint, {"a": ordinal}
    draw.shuffle(changes)
    found = Newest({})
    for ordinal, op, key, of in changes:
        found.add(rows(of, (ordinal, op, key, None if op == "d" else {"a": ordinal})))
    found.add(rows(OTHER, (9, "c", "k1", {"a": "other"})))
    found.finish()
    assert held(found) == held(found) == wanted
    assert held(found, "app.other") == {"k1": (OTHER.fingerprint, {"a": "other"})}
    assert held(found, "app.none") == {}


def test_what_stands_before_a_truncate_is_gone() -> None:
    found = Newest({"app.t": 5})
    found.add(rows(T, (3, "c", "1", {"a": 1}), (7, "c", "2", {"a": 2}), (4, "u", "3", {"a": 3})))
    found.add(rows(OTHER, (3, "c", "1", {"a": 1})))
    found.finish()
    assert held(found).keys() == {"2"}
    assert held(found, "app.other").keys() == {"1"}


def test_a_row_without_some_columns_has_them_from_older_ones() -> None:
    found = Newest({})
    found.add(rows(T, (2, "u", "1", {"b": 2}), partial=True))
    found.add(rows(T, (1, "c", "1", {"a": 1, "b": 1})))
    found.finish()
    assert held(found) == {"1": (T.fingerprint, {"a": 1, "b": 2})}


def test_a_tombstone_deletes_what_came_before_it() -> None:
    """H80: the delete itself has been compacted away since the row was read."""
    found = Newest({})
    found.add(rows(T, (1, "c", "1", {"a": 1}), (5, "c", "2", {"a": 2})))
    found.add(rows(T, (5, "d", "1", None)))
    found.finish()
    assert held(found).keys() == {"2"}


def test_a_key_of_which_no_row_counts_is_an_error() -> None:
    found = Newest({})
    found.add(rows(T, (-1, "?", "1", None), (4, "c", "1", {"a": 1})))
    found.finish()
    assert held(found).keys() == {"1"}
    found.add(rows(T, (-1, "?", "2", None)))
    with pytest.raises(LogTruncated, match=r"1 keys of app\.t"):
        held(found)
