"""A source where nothing may be written: copies, stream and position work all the same."""

from __future__ import annotations

import contextlib
from threading import Event, Thread

import pytest

from capture.pace import Pace
from capture.postgres import PostgresSource
from capture.snapshot import with_copies
from schemas.errors import Misconfigured
from schemas.selection import Selection
from tests.services.database import Database
from transport.memory import MemoryLog, MemoryStore

ROWS = 500


def source_of(database: Database, *, read_only: bool = True) -> PostgresSource:
    selection = Selection(include=["public.t"])
    return PostgresSource("shop", database.url, selection, slot=database.name, read_only=read_only)


def test_nothing_is_written_and_everything_is_copied(postgres_db: Database) -> None:
    """Not even a message: a second slot sees every one."""
    database, store = postgres_db, MemoryStore()
    database.execute("create table t (sync_id int primary key, n int); create table other (n int)")
    database.execute(f"insert into t select n, n from generate_series(1, {ROWS}) n")
    with contextlib.closing(source_of(database)) as source:
        with pytest.raises(Misconfigured, match="read_only") as caught:
            source.prepare()
        assert "pg_create_logical_replication_slot" in caught.value.hint
    with contextlib.closing(source_of(database, read_only=False)) as source:
        source.prepare()
    witness = f"{database.name}_w"
    database.query(f"select pg_create_logical_replication_slot('{witness}', 'pgoutput')")
    enough = Event()

    def write() -> None:
        with contextlib.closing(database.connect()) as connection:
            while not enough.wait(0.02):
                connection.cursor().execute("insert into other values (1)")

    writer = Thread(target=write)
    writer.start()
    try:
        with (
            contextlib.closing(source_of(database)) as source,
            contextlib.closing(MemoryLog("shop", store)) as log,
        ):
            copied = 0
            pieces = with_copies(source, log.open(), {"public.t": "rows"}, pace=Pace(rows=100))
            for piece in pieces:
                log.append(piece)
                copied += sum(map(len, piece.rows))
                if copied == ROWS:
                    break
            (noted,) = [n for n in source.note(hold=False) if n]
            assert noted.beat is None
    finally:
        enough.set()
        writer.join()
    assert copied == ROWS
    seen = database.query(
        f"select data from pg_logical_slot_peek_binary_changes('{witness}', null, null, "
        f"'proto_version', '1', 'publication_names', 'headwater_shop', 'messages', 'true')"
    )
    assert not [data for (data,) in seen if bytes(data)[:1] == b"M"]
    database.query(f"select pg_drop_replication_slot('{witness}')")
