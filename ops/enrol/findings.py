"""What the matching found, read out of the working file: counts of everything, lists up to a limit.

Invariant: every row of a side is counted once: matched, ambiguous, or only there.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ops.enrol.scratch import BY_ID, SIDES, Scratch
from ops.enrol.twin import Twin


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that are not matched, and why: primary keys of both sides, at most `limit` each."""

    rule: str
    reason: str
    source_keys: list[Any]
    target_keys: list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One table. Rows are None where the target does not have the table: nothing was read.

    unkeyed: rows that are only on their side and have no key under any rule (a null, an empty text,
    what no step reads). likely: matches that are only probable, the least probable first.
    """

    table: str
    rules: list[str]
    source_rows: int | None = None
    target_rows: int | None = None
    matched: int = 0
    matched_by: Mapping[str, int] = field(default_factory=dict)
    likely: Sequence[Mapping[str, Any]] = ()
    assigned: int = 0
    ambiguous_source: int = 0
    ambiguous_target: int = 0
    ambiguous: Sequence[Group] = ()
    only_source: int = 0
    only_target: int = 0
    only_source_keys: Sequence[Any] = ()
    only_target_keys: Sequence[Any] = ()
    unkeyed_source: int = 0
    unkeyed_target: int = 0
    unreadable: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    differing: int = 0
    differing_by: Mapping[str, int] = field(default_factory=dict)
    differing_keys: Sequence[Any] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def found(
    scratch: Scratch,
    twin: Twin,
    *,
    assigned: int,
    unreadable: Mapping[str, Counter[str]],
    limit: int,
) -> Found:
    """Everything of one twin whose rows, and whose parents', were matched."""
    if twin.target is None:
        return Found(table=twin.name, rules=[])
    n = twin.number
    rules = [rule.text for rule in twin.rules]
    names = {BY_ID: "the same id", **dict(enumerate(rules))}
    counted = scratch.all(f"SELECT rule, count(*) FROM m{n} GROUP BY rule ORDER BY rule")
    by = {names[rule]: count for rule, count in counted}
    rows = {role: _count(scratch, f"{side}{n}") for role, side in SIDES.items()}
    ambiguous = dict(scratch.all(f"SELECT side, count(*) FROM a{n} GROUP BY side"))
    total, differing, keys = _differing(scratch, twin, limit)
    only = {
        role: rows[role] - sum(by.values()) - ambiguous.get(number, 0)
        for number, role in enumerate(SIDES)
    }
    listed = {r: _only(scratch, n, s, limit) if only[r] else [] for r, s in SIDES.items()}
    unkeyed = {r: _unkeyed(scratch, twin, s) if only[r] else 0 for r, s in SIDES.items()}
    return Found(
        table=twin.name,
        rules=rules,
        source_rows=rows["source"],
        target_rows=rows["target"],
        matched=sum(by.values()),
        matched_by=by,
        likely=_likely(scratch, n, limit),
        assigned=assigned,
        ambiguous_source=ambiguous.get(0, 0),
        ambiguous_target=ambiguous.get(1, 0),
        ambiguous=_groups(scratch, n, names, limit),
        only_source=only["source"],
        only_target=only["target"],
        only_source_keys=listed["source"],
        only_target_keys=listed["target"],
        unkeyed_source=unkeyed["source"],
        unkeyed_target=unkeyed["target"],
        unreadable={role: dict(counts) for role, counts in unreadable.items() if counts},
        differing=total,
        differing_by=differing,
        differing_keys=keys,
    )


def _count(scratch: Scratch, table: str) -> int:
    ((count,),) = scratch.all(f"SELECT count(*) FROM {table}")
    return int(count)


def _key(text: str) -> Any:
    """A primary key as people write it: itself, or a list where it has several columns."""
    values = json.loads(text)
    return values[0] if len(values) == 1 else values


def _likely(scratch: Scratch, n: int, limit: int) -> list[dict[str, Any]]:
    rows = scratch.all(
        f"SELECT s.key, t.key, m.score FROM m{n} m JOIN s{n} s ON s.row = m.s"
        f" JOIN t{n} t ON t.row = m.t WHERE m.score IS NOT NULL ORDER BY 3, 1, 2 LIMIT ?",
        limit,
    )
    return [{"source_key": _key(s), "target_key": _key(t), "score": score} for s, t, score in rows]


def _groups(scratch: Scratch, n: int, names: Mapping[int, str], limit: int) -> list[Group]:
    groups = []
    for grp, rule, reason in scratch.all(f"SELECT * FROM g{n} ORDER BY grp LIMIT ?", limit):
        keys = {
            side: [
                _key(key)
                for (key,) in scratch.all(
                    f"SELECT r.key FROM y{n} y JOIN {side}{n} r ON r.row = y.row"
                    " WHERE y.grp = ? AND y.side = ? ORDER BY r.row LIMIT ?",
                    *(grp, number, limit),
                )
            ]
            for number, side in enumerate(SIDES.values())
        }
        groups.append(
            Group(rule=names[rule], reason=reason, source_keys=keys["s"], target_keys=keys["t"])
        )
    return groups


def _alone(n: int, side: str) -> str:
    return (
        f"FROM {side}{n} r WHERE NOT EXISTS (SELECT 1 FROM m{n} m WHERE m.{side} = r.row) AND NOT "
        f"EXISTS (SELECT 1 FROM a{n} a WHERE a.side = {int(side == 't')} AND a.row = r.row)"
    )


def _only(scratch: Scratch, n: int, side: str, limit: int) -> list[Any]:
    rows = scratch.all(f"SELECT r.key {_alone(n, side)} ORDER BY r.row LIMIT ?", limit)
    return [_key(key) for (key,) in rows]


def _unkeyed(scratch: Scratch, twin: Twin, side: str) -> int:
    none = "".join(f" AND r.k{i} IS NULL" for i in range(len(twin.rules)))
    ((count,),) = scratch.all(f"SELECT count(*) {_alone(twin.number, side)}{none}")
    return int(count) if twin.rules else 0


def _differing(
    scratch: Scratch, twin: Twin, limit: int
) -> tuple[int, dict[str, int], list[dict[str, Any]]]:
    """Matched rows whose values differ: how many, how many by column, and the first of them.

    A reference differs where it does not lead to the two rows of one match.
    """
    n, joins = twin.number, ""
    differs = [f"s.v{i} IS NOT t.v{i}" for i in range(len(twin.compared))]
    names = [*twin.compared, *twin.parents]
    for i, (column, parent) in enumerate(twin.parents.items()):
        mine = twin.linked.index(column)
        theirs = scratch.column_of(parent)
        joins += (
            f" LEFT JOIN s{parent.number} p{i} ON p{i}.{theirs} = s.f{mine}"
            f" LEFT JOIN t{parent.number} q{i} ON q{i}.{theirs} = t.f{mine}"
            f" LEFT JOIN m{parent.number} w{i} ON w{i}.t = q{i}.row"
        )
        differs.append(
            f"NOT (s.f{mine} IS NULL AND t.f{mine} IS NULL OR coalesce(w{i}.s = p{i}.row, 0))"
        )
    if not differs:
        return 0, {}, []
    of = (
        f"FROM m{n} m JOIN s{n} s ON s.row = m.s JOIN t{n} t ON t.row = m.t{joins}"
        f" WHERE {' OR '.join(f'({d})' for d in differs)}"
    )
    sums = ", ".join(f"total({d})" for d in differs)
    ((total, *counts),) = scratch.all(f"SELECT count(*), {sums} {of}")
    shown = scratch.all(
        f"SELECT s.key, t.key, {', '.join(differs)} {of} ORDER BY m.s LIMIT ?", limit
    )
    keys = [
        {
            "source_key": _key(source),
            "target_key": _key(target),
            "columns": [name for name, is_so in zip(names, flags, strict=True) if is_so],
        }
        for source, target, *flags in shown
    ]
    by = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
    return int(total), by, keys
