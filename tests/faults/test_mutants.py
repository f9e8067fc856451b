"""Planted mistakes, each of which the checkers of this folder must notice: tests of the tests.

Each is made in this process, between PostgreSQL databases; next to it stands the true code, which
passes the same check.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import apply.fold
from apply.fold import Folded
from schemas.change import Rows
from schemas.errors import Fenced, Operator
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
    target: Any = flow.target
    moved = target._move_checkpoint

    def ahead(connection: Any, *rest: Any) -> None:
        moved(connection, *rest)
        if mutant:
            connection.commit()

    def crash(*args: Any, **options: Any) -> int:
        raise Crash

    source.execute("update people set version = 2")
    flow.capture()
    with monkeypatch.context() as patched:
        patched.setattr(target, "_move_checkpoint", ahead)
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
            patched.setattr(target, "_move_checkpoint", lambda *args: None)
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
