"""MySQL and MariaDB as sources: positions, resume, refusals, descriptions, preflight, chunks."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from capture.mysql import MySQLSource
from schemas.change import Position
from schemas.errors import HeadwaterError, Misconfigured, SourceLost, Transient, Unsupported
from schemas.selection import Selection
from tests.conformance.sources import Change, Tap, mysql_source
from tests.services import mariadb as mariadbd
from tests.services import mysql as mysqld
from tests.services.database import Database, fresh
from tests.services.server import Server

TABLE = "create table t (id int primary key, sync_id varchar(40) not null unique, n int)"
OTHER = "aaaaaaaa-0000-0000-0000-{:012d}"


@pytest.fixture(params=["mysql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param}_db")
    found.execute(TABLE)
    return found


@contextlib.contextmanager
def session(database: Database) -> Iterator[Any]:
    """A cursor of one session, for settings that a session has."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def ids(changes: list[Change]) -> list[str]:
    return [change.key["sync_id"] for change in changes]


def insert(database: Database, n: int) -> None:
    database.execute(f"insert into t values ({n}, 'k{n}', {n})")


def test_a_stream_resumes_exactly_at_every_position(database: Database) -> None:
    with Tap(mysql_source(database, batch_rows=1)) as tap:
        start = tap.position
        for n in range(6):
            insert(database, n)
        assert ids(tap.drain()) == [f"k{n}" for n in range(6)]
        rows = [b for b in tap.batches if any(piece.rows for piece in b)]
        ends = [start] + [b[-1].commit.position for b in rows if b[-1].commit]
    for n, position in enumerate(ends):
        with Tap(mysql_source(database), after=position) as tap:
            assert ids(tap.drain()) == [f"k{i}" for i in range(n, 6)]


def test_a_hole_in_the_executed_set_is_captured_when_it_is_filled(mysql_db: Database) -> None:
    """H1: position u:1:3, then 2 commits late while nobody reads."""
    mysql_db.execute(TABLE)
    uuid = OTHER.format(int(mysql_db.name[2:], 16) % 10**12)

    def commit_as(number: int) -> None:
        with session(mysql_db) as cursor:
            cursor.execute(f"set gtid_next = '{uuid}:{number}'")
            cursor.execute(f"insert into t values ({number}, 'k{number}', 0)")
            cursor.execute("set gtid_next = 'automatic'")

    with Tap(mysql_source(mysql_db)) as tap:
        commit_as(1)
        commit_as(3)
        assert ids(tap.drain()) == ["k1", "k3"]
        position = tap.position
    assert f"{uuid}:1:3" in str(position)
    commit_as(2)
    with Tap(mysql_source(mysql_db), after=position) as tap:
        assert ids(tap.drain()) == ["k2"]
        assert f"{uuid}:1-3" in str(tap.position)


def test_no_domain_is_lost_or_doubled_by_a_reconnection(mariadb_db: Database) -> None:
    """H5: two GTID domains, resumed at every commit."""
    mariadb_db.execute(TABLE)
    with Tap(mysql_source(mariadb_db, batch_rows=1)) as tap:
        position = tap.position
    got: list[str] = []
    with session(mariadb_db) as cursor:
        for n in range(6):
            cursor.execute(f"set gtid_domain_id = {7 if n % 2 else 0}")
            cursor.execute(f"insert into t values ({n}, 'k{n}', 0)")
            if n in (1, 2, 5):
                with Tap(mysql_source(mariadb_db), after=position) as tap:
                    got += ids(tap.drain())
                    position = tap.position
    assert got == [f"k{n}" for n in range(6)]
    assert "7-" in str(position)


def test_a_large_transaction_comes_in_bounded_pieces_of_one_batch(database: Database) -> None:
    with Tap(mysql_source(database)) as tap:
        digits = "(select 0 d union select 1 union select 2 union select 3 union select 4)"
        tables = ", ".join(f"{digits} d{i}" for i in range(6))
        number = " + ".join(f"d{i}.d * {5**i}" for i in range(6))
        database.execute(
            f"insert into t select x, concat('k', x), x from (select {number} x from {tables}) s"
        )
        assert len(tap.drain()) == 5**6
        (batch,) = [b for b in tap.batches if b[0].rows]
    assert len(batch) > 2
    assert all(sum(map(len, piece.rows)) < 6000 for piece in batch)
    assert [piece.commit is None for piece in batch] == [True] * (len(batch) - 1) + [False]


def test_every_row_of_a_multi_row_event_is_there_and_an_empty_change_is_none(
    database: Database,
) -> None:
    with Tap(mysql_source(database)) as tap:
        database.execute("insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)")
        database.execute("update t set n = n where id = 1; delete from t where id = 9")
        database.execute("update t set n = 9 where id > 1; delete from t")
        assert [c.op for c in tap.drain()] == ["c"] * 3 + ["u"] * 2 + ["d"] * 3


def test_a_lost_connection_is_transient(database: Database) -> None:
    with Tap(mysql_source(database)) as tap:
        insert(database, 1)
        tap.drain()
        with session(database) as cursor:
            cursor.execute(
                "select id from information_schema.processlist where command like 'Binlog Dump%'"
            )
            for (found,) in cursor.fetchall():
                if found in dump_threads(database, tap):
                    cursor.execute(f"kill {found}")
        insert(database, 2)
        with pytest.raises(Transient):
            list(tap.pieces)


def dump_threads(database: Database, tap: Tap) -> list[int]:
    """This tap's own dump connection: other tests have theirs on the same server."""
    frame = tap.pieces.gi_frame  # type: ignore[attr-defined]
    return [frame.f_locals["reader"]._stream_connection.thread_id()]


def test_a_server_id_that_somebody_else_uses_is_an_error_and_no_battle(database: Database) -> None:
    """H10: the one that is kicked out says why and stays out."""
    first = Tap(mysql_source(database, server_id=4_000_000_123))
    with first:
        insert(database, 1)
        first.drain()
        with Tap(mysql_source(database, server_id=4_000_000_123)) as second:
            insert(database, 2)
            assert ids(second.drain()) in (["k2"], ["k1", "k2"])
            with pytest.raises(Misconfigured, match="same server id"):
                list(first.pieces)
            insert(database, 3)
            assert ids(second.drain()) == ["k3"]


def test_one_kicked_out_without_a_word_stays_out_too(database: Database) -> None:
    """H10: MariaDB often closes the connection before its reason is on the way."""
    with Tap(mysql_source(database, server_id=4_000_000_124)) as first:
        insert(database, 1)
        first.drain()
        with Tap(mysql_source(database, server_id=4_000_000_124)) as second:
            insert(database, 2)
            second.drain()
            swallow_last_words(first)
            with pytest.raises(Misconfigured, match="same server id"):
                list(first.pieces)


def swallow_last_words(tap: Tap) -> None:
    frame = tap.pieces.gi_frame  # type: ignore[attr-defined]
    sock: socket.socket = frame.f_locals["reader"]._stream_connection._sock
    sock.settimeout(10)
    with contextlib.suppress(ConnectionError):
        while sock.recv(1 << 16):
            pass


def test_each_range_is_decoded_by_its_own_description(database: Database) -> None:
    """H113: two incompatible ALTERs while the capture was down."""
    with Tap(mysql_source(database)) as tap:
        position = tap.position
    database.execute("insert into t values (1, 'a', 1)")
    database.execute("alter table t drop column n, add column flag tinyint(1), add column s text")
    database.execute("insert into t values (2, 'b', 1, 'x')")
    database.execute("alter table t modify s blob, drop column flag, add column n bigint first")
    database.execute("insert into t values (3, 4, 'c', 'y')")
    with Tap(mysql_source(database), after=position) as tap:
        assert [c.after for c in tap.drain()] == [
            {"id": 1, "sync_id": "a", "n": 1},
            {"id": 2, "sync_id": "b", "flag": 1, "s": "x"},
            {"n": 3, "id": 4, "sync_id": "c", "s": "eQ=="},
        ]


def test_an_alter_that_is_not_in_the_log_is_refused(database: Database) -> None:
    """H120: the description changed, and no statement says why."""
    with Tap(mysql_source(database)) as tap:
        insert(database, 1)
        tap.drain()
        with session(database) as cursor:
            cursor.execute("set sql_log_bin = 0")
            cursor.execute("alter table t add column extra int")
        database.execute("insert into t values (2, 'b', 2, 3)")
        with pytest.raises(Unsupported, match="altered without a statement"):
            tap.drain()


def test_hidden_and_generated_columns_shift_nothing(database: Database) -> None:
    """H36: invisible, virtual and stored columns, a functional index's, a generated key."""
    is_mysql = "MariaDB" not in str(database.query("select version()"))
    database.execute(
        "create table g (id int primary key, v int generated always as (n + 1) virtual,"
        " sync_id varchar(40) not null unique, s int generated always as (n + 2) stored,"
        " n int, hidden int invisible default 7, last varchar(10))"
    )
    if is_mysql:
        database.execute("create index f on g ((n * 2))")
    with Tap(mysql_source(database)) as tap:
        database.execute("insert into g (id, sync_id, n, last) values (1, 'a', 5, 'z')")
        row = {"id": 1, "sync_id": "a", "n": 5, "hidden": 7, "last": "z"}
        assert [c.after for c in tap.drain()] == [row]
        database.execute("update g set n = 6")
        assert [(c.before, c.after) for c in tap.drain()] == [(row, row | {"n": 6})]
        if is_mysql:
            with session(database) as cursor:
                cursor.execute("set sql_generate_invisible_primary_key = on")
                cursor.execute("create table p (sync_id varchar(40) not null, n int)")
                cursor.execute("insert into p values ('a', 1)")
            (change,) = tap.drain()
            assert change.after == {"my_row_id": 1, "sync_id": "a", "n": 1}
            (described,) = [t for t in tap.source.describe() if t.name == "p"]
            assert described.primary_key == ("my_row_id",)


def test_chunks_page_through_any_key_in_its_own_order(database: Database) -> None:
    keys: dict[str, tuple[str, str, list[tuple[object, object]]]] = {
        "a": ("x varchar(10), y int", "x, y", [("'b'", 1), ("'B'", 2), ("'a'", 9), ("'b'", -1)]),
        "b": ("x binary(2), y datetime(3)", "y, x", [("x'0001'", "'2026-01-01'"), ("x'ff'", "0")]),
        "c": ("x enum('z','a','m'), y decimal(9,3)", "x, y", [(1, "1.5"), (2, "1.5"), (3, "-1")]),
        "d": ("x bigint unsigned, y date", "x, y", [("18446744073709551615", "'2026-01-02'")] * 1),
    }
    for name, (columns, key, rows) in keys.items():
        database.execute(
            f"create table {name} ({columns}, sync_id varchar(9) not null unique,"
            f" primary key ({key}))"
        )
        with session(database) as cursor:
            cursor.execute("set sql_mode = ''")
            for n, (x, y) in enumerate(rows):
                cursor.execute(f"insert into {name} values ({x}, {y}, 'k{n}')")
    with contextlib.closing(mysql_source(database)) as source:
        tables = {t.name: t for t in source.describe()}
        for name, (_, key, rows) in keys.items():
            whole = source.chunk(tables[name], None, 100, epoch=1, run=1)
            assert len(whole.keys) == len(rows)
            assert whole.next_key is None
            paged: list[bytes] = []
            after = None
            while True:
                chunk = source.chunk(tables[name], after, 1, epoch=1, run=1)
                paged += chunk.keys
                after = chunk.next_key
                if after is None:
                    break
            order = [
                str(k) for (k,) in database.query(f"select sync_id from {name} order by {key}")
            ]
            assert [k.decode() for k in paged] == [f'{{"sync_id":"{k}"}}' for k in order]
            assert paged == whole.keys


def test_a_chunk_says_what_it_saw_and_where_the_log_stood(database: Database) -> None:
    with Tap(mysql_source(database)) as tap:
        before = tap.source.chunk(tap.source.describe()[0], None, 10, epoch=1, run=1)
        insert(database, 1)
        tap.drain()
        commit = [b[-1].commit for b in tap.batches if b[-1].commit and b[-1].commit.marks][-1]
        assert commit is not None
        after = tap.source.chunk(tap.source.describe()[0], None, 10, epoch=1, run=1)
        assert not tap.source.sees(before.seen, commit.marks)
        assert tap.source.sees(after.seen, commit.marks)
        assert (after.keys, after.source_keys()) == ([b'{"sync_id":"k1"}'], [1])
        assert tap.source.reached(before.high, commit.position)
        insert(database, 2)
        late = tap.source.chunk(tap.source.describe()[0], None, 10, epoch=1, run=1)
        assert not tap.source.reached(late.high, commit.position)


def test_preflight_finds_nothing_where_nothing_is_wrong(database: Database) -> None:
    with contextlib.closing(mysql_source(database)) as source:
        assert source.check() == []


def test_preflight_finds_tables_without_a_usable_identity(database: Database) -> None:
    """H106: no sync_id, one that may be NULL, one that is not unique: each is refused by name."""
    database.execute("create table nothing (id int primary key)")
    database.execute("create table nullable (id int primary key, sync_id varchar(9) unique)")
    database.execute("create table doubled (id int primary key, sync_id varchar(9) not null)")
    with contextlib.closing(mysql_source(database)) as source:
        found = {(f.where.partition(".")[2], f.refused) for f in source.check()}
        assert found == {("nothing", True), ("nullable.sync_id", True), ("doubled.sync_id", True)}
        with pytest.raises(Misconfigured, match=r"no column sync_id on .*nothing"):
            source.describe()


def test_a_doubled_identity_comes_out_as_it_is(database: Database) -> None:
    """H106: where preflight was passed over; nothing is dropped or made up."""
    database.execute("create table n (id int primary key, sync_id varchar(9) not null)")
    with Tap(mysql_source(database)) as tap:
        database.execute("insert into n values (2, 'x'), (3, 'x')")
        assert ids(tap.drain()) == ["x", "x"]


@pytest.mark.parametrize("action", ["on delete cascade", "on delete set null", "on update cascade"])
def test_preflight_refuses_cascades_that_the_log_does_not_show(
    database: Database, action: str
) -> None:
    """H20, T18: MySQL before 9.6 and MariaDB; accepted only on purpose."""
    database.execute(
        "create table child (id int primary key, sync_id varchar(9) not null unique, t int,"
        f" foreign key (t) references t (id) {action})"
    )
    shows_cascades = database.query("select version()")[0][0].startswith("9.")
    with contextlib.closing(mysql_source(database)) as source:
        found = [f.where for f in source.check()]
        assert found == ([] if shows_cascades else [f"{database.name}.child.t"])
    with contextlib.closing(mysql_source(database, cascades="carry")) as source:
        is_carried = action.startswith("on delete")
        assert [f.where for f in source.check()] == ([] if is_carried else found)
    with contextlib.closing(mysql_source(database, cascades="accept")) as source:
        assert source.check() == []


def test_cascades_of_composite_keys_are_refused_too(mariadb_db: Database) -> None:
    """H20: no version of MariaDB shows them."""
    mariadb_db.execute(TABLE)
    mariadb_db.execute("alter table t add unique key pair (id, n)")
    mariadb_db.execute(
        "create table child (id int primary key, sync_id varchar(9) not null unique, t int, m int,"
        " foreign key (t, m) references t (id, n) on delete cascade)"
    )
    with contextlib.closing(mysql_source(mariadb_db)) as source:
        assert [f.where for f in source.check()] == [f"{mariadb_db.name}.child.t, m"]


def test_a_server_that_logs_cascades_gives_them_once(mysql_db: Database) -> None:
    """H20, T18: MySQL 9.6 and later, which preflight therefore lets through."""
    mysql_db.execute(TABLE)
    mysql_db.execute(
        "create table child (id int primary key, sync_id varchar(9) not null unique, t int,"
        " foreign key (t) references t (id) on delete cascade)"
    )
    mysql_db.execute("insert into t values (1, 'p', 0); insert into child values (1, 'c', 1)")
    with Tap(mysql_source(mysql_db)) as tap:
        mysql_db.execute("delete from t")
        assert sorted((c.op, c.table) for c in tap.drain()) == [("d", "child"), ("d", "t")]


def test_a_wrong_password_and_a_server_that_is_not_there_are_told_apart(database: Database) -> None:
    everything = Selection()
    url = f"mysql://headwater:wrong@{database.server.address}/"
    with pytest.raises(Misconfigured, match="was refused"):
        MySQLSource("s", url, everything).describe()
    with pytest.raises(Transient, match="could not connect"):
        MySQLSource("s", "mysql://a:b@127.0.0.1:1/", everything).describe()
    (finding,) = MySQLSource("s", url, everything).check()
    assert "refused" in finding.problem


def test_a_user_without_the_right_to_read_the_log_is_told_what_to_grant(database: Database) -> None:
    user = f"u{database.name[2:]}"
    database.execute(f"create user {user}@'%' identified by 'x'; grant select on *.* to {user}@'%'")
    try:
        source = MySQLSource(
            "s",
            f"mysql://{user}:x@{database.server.address}/",
            Selection(include=[f"{database.name}.*"]),
        )
        problems = {f.problem for f in source.check()}
        assert "the user has no REPLICATION SLAVE" in problems
        with pytest.raises(HeadwaterError, match="refused"), Tap(source) as tap:
            list(tap.pieces)
    finally:
        database.execute(f"drop user {user}@'%'")


def test_a_compressed_transaction_is_refused_by_the_name_of_its_setting(
    server_dir: Path,
) -> None:
    """H11: until it can be read, it is never skipped. It would stop other tests' captures, too."""
    with mysqld.start(server_dir) as server, fresh(server) as database:
        refused(database)


def refused(database: Database) -> None:
    database.execute(TABLE)
    with Tap(mysql_source(database)) as tap:
        with session(database) as cursor:
            cursor.execute("set session binlog_transaction_compression = on")
            cursor.execute("insert into t values (1, 'a', 1)")
        with pytest.raises(Unsupported, match="compressed transaction") as caught:
            tap.drain()
        assert "binlog_transaction_compression" in caught.value.hint


@pytest.fixture(params=["mysql", "mariadb"])
def private(request: pytest.FixtureRequest, server_dir: Path) -> Iterator[Server]:
    module = mysqld if request.param == "mysql" else mariadbd
    with module.start(server_dir) as server:
        yield server


def test_a_private_server_is_followed_and_then_refused_after_a_reset(private: Server) -> None:
    """H43, H148, and purged binlogs; one server start for what changes global state."""
    with fresh(private) as database:
        database.execute(TABLE)
        with Tap(mysql_source(database)) as tap:
            start = tap.position
            for n, checksum in enumerate(("NONE", "CRC32", "NONE")):
                database.execute(f"set global binlog_checksum = {checksum}")
                insert(database, n)
            assert ids(tap.drain()) == ["k0", "k1", "k2"]
            position = tap.position
        with Tap(mysql_source(database), after=position) as tap:
            database.execute("set global binlog_checksum = CRC32")
            insert(database, 3)
            database.execute("flush binary logs")
            insert(database, 4)
            assert ids(tap.drain()) == ["k3", "k4"]
            position = tap.position
        database.execute("flush binary logs")
        newest = database.query("show binary logs")[-1][0]
        insert(database, 5)
        # A log that a dump thread still reads stays: the server notices only by and by that the
        # streams above were closed.
        while len(database.query("show binary logs")) > 1:
            database.execute(f"purge binary logs to '{newest}'")
        with Tap(mysql_source(database), after=position) as tap:
            assert ids(tap.drain()) == ["k5"]
        with Tap(mysql_source(database), after=start) as tap, pytest.raises(SourceLost) as caught:
            list(islice(tap.pieces, 2))  # MariaDB says it when it is asked for the dump
        assert "anew" in caught.value.hint
        reset = "reset binary logs and gtids" if private.kind == "mysql" else "reset master"
        database.execute(reset)
        with Tap(mysql_source(database), after=position) as tap, pytest.raises(SourceLost):
            next(tap.pieces)
        with Tap(mysql_source(database)) as tap:
            assert tap.position == "nothing"
            insert(database, 6)
            assert ids(tap.drain()) == ["k6"]


def test_a_row_longer_than_a_packet_comes_whole(mysql_db: Database) -> None:
    """H13: on MariaDB 10.11 the same event; its later partial rows are refused by name."""
    mysql_db.execute("create table w (sync_id varchar(9) primary key, a longblob, b longtext)")
    with Tap(mysql_source(mysql_db)) as tap:
        mysql_db.execute(
            "insert into w values ('a', repeat(x'00', 20000000), repeat('x', 9000000))"
        )
        (change,) = tap.drain()
        assert change.after["a"] == "A" * 26_666_667 + "="
        assert len(change.after["b"]) == 9_000_000


def test_wrong_settings_are_each_named(private: Server) -> None:
    with fresh(private) as database:
        database.execute(TABLE)
        wrong = {
            "binlog_format": "'STATEMENT'",
            "binlog_row_image": "'MINIMAL'",
            "binlog_row_metadata": "'MINIMAL'",
            "binlog_expire_logs_seconds": "3600",
        }
        last = (
            {"binlog_transaction_compression": "on", "gtid_mode": "ON_PERMISSIVE"}
            if private.kind == "mysql"
            else {"log_bin_compress": "on"}
        )
        for name, value in (wrong | last).items():
            database.execute(f"set global {name} = {value}")
        with contextlib.closing(mysql_source(database)) as source:
            if private.kind == "mysql":
                # H3: anonymous transactions may come between those with a GTID.
                with pytest.raises(Misconfigured, match="ON_PERMISSIVE"):
                    source.now()
                (finding,) = source.check()
                assert "ON_PERMISSIVE" in finding.problem
                database.execute("set global gtid_mode = ON")
                last.pop("gtid_mode")
            findings = source.check()
        assert {f.where for f in findings} == wrong.keys() | last.keys()
        assert [f.where for f in findings if not f.refused] == ["binlog_expire_logs_seconds"]
        if private.kind == "mariadb":
            database.execute("set global log_bin_compress_min_len = 10")
            database.execute("set global binlog_row_metadata = FULL")
            with Tap(mysql_source(database)) as tap:
                with session(database) as cursor:
                    cursor.execute("set binlog_format = 'ROW'")
                    cursor.execute(f"insert into t values (1, '{'a' * 40}', 1)")
                with pytest.raises(Unsupported, match="compressed") as caught:
                    tap.drain()
                assert "log_bin_compress" in caught.value.hint


def test_without_gtids_a_position_is_a_file_and_its_server(server_dir: Path) -> None:
    """H8: another base name is seen, not compared as text."""
    flags = ["--enforce-gtid-consistency=OFF", "--gtid-mode=OFF"]
    with mysqld.start(server_dir, extra_flags=flags) as server, fresh(server) as database:
        database.execute(TABLE)
        with Tap(mysql_source(database, batch_rows=1)) as tap:
            insert(database, 1)
            database.execute("flush binary logs")
            insert(database, 2)
            assert ids(tap.drain()) == ["k1", "k2"]
            rows = [b for b in tap.batches if any(piece.rows for piece in b)]
            ends = [b[-1].commit.position for b in rows if b[-1].commit]
            chunk = tap.source.chunk(tap.source.describe()[0], None, 10, epoch=1, run=1)
            assert len(chunk.keys) == 2
            assert tap.source.reached(chunk.high, Position(str(tap.position)))
        with Tap(mysql_source(database), after=ends[0]) as tap:
            assert ids(tap.drain()) == ["k2"]
        file, _, rest = str(ends[-1]).partition(":")
        wrong = {
            str(ends[-1]).replace("binlog.", "renamed-bin."): "another base name",
            f"binlog.000099:{rest}": "no binlog binlog.000099",
            f"{file}:999999999": "ends at",
            f"{file}:157@{OTHER.format(1)}": "another server",
        }
        for position, words in wrong.items():
            with pytest.raises(SourceLost, match=words):
                next(mysql_source(database).stream(Position(position), None))  # type: ignore[arg-type]
        with pytest.raises(Misconfigured, match="another form"):
            next(mysql_source(database).stream(Position(f"{OTHER.format(1)}:1-5"), None))  # type: ignore[arg-type]
