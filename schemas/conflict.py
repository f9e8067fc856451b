"""What is done where a row was changed on both sides: pure functions over images.

Words: `before` is the source's row before its change, what both sides had; `after` is the source's
row after it; `mine` is the target's row now. A conflict is a `mine` that is neither. Live, and over
recorded conflicts, the same functions decide.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

import orjson

from schemas.codec import Wire
from schemas.errors import Misconfigured
from schemas.kinds import Kind

Image = Mapping[str, Any]
ColumnPolicy = Literal["source_wins", "target_wins", "max", "min", "additive"]
Policy = Literal["newest_wins", "merge_columns", "handler", "park"] | ColumnPolicy
RowPolicy = Literal["source_wins", "target_wins", "newest_wins", "merge_columns", "handler", "park"]
ROW_POLICIES: tuple[str, ...] = get_args(RowPolicy)

Handler = Callable[[Image | None, Image | None, Image | None], Image | None]
"""(before, after, mine) -> columns to write to the target; None: it keeps its row."""

NUMBERS = ("int", "decimal", "float")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictRules:
    """One table's policies. policy: of the row; columns: of columns that have their own.

    by: the column whose greater value is newer. handler: "module:function". same_by: a unique key;
    a row that the source inserts and a row of the target with the same values there are one.
    """

    policy: RowPolicy = "source_wins"
    by: str | None = None
    handler: str | None = None
    columns: Mapping[str, ColumnPolicy] = field(default_factory=dict)
    same_by: Sequence[str] = ()


class Conflict(NamedTuple):
    """A row that both sides changed. None: it was not there (before), is deleted (after, mine).

    Images hold the mapped columns, as wire values. changed: the columns of `mine` that are not as
    `before` (or, where there is none, as `after`). references: columns whose value is a row of
    another table: the source's key in before and after, the parent's identity in mine.
    """

    before: Image | None
    after: Image | None
    mine: Image | None
    changed: Collection[str]
    references: Collection[str]


class Decision(NamedTuple):
    """write: columns to write to the target, all others stay; None: the row stays as it is there.
    deletes: the row goes. parks: a person decides. rule: what decided.
    """

    write: Image | None
    rule: str
    deletes: bool = False
    parks: bool = False


def decide(conflict: Conflict, rules: ConflictRules, kinds: Mapping[str, Kind]) -> Decision:
    """What is done. kinds: of the columns; raises Misconfigured for a handler that is none."""
    before, after, mine = conflict.before, conflict.after, conflict.mine
    wins, rule = _row(conflict, rules, kinds)
    if wins == "park":
        return Decision(None, rule, parks=True)
    if after is None:
        return Decision(None, rule, deletes=wins == "source")
    if isinstance(wins, dict):
        return Decision(wins or None, rule)
    if mine is None:
        return Decision(after if wins != "target" else None, rule)
    write = {} if wins == "target" else dict(after)
    if wins == "merge":
        old = before if before is not None else {}
        write = {n: v for n, v in after.items() if n not in old or old[n] != v}
    for name, policy in rules.columns.items():
        if name in after:
            _column(name, policy, conflict, kinds[name], write)
    if rules.columns:
        rule += " (" + ", ".join(f"{n} {p}" for n, p in sorted(rules.columns.items())) + ")"
    return Decision(write or None, rule)


def _row(conflict: Conflict, rules: ConflictRules, kinds: Mapping[str, Kind]) -> tuple[Any, str]:
    """Who wins, or a handler's columns; and the rule's name."""
    if rules.policy == "source_wins":
        return "source", rules.policy
    if rules.policy == "target_wins":
        return "target", rules.policy
    if rules.policy == "merge_columns":
        return "merge", rules.policy
    if rules.policy == "park":
        return "park", rules.policy
    if rules.policy == "handler":
        found = handler(rules.handler or "")(conflict.before, conflict.after, conflict.mine)
        return ("target" if found is None else dict(found)), f"handler {rules.handler}"
    by = rules.by or ""
    return _newer(conflict, by, kinds[by]), f"newest_wins by {by}"


def _newer(conflict: Conflict, by: str, kind: Kind) -> str:
    """A deleted row is as new as it was when it was deleted: the other side's change is newer if it
    moved the column on.
    """
    before = conflict.before or {}
    theirs = (conflict.after or before).get(by)
    mine = (conflict.mine or before).get(by)
    one, other = comparable(kind, theirs), comparable(kind, mine)
    if one != other:
        return "source" if one > other else "target"
    # The same on both sides, whichever calls itself source: the greater image.
    shared = {n for n in conflict.after or {} if n not in conflict.references}
    texts = [
        orjson.dumps({n: str(i.get(n)) for n in sorted(shared)}) if i is not None else b""
        for i in (conflict.after, conflict.mine)
    ]
    return "source" if texts[0] >= texts[1] else "target"


def _column(
    name: str, policy: ColumnPolicy, conflict: Conflict, kind: Kind, write: dict[str, Any]
) -> None:
    """Set or leave out one column of what is written."""
    assert conflict.after is not None, "see decide"
    assert conflict.mine is not None, "see decide"
    theirs, mine = conflict.after[name], conflict.mine.get(name)
    if policy == "source_wins":
        write[name] = theirs
    elif policy == "target_wins":
        write.pop(name, None)
    elif policy == "additive":
        start = (conflict.before or {}).get(name)
        write[name] = _added(kind, mine, start, theirs)
    else:
        one, other = comparable(kind, theirs), comparable(kind, mine)
        if (one > other) if policy == "max" else (one < other):
            write[name] = theirs
        else:
            write.pop(name, None)


def _added(kind: Kind, mine: Wire, before: Wire, after: Wire) -> Wire:
    """The target's value plus what the source added; null counts as 0."""
    numbers = [Decimal(str(0 if v is None else v)) for v in (mine, after, before)]
    total = numbers[0] + numbers[1] - numbers[2]
    if kind.name == "int":
        return int(total)
    return float(total) if kind.name == "float" else format(total, "f")


def comparable(kind: Kind, value: Wire) -> tuple[int, Any]:
    """A wire value as something that orders as its kind does; null before all."""
    if value is None:
        return 0, 0
    if kind.name in NUMBERS:
        return 1, Decimal(str(value))
    read: dict[str, Callable[[str], Any]] = {
        "timestamp": datetime.fromisoformat,
        "datetime": datetime.fromisoformat,
        "date": date.fromisoformat,
        "time": time.fromisoformat,
    }
    return 1, read.get(kind.name, str)(str(value))


def handler(name: str) -> Handler:
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    try:
        found: Handler = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise Misconfigured(
            f"found no conflict handler {name}",
            hint='write "module:function"; the module must be importable (PYTHONPATH)',
        ) from error
    return found


def problems(rules: ConflictRules, kinds: Mapping[str, Kind]) -> list[tuple[str, str]]:
    """What cannot be meant: (column or "", why)."""
    found = []
    if rules.policy == "newest_wins" and rules.by not in kinds:
        found.append((rules.by or "", "newest_wins needs `by`, a column that the target takes"))
    found += [
        (name, "is in same_by, and is no column that the target takes")
        for name in rules.same_by
        if name not in kinds
    ]
    for name, policy in rules.columns.items():
        if name not in kinds:
            found.append((name, "has a conflict policy, and is no column that the target takes"))
        elif policy == "additive" and kinds[name].name not in NUMBERS:
            found.append((name, f"cannot be additive: it is {kinds[name].name}"))
    return found
