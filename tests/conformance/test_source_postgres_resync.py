"""Tables that were renamed, or dropped and made anew: the log shows no row of it, and nothing may
be mixed (H115). The ways on are MySQL's: copy it anew, or leave it out.
"""

from __future__ import annotations

import contextlib

import pytest

from capture import postgres_stream
from capture.snapshot import with_copies
from schemas.change import Progress
from schemas.errors import Operator, Unsupported
from tests.conformance.resyncing import (
    NAME,
    TABLE,
    assert_equal,
    capture,
    full_name,
    insert,
    replay,
    source_of,
)
from tests.services.database import Database
from transport.memory import MemoryLog, MemoryStore


@pytest.fixture
def database(postgres_db: Database) -> Database:
    postgres_db.execute(f"create table t {TABLE}; create table other {TABLE}")
    return postgres_db


LOSSES = {
    "dropped and made anew": f"drop table t; create table t {TABLE}",
    "swapped with a new one": f"create table _n {TABLE}; insert into _n values (7, 'k7', 7);"
    " alter table t rename to _o; alter table _n rename to t",
    "dropped and published": f"drop table t; create table t {TABLE}; insert into t values"
    " (2, 'k2', 1); alter table t replica identity full; alter publication {0} add table t;"
    " update t set n = 5; insert into t values (9, 'k9', 9)",
}


@pytest.mark.parametrize("how", LOSSES)
def test_a_table_that_is_another_one_stops_and_is_copied_anew(database: Database, how: str) -> None:
    """H115: it happened while nothing was captured; killed twice on the way."""
    store = MemoryStore()
    insert(database, "t", *range(1, 8))
    capture(database, store, again=("t",), exclude=("*._*",))
    database.execute(LOSSES[how].format(f'"{database.name}"'))
    for _ in range(2):
        with pytest.raises(
            Unsupported, match=r"another table|renamed public\.t to public\._o"
        ) as caught:
            capture(database, store, exclude=("*._*",))
    assert f"run: headwater snapshot {NAME} public.t" in caught.value.hint
    for pieces in (2, 3):
        capture(database, store, again=("t",), pieces=pieces, exclude=("*._*",))
    database.execute("insert into t values (60, 'k60', 1)")
    capture(database, store, again=("t",), exclude=("*._*",))
    assert_equal(database, store, "t")
    database.execute("update t set n = 77 where id = 60")
    capture(database, store, exclude=("*._*",))
    assert_equal(database, store, "t")


SWAP = "alter table t rename to x; alter table other rename to t; alter table x rename to other"
WRITES = "update t set n = 1 where id = 1; insert into other values (30, 'k30', 3)"


@pytest.mark.parametrize("writes", ["", WRITES])
def test_swapped_tables_are_not_mixed(database: Database, writes: str) -> None:
    """H115: both names stop, with rows written under the new names and without."""
    store = MemoryStore()
    insert(database, "t", 1, 2)
    insert(database, "other", 1, 3)
    capture(database, store, again=("t", "other"))
    database.execute(f"begin; {SWAP}; {writes}; commit")
    with pytest.raises(Unsupported, match="renamed") as caught:
        capture(database, store)
    assert "public.t" in caught.value.hint
    assert "public.other" in caught.value.hint
    assert "k30" not in str(replay(store))
    capture(database, store, again=("t", "other"))
    assert_equal(database, store, "t", "other")


def test_a_renamed_table_is_left_out_and_its_new_name_copied(database: Database) -> None:
    """H115: what the error says is enough; the publication knows the table by its oid."""
    store = MemoryStore()
    insert(database, "t", 1, 2)
    capture(database, store, again=("t", "other"))
    database.execute("alter table t rename to u; update u set n = 5 where id = 1")
    with pytest.raises(Unsupported, match=r"renamed public\.t to public\.u") as caught:
        capture(database, store)
    assert 'exclude = ["public.t"]; then run: headwater snapshot shop public.u' in caught.value.hint
    capture(database, store, again=("u",), exclude=("public.t",))
    assert_equal(database, store, "u")
    capture(database, store, exclude=("public.t",))


def test_a_rename_out_of_the_selection_stops_too(database: Database) -> None:
    """H115: rows under the new name would not be captured, those under the old one stay behind."""
    store = MemoryStore()
    insert(database, "t", 1)
    capture(database, store, again=("t",), exclude=("*._*",))
    database.execute("alter table t rename to _t")
    with pytest.raises(Unsupported, match=r"renamed public\.t to public\._t"):
        capture(database, store, exclude=("*._*",))
    capture(database, store, exclude=("*._*", "public.t"))


def test_what_keeps_a_table_the_same_one_stops_nothing(database: Database) -> None:
    """ALTER, TRUNCATE and what rewrites the table keep its oid and its name."""
    store = MemoryStore()
    insert(database, "t", *range(1, 5))
    capture(database, store, again=("t",))
    database.execute("alter table t add column extra int default 4")
    insert_more = "insert into t (id, sync_id, n) values (50, 'k50', 5)"
    database.execute(f"{insert_more}; alter table t alter column n type bigint")
    database.execute("vacuum full t")
    database.execute("cluster t using t_pkey")
    database.execute("truncate t; insert into t values (6, 'k6', 60, 1)")
    capture(database, store)
    assert_equal(database, store, "t")


UNREADABLE = {
    "replica identity": "alter table t replica identity default; delete from t where id = 2;"
    " update t set n = 5 where id = 1",
    "a partition made later": "create table t_late partition of t for values from (100) to (200);"
    " insert into t values (100, 'k100', 1), (101, 'k101', 2); delete from t where id = 100",
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_rows_that_do_not_say_which_they_were_are_copied_anew(database: Database, how: str) -> None:
    """The WAL stays as it was written: a replica identity set afterwards helps the rows to come."""
    store = MemoryStore()
    database.execute(
        "drop table t; create table t (id int, sync_id varchar(40) not null, n int,"
        " primary key (id)) partition by range (id);"
        " create table t_1 partition of t for values from (0) to (100)"
        if "partition" in how
        else "select 1"
    )
    insert(database, "t", *range(1, 8))
    capture(database, store, again=("t",))
    database.execute(UNREADABLE[how])
    with pytest.raises(Operator, match=r"replica identity.* lacks") as caught:
        capture(database, store)
    assert "headwater prepare" in caught.value.hint
    assert f"headwater snapshot {NAME} public.t" in caught.value.hint
    capture(database, store, again=("t",))
    assert_equal(database, store, "t")


def test_a_running_capture_finds_a_table_that_is_not_published_any_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H115: nothing of the new table comes by the log; the catalog has it."""
    monkeypatch.setattr(postgres_stream, "LOOK_S", 0.0)
    store = MemoryStore()
    insert(database, "t", 1)
    with (
        contextlib.closing(source_of(database, (), ())) as source,
        contextlib.closing(MemoryLog(NAME, store)) as log,
    ):
        pieces = with_copies(source, log.open(), {full_name(database, "t"): "rows"})
        for piece in pieces:
            log.append(piece)
            if piece.commit and (piece.commit.progress or {}).get("public.t", {}).get("done"):
                break
        database.execute(f"drop table t; create table t {TABLE}")
        with pytest.raises(Unsupported, match="another table") as caught:
            list(pieces)
        assert "headwater prepare" in caught.value.hint
        assert "public.t" in [f.where for f in source.check() if f.refused]


def test_progress_of_an_older_version_is_read_and_completed(database: Database) -> None:
    """H145: without oids, a start believes the catalog, and the log has them from then on."""
    store = MemoryStore()
    insert(database, "t", 1)
    old: Progress = {"public.t": {"what": "rows", "after": None, "done": True}}
    with (
        contextlib.closing(source_of(database, (), ())) as source,
        contextlib.closing(MemoryLog(NAME, store)) as log,
    ):
        opened = log.open()._replace(progress=old)
        for piece in with_copies(source, opened, {}):
            log.append(piece)
            if piece.commit and piece.commit.transactions == 0:
                log.flush()
                break
    capture(database, store)
    assert MemoryLog(NAME, store).open().progress["public.t"].keys() == {*old["public.t"], "oid"}
    database.execute("alter table t rename to u")
    with pytest.raises(Unsupported, match="renamed"):
        capture(database, store)
