"""The comparison while both sides move, on a source and a target that are Python dictionaries."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from apply.placeholders import Placeholder
from apply.target import Applied, Placement, Target, Verified
from capture.source import Source
from ops.verify import verify
from ops.verify_fence import Records
from ops.verify_report import Report
from schemas.change import Offset, Position
from schemas.codec import Wire
from schemas.errors import Misconfigured
from schemas.kinds import Kind
from schemas.ranges import Compared, Key, Total
from schemas.table import Column, ForeignKey, Table

INT, TEXT = Kind(name="int", bits=32), Kind(name="text")


def table(name: str, *columns: tuple[str, Kind], parent: str = "") -> Table:
    keys = (ForeignKey(column="parent", parent=parent, parent_column="id"),) if parent else ()
    return Table(
        family="postgres",
        schema="public",
        name=name,
        columns=tuple(
            Column(name=n, kind=k, nullable=True)
            for n, k in (("id", INT), ("sync_id", TEXT), *columns)
        ),
        primary_key=("id",),
        identity=("sync_id",),
        foreign_keys=keys,
    )


PEOPLE = table("people", ("name", TEXT), ("secret", TEXT))
PETS = table("pets", ("parent", INT), parent="public.people")

Row = dict[str, Any]


@dataclass
class Side:
    """One side's rows, read as they are at each call."""

    compared: Compared
    rows_now: Callable[[], Sequence[Row]]
    before: Callable[[], None]

    def key(self, row: Row) -> str:
        return str(row["sync_id"])

    def end(self, after: Key | None, rows: int) -> Key | None:
        left = sorted(
            k for k in map(self.key, self.rows_now()) if after is None or k > str(after[0])
        )
        return [left[rows - 1]] if len(left) >= rows else None

    @property
    def sorts_alike(self) -> bool:
        return True

    def total(self, low: Key | None, high: Key | None) -> Total | None:
        return None

    def rows(self, low: Key | None, high: Key | None) -> Iterator[list[list[Wire]]]:
        self.before()
        yield [
            self.wire(row)
            for row in self.rows_now()
            if row["sync_id"] is not None
            and (low is None or self.key(row) > str(low[0]))
            and (high is None or self.key(row) <= str(high[0]))
        ]

    def rows_of(self, keys: Sequence[Key]) -> list[list[Wire]]:
        self.before()
        wanted = {key[0] for key in keys}
        return [self.wire(row) for row in self.rows_now() if row["sync_id"] in wanted]

    def wire(self, row: Row) -> list[Wire]:
        return [row.get(name) for name in self.compared.names]

    def close(self) -> None:
        pass


@dataclass
class SourceSide(Side):
    """References hold the parent's number."""

    parents: Callable[[], Sequence[Row]] = list

    def wire(self, row: Row) -> list[Wire]:
        known = {p["id"]: p["sync_id"] for p in self.parents()}
        values = dict(row)
        for name in self.compared.parents:
            if row[name] is not None:
                values[name] = json.dumps({"sync_id": known.get(row[name])})
        return [values.get(name) for name in self.compared.names]


@dataclass
class Memory:
    """Source and target in one; `moves` are done one by one, each when the comparison waits."""

    source: dict[str, list[Row]]
    target: dict[str, list[Row]]
    tables: Sequence[Table] = (PEOPLE,)
    moves: list[Callable[["Memory"], None]] = field(default_factory=list)
    at: int = 0
    shown_from: int = 0
    applied_at: int = 0
    before_source: Callable[["Memory"], None] = lambda memory: None
    before_target: Callable[["Memory"], None] = lambda memory: None
    kept: dict[str, Verified] = field(default_factory=dict)

    def describe(self) -> Sequence[Table]:
        return self.tables

    def now(self) -> tuple[Position, int]:
        return Position(str(self.at)), 0

    def reached(self, high: Position, position: Position) -> bool:
        return int(position) >= int(high)

    def shown(self, position: Position) -> Callable[[], bool]:
        return lambda: self.at >= self.shown_from

    def checkpoint(self) -> Offset | None:
        return Offset("")

    def applied(self) -> Applied:
        return Applied(Offset(""), str(self.applied_at), 1, None, 0, 0)

    def exempted(self) -> dict[str, Any]:
        return {}

    def placeholders(self) -> list[Placeholder]:
        return []

    def verified(self) -> list[Verified]:
        return list(self.kept.values())

    def keep(self, found: Sequence[Verified], *, only: bool = False) -> None:
        self.kept |= {v.table_name: v for v in found}

    def kinds(self, table: Table) -> dict[str, Kind]:
        held = {name for row in self.target[table.name] for name in row}
        return {c.name: c.kind for c in table.columns if c.name in held or not held}

    def pause(self, seconds: float) -> None:
        if self.moves:
            self.moves.pop(0)(self)

    def verify(self, **options: Any) -> Report:
        options = dict[str, Any]({"timeout_s": 0.05, "pause": self.pause}) | options
        source, target = _Source(self), _Target(self)
        return verify(cast(Source, source), cast(Target, target), Placement(), **options)


class Pending:
    """A log in which these tables are being copied."""

    def __init__(self, copying: set[str]) -> None:
        self._copying = copying

    def pending(self, at: Offset) -> frozenset[str]:
        return frozenset(self._copying)

    def reached(self, at: Offset) -> Position | None:
        return None


class _Source:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def ranges(self, compared: Compared) -> Side:
        memory, name = self.memory, compared.table.name
        return SourceSide(
            compared,
            lambda: memory.source[name],
            lambda: memory.before_source(memory),
            lambda: memory.source["people"],
        )


class _Target(_Source):
    def ranges(self, compared: Compared) -> Side:
        memory, name = self.memory, compared.table.name
        return Side(compared, lambda: memory.target[name], lambda: memory.before_target(memory))


def person(number: int, name: str | None = "Ann") -> Row:
    return {"id": number, "sync_id": f"p{number}", "name": name}


def local(row: Row) -> Row:
    return {k: v for k, v in row.items() if k != "id"}


def people(count: int = 5) -> Memory:
    rows = [person(n) | {"secret": "x"} for n in range(count)]
    kept = [{k: r[k] for k in ("sync_id", "name")} for r in reversed(rows)]
    return Memory(source={"people": rows}, target={"people": kept})


def found(report: Report) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(d.key, d.kind, d.columns) for d in report.differences]


def test_equal_sides_are_valid_at_once_whoever_is_behind() -> None:
    memory = people()
    memory.at = 9
    report = memory.verify()
    assert (report.verdict, report.count, report.exit_code) == ("valid", 0, 0)
    assert report.tables[0].left_out == ("id", "secret")
    assert (report.tables[0].source_rows, report.tables[0].target_rows) == (5, 5)


def test_every_kind_of_difference_is_found_and_counted() -> None:
    """T66: on values; on servers, tests/conformance/test_verify.py."""
    memory = people()
    memory.target["people"][0]["name"] = "ann"
    memory.target["people"][1]["name"] = ""
    del memory.target["people"][2]
    memory.target["people"].append({"sync_id": "p9", "name": "Eve"})
    report = memory.verify()
    assert found(report) == [
        ('{"sync_id":"p2"}', "missing", ()),
        ('{"sync_id":"p3"}', "different", ("name",)),
        ('{"sync_id":"p4"}', "different", ("name",)),
        ('{"sync_id":"p9"}', "extra", ()),
    ]
    assert (report.verdict, report.count, report.exit_code) == ("invalid", 4, 1)


def test_values_are_shown_only_when_asked_for() -> None:
    memory = people()
    memory.target["people"][0]["name"] = None
    assert memory.verify().differences[0].values is None
    assert memory.verify(values=True).differences[0].values == {"name": ("Ann", None)}


def test_a_row_that_a_target_holds_twice_is_a_difference_in_its_identity() -> None:
    memory = people()
    memory.target["people"].append(dict(memory.target["people"][0]))
    assert found(memory.verify()) == [('{"sync_id":"p4"}', "different", ("sync_id",))]


def test_rows_without_an_identity_are_the_targets_own() -> None:
    """T10: local-only rows are never extra."""
    memory = people()
    memory.target["people"].append({"sync_id": None, "name": "local"})
    assert memory.verify().verdict == "valid"


def test_an_applier_that_has_not_passed_is_behind_and_not_different() -> None:
    """T68: and equal once it has."""
    memory = people()
    memory.at = 7
    del memory.target["people"][0]
    report = memory.verify()
    assert (report.verdict, report.count, report.exit_code) == ("unknown", 0, 3)
    assert report.unsettled == 5, "all rows of the range"

    def catch_up(memory: Memory) -> None:
        memory.target["people"].append({"sync_id": "p4", "name": "Ann"})
        memory.applied_at = memory.at

    memory.moves = [lambda memory: None, catch_up]
    assert memory.verify(timeout_s=60).verdict == "valid"


def test_a_table_whose_first_copy_is_not_finished_is_behind_until_it_is() -> None:
    memory = people()
    del memory.target["people"][0]
    copying = {"public.people"}
    report = memory.verify(records=cast(Records, Pending(copying)))
    assert (report.verdict, report.count) == ("unknown", 0)

    def finish(memory: Memory) -> None:
        memory.target["people"].append({"sync_id": "p4", "name": "Ann"})
        copying.clear()

    memory.moves = [finish]
    report = memory.verify(records=cast(Records, Pending(copying)), timeout_s=60)
    assert report.verdict == "valid"


def test_a_row_that_changes_at_every_look_is_behind_and_not_different() -> None:
    memory = people()

    def change(memory: Memory) -> None:
        memory.at += 1
        memory.source["people"][3]["name"] = f"Ann {memory.at}"
        memory.applied_at = memory.at

    memory.before_source = change
    report = memory.verify()
    assert (report.verdict, report.count) == ("unknown", 0)
    assert report.tables[0].unsettled == 1


def test_what_the_target_holds_and_no_read_at_the_source_sees_yet_is_unknown() -> None:
    """T60: the commit is in the log, and applied; the source shows it later."""
    memory = people()
    memory.target["people"][0]["name"] = "new"
    memory.shown_from = 1
    report = memory.verify()
    assert (report.verdict, report.count, report.unsettled) == ("unknown", 0, 1)

    def show(memory: Memory) -> None:
        memory.source["people"][4]["name"] = "new"
        memory.at = memory.applied_at = 1

    memory.moves = [show]
    assert memory.verify(timeout_s=60).verdict == "valid"


def test_a_busy_row_does_not_hide_a_wrong_one() -> None:
    memory = people()
    memory.target["people"][0]["name"] = "wrong"

    def change(memory: Memory) -> None:
        memory.at += 1
        memory.source["people"][3]["name"] = f"Ann {memory.at}"
        memory.applied_at = memory.at

    memory.before_source = change
    report = memory.verify()
    assert found(report) == [('{"sync_id":"p4"}', "different", ("name",))]
    assert report.tables[0].unsettled == 1


def test_a_reference_is_compared_by_its_parents_identity() -> None:
    """T71: other numbers, the same parents, no difference; and a swapped parent is found (T66)."""
    memory = people()
    memory.tables = (PEOPLE, PETS)
    memory.source["pets"] = [
        {"id": n, "sync_id": f"d{n}", "parent": parent} for n, parent in ((1, 3), (2, 4), (3, None))
    ]
    memory.target["pets"] = [
        {"sync_id": f"d{n}", "parent": parent}
        for n, parent in ((1, '{"sync_id": "p3"}'), (2, '{"sync_id": "p4"}'), (3, None))
    ]
    assert memory.verify().verdict == "valid"
    memory.target["pets"][1]["parent"] = '{"sync_id": "p3"}'
    assert found(memory.verify()) == [('{"sync_id":"d2"}', "different", ("parent",))]


def test_a_parent_that_appears_between_two_looks_settles() -> None:
    memory = people()
    memory.tables = (PEOPLE, PETS)
    memory.source["pets"] = [{"id": 1, "sync_id": "d1", "parent": 77}]
    memory.target["pets"] = [{"sync_id": "d1", "parent": '{"sync_id":"p77"}'}]

    def arrive(memory: Memory) -> None:
        if len(memory.source["people"]) == 5:
            memory.source["people"].append(person(77))
            memory.target["people"].append(local(person(77)))

    memory.before_target = arrive
    assert memory.verify().verdict == "valid"


def test_an_empty_target_lacks_every_row_and_an_empty_source_none() -> None:
    memory = people()
    memory.target["people"] = []
    assert memory.verify().count == 5
    memory.source["people"] = []
    assert memory.verify().verdict == "valid"


def test_an_unknown_table_is_refused_with_what_there_is() -> None:
    with pytest.raises(Misconfigured) as refused:
        people().verify(tables=["public.peple"])
    assert "public.people" in refused.value.hint
