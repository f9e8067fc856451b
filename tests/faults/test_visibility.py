"""A commit that is in the log, and streamed, before any read can see it: log before visibility.

PostgreSQL waits for a synchronous standby that never comes; MySQL and MariaDB, semi-synchronous,
for a replica that never acknowledges, between the binlog's sync and the engine's commit
(AFTER_SYNC).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from capture.loop import capture
from schemas.change import Piece
from schemas.errors import Transient
from tests.faults.pipeline import until
from tests.faults.replica import Replica, replica
from tests.faults.workload import create
from tests.services import mariadb as mariadbd
from tests.services import mysql as mysqld
from tests.services import postgres as postgresd
from tests.services.database import Database, fresh
from tests.services.server import Server

PIECES_BEFORE_RELEASE = 6
LOOKS_BEFORE_RELEASE = 12
CHUNK_ROWS = 10
"""Two chunks; the second, which holds the row, is read after its commit was streamed."""
FILL = (
    "insert into people (sync_id, version)"
    " with recursive n as (select 1 as i union all select i + 1 from n where i < 20)"
    " select {uuid}, 1 from n"
)


@dataclass(frozen=True, slots=True)
class Stalling:
    """A database whose server holds commits back: waiting gives a row while one is held; release
    lets it go on; session: what a writer says first.
    """

    database: Database
    waiting: str
    release: str
    session: str

    @property
    def is_waiting(self) -> bool:
        return bool(self.database.query(self.waiting))


@contextmanager
def _postgres(folder: Path) -> Iterator[Stalling]:
    waiting = (
        "select pid from pg_stat_activity where wait_event = 'SyncRep'"
        " and datname = current_database()"
    )
    flags = ["synchronous_standby_names=nobody", "synchronous_commit=local"]
    with postgresd.start(folder, flags) as server, fresh(server) as database:
        create(database)
        database.execute(FILL.format(uuid="gen_random_uuid()"))
        release = f"select pg_cancel_backend(pid) from ({waiting}) w"
        yield Stalling(database, waiting, release, "set synchronous_commit = on")


@contextmanager
def _semi_sync(start: Any, word: str, schema: str, folder: Path) -> Iterator[Stalling]:
    waiting = (
        f"select 1 from {schema}.global_status"
        f" where variable_name = 'Rpl_semi_sync_{word}_wait_sessions' and variable_value > 0"
    )
    with start(folder) as server, fresh(server) as database:
        create(database)
        database.execute(FILL.format(uuid="uuid()"))
        if word == "source":  # a part of the server in MariaDB
            database.execute("install plugin rpl_semi_sync_source soname 'semisync_source.so'")
        settings = {"wait_point": "'AFTER_SYNC'", "timeout": "600000", "enabled": "on"}
        for name, value in settings.items():
            database.execute(f"set global rpl_semi_sync_{word}_{name} = {value}")
        release = f"set global rpl_semi_sync_{word}_enabled = off"
        yield Stalling(database, waiting, release, "do 1")


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Stalling]]] = {
    "postgres": _postgres,
    "mysql": partial(_semi_sync, mysqld.start, "source", "performance_schema"),
    "mariadb": partial(_semi_sync, mariadbd.start, "master", "information_schema"),
}


@pytest.fixture(params=SERVERS)
def stalling(request: pytest.FixtureRequest, server_dir: Path) -> Iterator[Stalling]:
    with SERVERS[request.param](server_dir) as found:
        yield found


@contextmanager
def holding(stalling: Stalling) -> Iterator[Callable[[], None]]:
    """`write()` begins an update of the last row, whose commit the server then holds back."""
    source = stalling.database
    last = source.query("select sync_id from people order by sync_id desc limit 1")[0][0]

    def update() -> None:
        with closing(source.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(stalling.session)
            cursor.execute("update people set version = 2 where sync_id = %s", (last,))

    writer = Thread(target=update)

    def write() -> None:
        writer.start()
        until(lambda: stalling.is_waiting, "a commit that waits")

    try:
        yield write
    finally:
        source.query(stalling.release)
        writer.join()


@pytest.mark.parametrize("mutant", [True, False], ids=["reads are believed", "true"])
def test_a_commit_that_is_streamed_before_it_is_visible_is_not_undone_by_a_chunk(
    mutant: bool,
    stalling: Stalling,
    postgres: Server,
    new_database: Callable[[Server], Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T60: its commit waits while the last chunk, which holds its row, is read."""
    source, target = stalling.database, new_database(postgres)
    seen: list[Piece] = []

    def look(piece: Piece) -> None:
        if not writing:
            writing.append(write())
        streamed = any("u" in rows.ops for rows in piece.rows)
        if streamed or seen:
            seen.append(piece)
        if len(seen) == PIECES_BEFORE_RELEASE:
            assert stalling.is_waiting
            source.query(stalling.release)

    writing: list[None] = []
    with replica(source.name, source, target) as flow:
        flow.chunk_rows = CHUNK_ROWS
        if mutant:
            monkeypatch.setattr(flow.source, "sees", lambda seen, marks: True)
        with holding(stalling) as write:
            flow.capture(look)
        assert seen
        flow.apply()
        assert target.query("select max(version) from people") == [(1 if mutant else 2,)]
        assert mutant or flow.verify().verdict == "valid"


def test_a_capture_that_begins_while_a_commit_is_held_back_does_not_miss_it(
    stalling: Stalling, postgres: Server, new_database: Callable[[Server], Database]
) -> None:
    """T60: it is in the log already, before where "now" is, and no read of the copy sees it.

    MariaDB's binlog has one end for both: there the capture waits for the commit to be visible.
    """
    source, target = stalling.database, new_database(postgres)
    pieces: list[Piece] = []

    def look(piece: Piece) -> None:
        pieces.append(piece)
        if len(pieces) == PIECES_BEFORE_RELEASE:
            source.query(stalling.release)

    with replica(source.name, source, target) as flow:
        flow.chunk_rows = CHUNK_ROWS
        with holding(stalling) as write:
            write()
            if source.server.kind == "mariadb":
                with pytest.raises(Transient, match="no read sees yet"):
                    flow.capture(look)
                assert not pieces
                source.query(stalling.release)
                until(lambda: not stalling.is_waiting, "the commit")
            flow.capture(look)
        flow.apply()
        assert target.query("select max(version) from people") == [(2,)]
        assert flow.verify().verdict == "valid"


def stream_one(flow: Replica) -> None:
    """One transaction comes through, whether or not a read shows it."""
    opened = flow.log.open()
    pieces = flow.source.stream(opened.position, opened.stamp)
    for piece in pieces:
        flow.log.append(piece)
        if piece.commit is not None and piece.commit.transactions:
            break
    flow.log.flush()
    pieces.close()  # type: ignore[attr-defined]
    flow.apply()


@pytest.mark.parametrize("mutant", [True, False], ids=["reads are believed", "true"])
def test_a_commit_that_is_applied_before_it_is_visible_is_no_difference(
    mutant: bool,
    stalling: Stalling,
    postgres: Server,
    new_database: Callable[[Server], Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T60 for verify: the target has the change, and no read of the source shows it yet."""
    waits = 0

    def pause(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == LOOKS_BEFORE_RELEASE:
            stalling.database.query(stalling.release)
            until(lambda: not stalling.is_waiting, "the commit")
        # MySQL starts no stream behind what it does not show yet.
        if waits >= LOOKS_BEFORE_RELEASE or stalling.database.server.kind != "mysql":
            flow.catch_up()

    with replica(stalling.database.name, stalling.database, new_database(postgres)) as flow:
        flow.catch_up()
        if mutant:
            monkeypatch.setattr(flow.source, "shown", lambda position: lambda: True)
        with holding(stalling) as write:
            write()
            stream_one(flow)
            assert flow.verify(pause=pause).verdict == ("invalid" if mutant else "valid")


def test_a_capture_that_restarts_while_a_commit_is_held_back_waits_for_it(
    stalling: Stalling, postgres: Server, new_database: Callable[[Server], Database]
) -> None:
    """T60: the log holds a commit that MySQL does not count as executed yet: it is not lost."""
    source, target = stalling.database, new_database(postgres)

    class Held(Exception):
        """The commit is in the log."""

    def look(piece: Piece) -> None:
        if any("u" in rows.ops for rows in piece.rows) and piece.commit:
            raise Held

    with replica(source.name, source, target) as flow:
        flow.capture()
        with holding(stalling) as write:
            write()
            with pytest.raises(Held):
                capture(flow.source, flow.log, seen=look)
            if source.server.kind == "mysql":
                with pytest.raises(Transient, match="waits for the server's replica"):
                    flow.capture()
            else:
                flow.capture()
            source.query(stalling.release)
        flow.capture()
        flow.apply()
        assert target.query("select max(version) from people") == [(2,)]
        assert flow.verify().verdict == "valid"
