"""Fold one table's run of rows to what a target needs: the last word on each key.

Works on keys, ops and ordinals; columns are parsed only to merge partial rows. The invariant:
applying the result to a target in the state before the run gives the state after it.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from schemas.change import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """Indexes into the folded `Rows`, each list ascending.

    upserts: the last after-image of each key that lives on. deletes: the last row of each key that
    is gone. again: the upserts whose key was deleted on the way. first: for each key, its first row
    (whose before-image is the state before the run). merged: after-images that no single row
    carries.
    """

    upserts: list[int]
    deletes: list[int]
    again: list[int]
    first: dict[bytes, int]
    merged: dict[int, dict[str, Any]]


def fold(rows: Rows) -> Folded:
    """Find the rows of `rows` that count; "s" rows (seeds) are no rows of the table and must not
    be in it.
    """
    keys, ops, size = rows.keys, rows.ops, len(rows.keys)
    last = dict(zip(keys, range(size), strict=True))
    if len(last) == size:
        return Folded(
            upserts=[i for i, op in enumerate(ops) if op != "d"],
            deletes=[i for i, op in enumerate(ops) if op == "d"],
            again=[],
            first=last,
            merged={},
        )
    final = sorted(last.values())
    deleted = {key for key, op in zip(keys, ops, strict=True) if op == "d"}
    upserts = [i for i in final if ops[i] != "d"]
    return Folded(
        upserts=upserts,
        deletes=[i for i in final if ops[i] == "d"],
        again=[i for i in upserts if keys[i] in deleted],
        first=dict(zip(reversed(keys), range(size - 1, -1, -1), strict=True)),
        merged=_merge(rows, last) if rows.partial else {},
    )


def _merge(rows: Rows, last: dict[bytes, int]) -> dict[int, dict[str, Any]]:
    """Later columns over earlier ones, from a key's last insert on: an unchanged TOAST value is
    in an older row.
    """
    whole: dict[bytes, dict[str, Any]] = {}
    seen: set[bytes] = set()
    merged: dict[int, dict[str, Any]] = {}
    for i, (key, op, value) in enumerate(zip(rows.keys, rows.ops, rows.values, strict=True)):
        if last[key] == i and key not in seen:
            continue
        seen.add(key)
        if op == "d":
            whole.pop(key, None)
            continue
        after = orjson.loads(value)["after"]
        whole[key] = whole[key] | after if op == "u" and key in whole else after
        if last[key] == i:
            merged[i] = whole.pop(key)
    return merged
