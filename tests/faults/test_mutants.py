"""Planted mistakes, each of which the checkers of this folder must notice: tests of the tests.

Each is made in this process, between PostgreSQL databases; next to it stands the true code, which
passes the same check.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

import apply.fold
from apply.checkpoint import move
from apply.database import DatabaseTarget
from apply.fold import Folded
from ops.verify_ranges import Pair, Range
from schemas import postgres_checksum
from schemas.change import Rows
from schemas.errors import Fenced, Operator
from schemas.kinds import Kind
from schemas.ranges import Key
from schemas.table import Table
from tests.faults.pipeline import until
from tests.faults.replica import Replica, replica
from tests.faults.workload import create
from tests.services.database import Database
from tests.services.server import Server

KEY = "0c000000-0000-4000-8000-000000000001"


class Crash(Exception):
    """The end of a process, in a test that has only one."""


@pytest.fixture
def source(postgres: Server, new_database: Callable[[Server], Database]) -> Database:
    """A person with a large note, stored apart from its row."""
    database = new_database(postgres)
    create(database)
    database.execute(
        f"insert into people (sync_id, name, version, note)"
        f" values ('{KEY}', 'Ann', 1, repeat('first', 2000))"
    )
    return database


@pytest.fixture
def flow(
    source: Database, postgres: Server, new_database: Callable[[Server], Database]
) -> Iterator[Replica]:
    """A target that has caught up with the source."""
    with replica(source.name, source, new_database(postgres)) as made:
        made.catch_up()
        assert made.verify().verdict == "valid"
        yield made


def test_acknowledging_before_the_log_has_it_is_noticed(source: Database, flow: Replica) -> None:
    """Mutant: acknowledge first. The slot is ahead of the log, and capture refuses to go on."""
    source.execute("update people set version = 2")
    opened = flow.log.open()
    pieces = flow.source.stream(opened.position, opened.stamp)
    commit = next(p.commit for p in pieces if p.commit is not None and p.commit.transactions)
    confirmed = "select confirmed_flush_lsn from pg_replication_slots"
    confirmed += f" where database = '{source.name}'"
    before = source.query(confirmed)
    flow.source.ack(commit.position)
    until(lambda: source.query(confirmed) != before, "the server to forget")
    pieces.close()  # type: ignore[attr-defined]
    with pytest.raises(Operator):
        flow.catch_up()


def test_a_crash_before_anything_is_acknowledged_is_no_loss(
    source: Database, flow: Replica
) -> None:
    source.execute("update people set version = 2")
    opened = flow.log.open()
    pieces = flow.source.stream(opened.position, opened.stamp)
    assert any(p.commit is not None and p.commit.transactions for p in pieces)
    pieces.close()  # type: ignore[attr-defined]
    flow.catch_up()
    assert flow.verify().verdict == "valid"


@pytest.mark.parametrize("mutant", [True, False], ids=["checkpoint first", "true"])
def test_a_checkpoint_that_goes_ahead_of_its_rows_is_noticed(
    mutant: bool, source: Database, flow: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: checkpoint first. The rows between it and the crash never arrive."""

    def ahead(connection: Any, *rest: Any, **more: Any) -> None:
        move(connection, *rest, **more)
        if mutant:
            connection.commit()

    def crash(*args: Any, **options: Any) -> int:
        raise Crash

    source.execute("update people set version = 2")
    flow.capture()
    with monkeypatch.context() as patched:
        patched.setattr("apply.database.move", ahead)
        patched.setattr("apply.database.write", crash)
        with pytest.raises(Crash):
            flow.apply()
    assert flow.verify().verdict == ("invalid" if mutant else "valid")


@pytest.mark.parametrize("mutant", [True, False], ids=["no fence", "true"])
def test_a_stale_applier_that_writes_is_noticed(
    mutant: bool, source: Database, flow: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: no fence. An old batch is applied over newer ones."""
    expect = flow.target.checkpoint()
    source.execute("update people set version = 2, name = 'old'")
    flow.catch_up()
    source.execute("update people set version = 3, name = 'new'")
    flow.catch_up()
    stale = next(b for b in flow.log.read(expect, follow=False) if b is not None and b.row_count)
    target: Any = flow.target
    if not mutant:
        with pytest.raises(Fenced):
            target.apply(stale, expect=expect)
    else:
        with monkeypatch.context() as patched:
            patched.setattr("apply.database.move", lambda *args, **more: None)
            target.apply(stale, expect=expect)
    assert flow.verify().verdict == ("invalid" if mutant else "valid")


@pytest.mark.parametrize("mutant", [True, False], ids=["first change wins", "true"])
def test_the_first_of_two_changes_winning_is_noticed(
    mutant: bool, source: Database, flow: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: first change wins."""
    true = apply.fold.fold

    def first_wins(rows: Rows) -> Folded:
        folded = true(rows)
        first = [folded.first[rows.keys[i]] for i in folded.upserts]
        return replace(folded, upserts=first, merged={}) if mutant else folded

    source.execute("begin; update people set version = 2; update people set version = 3; commit")
    monkeypatch.setattr("apply.write.fold", first_wins)
    flow.catch_up()
    assert flow.verify().verdict == ("invalid" if mutant else "valid")


@pytest.mark.parametrize("mutant", [True, False], ids=["partial rows unmerged", "true"])
def test_a_partial_row_that_replaces_a_whole_one_is_noticed(
    mutant: bool, source: Database, flow: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: partial rows unmerged. The later change lacks the note that the earlier brought."""
    source.execute(
        "begin; update people set note = repeat('second', 2000);"
        "update people set version = 3; commit"
    )
    if mutant:
        monkeypatch.setattr("apply.fold._merge", lambda rows, last: {})
    flow.catch_up()
    report = flow.verify()
    assert [d.columns for d in report.differences] == ([("note",)] if mutant else [])


def skips_a_range(patched: pytest.MonkeyPatch) -> None:
    cut = Pair.cut

    def without_second(self: Pair, after: Key | None, rows: int) -> Iterator[Range]:
        for number, one in enumerate(cut(self, after, rows)):
            if number != 1:
                yield one

    patched.setattr(Pair, "cut", without_second)


def ignores_a_column(patched: pytest.MonkeyPatch) -> None:
    kinds = DatabaseTarget.kinds

    def fewer(self: DatabaseTarget, table: Table) -> dict[str, Kind]:
        return {name: kind for name, kind in kinds(self, table).items() if name != "note"}

    patched.setattr(DatabaseTarget, "kinds", fewer)


def takes_null_for_empty(patched: pytest.MonkeyPatch) -> None:
    text = "char_length(coalesce({0}::text,''))||':'||coalesce({0}::text,'')"
    patched.setitem(postgres_checksum._FIELDS, ("text", "text"), text)


def takes_minus_zero_for_zero(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(postgres_checksum, "_float", lambda value: f"({value} + 0)::numeric")


def takes_any_parent_for_the_same(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(
        postgres_checksum,
        "reference",
        lambda column, field, dangling: f"CASE WHEN {column} IS NOT NULL THEN 'some' END",
    )


def takes_two_values_that_changed_places_for_the_same(patched: pytest.MonkeyPatch) -> None:
    def by_column(fields: Sequence[str]) -> str:
        sums = "+".join(f"sum(hashtext(concat({f}))::bigint)" for f in fields)
        return f"count(*), ({sums})::bigint"

    patched.setattr(postgres_checksum, "total", by_column)


VERIFIERS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "skips a range": (
        skips_a_range,
        "update people set version = 7 where sync_id = (select sync_id from people"
        " order by sync_id offset 4 limit 1)",
    ),
    "ignores a column": (ignores_a_column, "update people set note = note || '.'"),
    "takes null for ''": (takes_null_for_empty, "update people set name = '' where name is null"),
    "takes '' for null": (takes_null_for_empty, "update people set name = null where name = ''"),
    "takes -0 for 0": (takes_minus_zero_for_zero, "update rates set rate = 0"),
    "takes any parent for the same": (
        takes_any_parent_for_the_same,
        "update pets set owner = (select max(id) from people)",
    ),
    "adds up columns, not rows": (
        takes_two_values_that_changed_places_for_the_same,
        "update people set version = 3 - version where sync_id in"
        " (select sync_id from people order by sync_id limit 2)",
    ),
}
"""Broken verifiers, each with a difference in the target that it does not see."""


@pytest.mark.parametrize("mutant", [True, False], ids=["mutant", "true"])
@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verifier_that_looks_away_is_noticed(
    name: str,
    mutant: bool,
    postgres: Server,
    new_database: Callable[[Server], Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T66: what each of them misses is found by the true one."""
    source, target = new_database(postgres), new_database(postgres)
    create(source)
    source.execute(
        "insert into people (sync_id, name, version, note) select lpad(g::text, 32, '0')::uuid,"
        " case g when 1 then null when 2 then '' else 'Ann ' || g end, 1 + g % 2, 'note'"
        " from generate_series(1, 8) g;"
        "create table rates (id int primary key, sync_id uuid not null unique, rate float8);"
        "insert into rates values (1, gen_random_uuid(), '-0');"
        "insert into pets (sync_id, owner, version)"
        " select gen_random_uuid(), min(id), 1 from people"
    )
    target.execute("create table rates (id serial primary key, sync_id uuid unique, rate float8)")
    breaks, plant = VERIFIERS[name]
    with replica(source.name, source, target) as flow:
        flow.catch_up()
        assert flow.verify(range_rows=3).verdict == "valid"
        target.execute(plant)
        if mutant:
            breaks(monkeypatch)
        assert flow.verify(range_rows=3).verdict == ("valid" if mutant else "invalid")
