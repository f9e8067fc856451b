"""A commit that is in the log, and streamed, before any read can see it: log before visibility."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from schemas.change import Piece
from tests.faults.pipeline import until
from tests.faults.replica import replica
from tests.faults.workload import create
from tests.services import postgres as vendor
from tests.services.database import Database, fresh
from tests.services.server import Server

WAITING = (
    "select pid from pg_stat_activity where wait_event = 'SyncRep' and datname = current_database()"
)
PIECES_BEFORE_RELEASE = 6
CHUNK_ROWS = 10
"""Two chunks; the second, which holds the row, is read after its commit was streamed."""


@pytest.fixture
def source(server_dir: Path) -> Iterator[Database]:
    """A database whose server waits for a standby that never comes, where a session asks it to."""
    flags = ["synchronous_standby_names=nobody", "synchronous_commit=local"]
    with vendor.start(server_dir, flags) as server, fresh(server) as database:
        create(database)
        database.execute(
            "insert into people (sync_id, version)"
            " select gen_random_uuid(), 1 from generate_series(1, 20)"
        )
        yield database


@pytest.mark.parametrize("mutant", [True, False], ids=["reads are believed", "true"])
def test_a_commit_that_is_streamed_before_it_is_visible_is_not_undone_by_a_chunk(
    mutant: bool,
    source: Database,
    postgres: Server,
    new_database: Callable[[Server], Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T60: its commit waits for a standby while the last chunk, which holds its row, is read."""
    last = "(select sync_id from people order by sync_id desc limit 1)"
    seen: list[Piece] = []

    def release(piece: Piece) -> None:
        streamed = any("u" in rows.ops for rows in piece.rows)
        if streamed or seen:
            seen.append(piece)
        if len(seen) == PIECES_BEFORE_RELEASE:
            source.query(f"select pg_cancel_backend(pid) from ({WAITING}) w")

    def write() -> None:
        with closing(source.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set synchronous_commit = on")
            cursor.execute(f"update people set version = 2 where sync_id = {last}")

    target = new_database(postgres)
    with replica(source.name, source, target) as flow:
        flow.chunk_rows = CHUNK_ROWS
        if mutant:
            monkeypatch.setattr(flow.source, "sees", lambda seen, marks: True)
        writer = Thread(target=write)
        writer.start()
        until(lambda: bool(source.query(WAITING)), "a commit that waits for its standby")
        flow.capture(release)
        source.query(f"select pg_cancel_backend(pid) from ({WAITING}) w")
        writer.join()
        flow.apply()
        assert target.query("select max(version) from people") == [(1 if mutant else 2,)]
        assert mutant or flow.verify().verdict == "equal"
