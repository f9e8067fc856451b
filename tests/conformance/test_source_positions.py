"""Positions for a dump: noted before it, given to a capture after it, or refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from capture.binlog_gtid import GtidList, GtidSet
from capture.postgres import PostgresSource
from capture.source import Noted, Source
from schemas.change import Position
from schemas.errors import Misconfigured, SourceLost, Transient
from schemas.selection import Selection
from tests.conformance.postgres_reading import changes, images, read
from tests.conformance.sources import MAKERS, Tap, mysql_source, postgres_source
from tests.faults.pipeline import until
from tests.services import mariadb as mariadbd
from tests.services import mysql as mysqld
from tests.services.database import Database, fresh

KINDS = ["mysql", "mariadb", "postgres"]
TABLE = "create table t (id int primary key, sync_id varchar(40) not null unique)"
UUID = "aaaaaaaa-0000-0000-0000-000000000001"


def insert(database: Database, n: int) -> None:
    database.execute(f"insert into t values ({n}, 'k{n}')")


def note(source: Source, *, beat: bool = True) -> Noted:
    """A position; nothing is held."""
    with closing(source.note(hold=False, beat=beat)) as notes:
        found = next(noted for noted in notes if noted is not None)
        assert next(notes, None) is None
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{kind}_db")
    found.execute(TABLE)
    return found


@pytest.fixture
def source(kind: str, database: Database) -> Iterator[Source]:
    with closing(MAKERS[kind](database)) as made:
        yield made


def test_a_stream_from_a_noted_position_has_what_came_after_it(
    database: Database, source: Source
) -> None:
    insert(database, 1)
    noted = note(source)
    assert noted.snapshot is None
    insert(database, 2)
    assert source.given(noted.position) == noted.position
    assert source.given(f"  {noted.position}\n") == noted.position
    with Tap(source, after=noted.position) as tap:
        assert [change.key for change in tap.drain()] == [{"sync_id": "k2"}]
        first = tap.batches[0][-1].commit
    assert first is not None
    assert (first.position, first.transactions) == (noted.position, 0)


FORMS = {
    "mysql": f"{UUID}:1-5",
    "mariadb": "99-1-5",
    "postgres": "0/16B3748",
    "mysql without GTIDs": "binlog.000001:157",
    "no server": "yesterday",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_text_that_is_no_position_of_such_a_server_is_refused(
    kind: str, source: Source, form: str
) -> None:
    is_own = form == kind
    with pytest.raises(SourceLost if is_own else Misconfigured, match=r"position|slot") as caught:
        source.given(FORMS[form])
    assert is_own or "headwater position" in caught.value.hint


def test_a_position_of_the_future_is_refused(kind: str, database: Database, source: Source) -> None:
    at = note(source).position
    if kind == "mysql":
        later = f"{at},{server_uuid(database)}:1-999999999"
    else:
        later = {"mariadb": f"{at.rpartition('-')[0]}-999999999", "postgres": "FFFF/0"}[kind]
    with pytest.raises(SourceLost, match="our position"):
        source.given(later)


def server_uuid(database: Database) -> str:
    return str(database.query("select @@server_uuid")[0][0])


def test_a_position_of_another_server_is_refused(kind: str, source: Source) -> None:
    at = note(source).position
    other = {
        "mysql": f"{at},{UUID}:1",
        # A number that was passed long ago, of a server that never wrote here.
        "mariadb": "0-77-1",
        "postgres": f"{at.partition('@')[0]}@1",
    }[kind]
    with pytest.raises(SourceLost, match="another server"):
        source.given(other)


def test_a_position_is_given_its_canonical_form(mysql_db: Database, postgres_db: Database) -> None:
    """As mysqldump and pg_current_wal_lsn() write it."""
    for database, make in ((mysql_db, mysql_source), (postgres_db, postgres_source)):
        database.execute(TABLE)
        with closing(make(database)) as source:
            at = note(source).position
            loose = at.partition("@")[0].lower().replace(",", ",\n")
            assert source.given(loose.upper() if make is mysql_source else loose) == at


def test_mariadb_notes_a_position_behind_an_event_larger_than_a_packet(
    mariadb_db: Database,
) -> None:
    """There BINLOG_GTID_POS gives NULL."""
    mariadb_db.execute(TABLE)
    mariadb_db.execute("create table large (a longblob, b longblob)")
    mariadb_db.execute("insert into large select repeat('x', 9000000), repeat('x', 9000000)")
    with closing(mysql_source(mariadb_db)) as source:
        assert note(source, beat=False).position == source.now()[0]


def test_mariadb_notes_no_commit_that_a_read_may_not_see(mariadb_db: Database) -> None:
    """In the binlog first, then in the engine: a snapshot says how far one sees."""
    mariadb_db.execute(TABLE)
    with closing(mysql_source(mariadb_db)) as source:
        for n in range(20):
            insert(mariadb_db, n)
            noted, (now, _) = note(source).position, source.now()
            assert GtidList(noted) <= GtidList(now)
        with Tap(source, after=noted) as tap:
            assert tap.drain() == []


@pytest.mark.parametrize("make", [mysqld, mariadbd], ids=["mysql", "mariadb"])
def test_a_purged_position_is_refused_before_the_log_is_asked_for(
    make: Any, server_dir: Path
) -> None:
    with make.start(server_dir) as server, fresh(server) as database:
        database.execute(TABLE)
        with closing(mysql_source(database)) as source:
            early = note(source).position
            insert(database, 1)
            purge(database)
            late = note(source).position
            assert source.given(late) == late
            with pytest.raises(SourceLost, match="purged"):
                source.given(early)
            with pytest.raises(SourceLost, match="purged"):
                source.given("nothing")


def purge(database: Database) -> None:
    """Take away every binlog that is there now; MariaDB keeps one until the engine's checkpoint."""
    last = database.query("show binary logs")[-1][0]

    def is_gone() -> bool:
        database.execute("flush binary logs")
        database.execute(f"purge binary logs to '{database.query('show binary logs')[-1][0]}'")
        return last not in [name for name, *_ in database.query("show binary logs")]

    until(is_gone, "the purge")


def test_without_gtids_only_the_beginning_of_a_transaction_is_a_position(server_dir: Path) -> None:
    flags = ["--enforce-gtid-consistency=OFF", "--gtid-mode=OFF"]
    with mysqld.start(server_dir, flags) as server, fresh(server) as database:
        database.execute(TABLE)
        with closing(mysql_source(database)) as source:
            noted = note(source)
            assert [finding.where for finding in noted.findings] == ["gtid_mode"]
            insert(database, 1)
            place, _, uuid = noted.position.partition("@")
            assert source.given(noted.position) == source.given(place) == noted.position
            file, _, pos = place.rpartition(":")
            assert source.given(f"{file}:4") == f"{file}:4@{uuid}"
            events = database.query(f"show binlog events in '{file}' from {pos}")
            assert len(events) >= 5
            for _, at, name, *_ in events:
                if name == "Anonymous_Gtid":
                    assert source.given(f"{file}:{at}")
                else:
                    with pytest.raises(Misconfigured, match="no beginning"):
                        source.given(f"{file}:{at}")
            with pytest.raises(Misconfigured, match="no beginning"):
                source.given(f"{file}:{int(pos) + 1}")
            with pytest.raises(SourceLost, match="ends at"):
                source.given(f"{file}:999999999")
            with pytest.raises(SourceLost, match="another server"):
                source.given(f"{place}@{UUID}")
            purge(database)
            with pytest.raises(SourceLost, match="no binlog"):
                source.given(noted.position)


@contextlib.contextmanager
def session(database: Database) -> Iterator[Any]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def seen_by(database: Database, snapshot: str | None) -> list[tuple[Any, ...]]:
    """The ids that a dump under this snapshot would have."""
    with session(database) as cursor:
        cursor.execute("begin isolation level repeatable read")
        cursor.execute("set transaction snapshot %s", (snapshot,))
        cursor.execute("select id from t order by id")
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


@pytest.mark.parametrize("fixture", ["postgres_db", "postgres15_db"])
def test_a_snapshot_and_the_stream_after_it_have_each_row_once(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(fixture)
    database.execute(TABLE)
    insert(database, 1)
    with closing(PostgresSource(database.name, database.url, Selection())) as source:
        with closing(source.note(hold=True)) as notes:
            noted = next(n for n in notes if n is not None)
            insert(database, 2)
            assert seen_by(database, noted.snapshot) == [(1,)]
            assert next(notes) == noted
            assert seen_by(database, noted.snapshot) == [(1,)]
        with pytest.raises(Exception, match="snapshot"):
            seen_by(database, noted.snapshot)
        assert source.given(noted.position) == noted.position
        found = images(changes(read(source, noted.position)), "sync_id")
        assert found == [("c", "k2")]
        # The slot is there now: its place is the same, and no snapshot of it can be had.
        with closing(source.note(hold=True)) as notes:
            again = next(notes)
            assert next(notes, None) is None
    assert again is not None
    assert (again.position, again.snapshot) == (noted.position, None)
    assert "is there already" in again.findings[0].problem


def test_a_slot_waits_for_running_transactions_and_can_be_given_up(postgres_db: Database) -> None:
    postgres_db.execute(TABLE)
    slots = f"select 1 from pg_replication_slots where database = '{postgres_db.name}'"
    with closing(postgres_source(postgres_db)) as source, session(postgres_db) as cursor:
        cursor.execute("begin")
        cursor.execute("select pg_current_xact_id()")
        with closing(source.note(hold=True)) as notes:
            assert next(notes) is None
        cursor.execute("rollback")
        # The server's process drops what it had begun to make, and only then is it gone.
        postgres_db.query(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where backend_type = 'walsender' and datname = %s",
            postgres_db.name,
        )
        assert postgres_db.query(slots) == []
        with closing(source.note(hold=True)) as notes:
            assert next(n for n in notes if n is not None).snapshot


def test_a_snapshot_that_is_lost_is_said(postgres_db: Database) -> None:
    postgres_db.execute(TABLE)
    with closing(postgres_source(postgres_db)) as source, closing(source.note(hold=True)) as notes:
        noted = next(n for n in notes if n is not None)
        postgres_db.query(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where backend_type = 'walsender' and datname = %s",
            postgres_db.name,
        )
        with pytest.raises(Transient, match="snapshot"):
            assert [next(notes), next(notes), next(notes)] == [noted] * 3


def test_a_place_that_the_slot_has_passed_is_a_gap(postgres_db: Database) -> None:
    postgres_db.execute(TABLE)
    with closing(postgres_source(postgres_db)) as source:
        with pytest.raises(SourceLost, match="no replication slot"):
            source.given("0/16B3748")
        early = note(source).position
        insert(postgres_db, 1)
        postgres_db.query(
            f"select pg_replication_slot_advance('headwater_{postgres_db.name}',"
            " pg_current_wal_flush_lsn())"
        )
        with pytest.raises(SourceLost, match="what lies between"):
            source.given(early)


def test_a_set_with_holes_is_a_position(mysql_db: Database) -> None:
    """What a server executed may have holes, and a capture from there fills them."""
    with closing(mysql_source(mysql_db)) as source:
        mysql_db.execute(TABLE)
        own = server_uuid(mysql_db)
        for n in range(4):
            insert(mysql_db, n)
        executed = list(GtidSet(note(source).position))
        last = max(end for uuid, (_, end) in executed if uuid == own)
        others = [f"{uuid}:{first}-{end}" for uuid, (first, end) in executed if uuid != own]
        holed = str(GtidSet(",".join([*others, f"{own}:1-{last - 3}:{last - 1}-{last}"])))
        assert source.given(holed) == holed
        with Tap(source, after=Position(holed)) as tap:
            assert [change.key for change in tap.drain()] == [{"sync_id": "k1"}]


def test_a_beat_is_committed_after_the_position_that_it_names(source: Source) -> None:
    """H125: the other way round it would prove nothing; the dump may lie between the two."""
    first, second = note(source), note(source)
    assert [first.beat, second.beat] == [1, 2]
    assert [beat.position for beat in source.beats()] == [first.position, second.position]
    assert not source.reached(source.now()[0], second.position)
    left_out = note(source, beat=False)
    assert left_out.beat is None
    assert len(source.beats()) == 2
    assert any("headwater_beat" in statement for statement in source.drop(dry_run=True))
