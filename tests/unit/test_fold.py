"""Folding: the last word on each key, and what partial rows leave open."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from apply.fold import fold
from schemas.change import Rows
from schemas.kinds import Kind
from schemas.table import Column, Table

NAMES = ("k", "a", "b")
TABLE = Table(
    family="postgres",
    schema="app",
    name="t",
    columns=tuple(Column(name=n, kind=Kind(name="text"), nullable=True) for n in NAMES),
    primary_key=("k",),
    identity=("k",),
)


def rows(*changes: tuple[str, str, dict[str, Any] | None]) -> Rows:
    return Rows(
        table=TABLE,
        ops=[op for op, _, _ in changes],
        ordinals=list(range(len(changes))),
        keys=[key.encode() for _, key, _ in changes],
        values=[orjson.dumps({"before": None, "after": after}) for _, _, after in changes],
        partial=True,
    )


def test_different_keys_are_all_kept() -> None:
    folded = fold(rows(("c", "1", {}), ("d", "2", None), ("u", "3", {})))
    assert (folded.upserts, folded.deletes, folded.again) == ([0, 2], [1], [])


def test_the_last_change_of_a_key_counts() -> None:
    folded = fold(rows(("c", "1", {}), ("u", "1", {}), ("d", "2", None), ("u", "1", {})))
    assert (folded.upserts, folded.deletes) == ([3], [2])
    assert folded.first == {b"1": 0, b"2": 2}


def test_a_deleted_and_inserted_key_is_marked() -> None:
    folded = fold(rows(("d", "1", None), ("c", "1", {}), ("c", "2", {}), ("d", "2", None)))
    assert (folded.upserts, folded.deletes, folded.again) == ([1], [3], [1])


def test_columns_that_a_row_lacks_come_from_the_key_s_older_rows() -> None:
    folded = fold(
        rows(
            ("c", "1", {"a": "1", "b": "1"}),
            ("u", "1", {"a": "2"}),
            ("u", "2", {"b": "2"}),
            ("u", "2", {"a": None}),
            ("d", "3", None),
            ("c", "3", {"a": "3", "b": "3"}),
        )
    )
    assert folded.merged == {
        1: {"a": "2", "b": "1"},
        3: {"b": "2", "a": None},
        5: {"a": "3", "b": "3"},
    }


@pytest.mark.parametrize("seed", range(50))
def test_folded_rows_do_what_the_rows_would(seed: int) -> None:
    choice = random.Random(seed)
    state: dict[str, dict[str, Any]] = {k: {"k": k, "a": "0", "b": "0"} for k in "123"}
    start = {k: dict(v) for k, v in state.items()}
    changes: list[tuple[str, str, dict[str, Any] | None]] = []
    for number in range(choice.randrange(1, 30)):
        key = choice.choice("12345")
        if key not in state:
            after = {"k": key, "a": str(number), "b": str(number)}
            changes.append(("c", key, after))
            state[key] = dict(after)
        elif choice.random() < 0.3:
            changes.append(("d", key, None))
            del state[key]
        else:
            after = {n: str(number) for n in choice.choice([("k", "a"), ("k", "a", "b")])} | {
                "k": key
            }
            changes.append(("u", key, after))
            state[key] |= after
    given = rows(*changes)
    folded = fold(given)
    for i in folded.deletes:
        start.pop(given.keys[i].decode(), None)
    for i in folded.upserts:
        key = given.keys[i].decode()
        after = folded.merged.get(i) or orjson.loads(given.values[i])["after"]
        is_new = i in folded.again or key not in start
        start[key] = after if is_new else start[key] | after
    assert start == state
