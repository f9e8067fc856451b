"""First copies under fire: a table is copied while somebody keeps changing it.

What the log holds is replayed as a target would: the result must equal the source, and no key may
ever step back to an older version, wherever the capture was stopped.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import orjson
import pytest

from capture.mysql import MySQLSource
from capture.pace import Pace
from capture.postgres import PostgresSource
from capture.snapshot import What, with_copies
from capture.source import Source
from schemas.change import Progress
from schemas.codec import parse
from schemas.progress import asked_copies
from schemas.selection import Selection
from tests.services.database import Database
from transport.memory import MemoryLog, MemoryStore
from transport.record import Request

NAME = "shop"
ROWS = 1200
CHUNK = 100

CREATE = {
    "postgres": "create table item (id int primary key, sync_id uuid not null unique, "
    "version bigint not null, body text)",
    "mysql": "create table item (id int primary key, sync_id char(36) character set ascii not null "
    "unique, version bigint not null, body text)",
}


@pytest.fixture(params=["postgres", "mysql", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    database: Database = request.getfixturevalue(f"{request.param}_db")
    return database


def family(database: Database) -> Literal["postgres", "mysql"]:
    return "postgres" if database.url.startswith("postgres") else "mysql"


@contextlib.contextmanager
def opened(database: Database) -> Iterator[Source]:
    source: Source
    if family(database) == "postgres":
        selection = Selection(include=["public.*"])
        source = PostgresSource(NAME, database.url, selection, slot=database.name, batch_rows=50)
    else:
        selection = Selection(include=[f"{database.name}.*"])
        source = MySQLSource(NAME, database.url, selection, batch_rows=50)
    with contextlib.closing(source):
        yield source


class Writer(threading.Thread):
    """Changes rows until told to stop: every write gets a version that no earlier write has."""

    def __init__(self, database: Database, seed: int) -> None:
        super().__init__(daemon=True)
        self.database, self.random = database, random.Random(seed)
        self.enough = threading.Event()
        self.version = ROWS
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with contextlib.closing(self.database.connect()) as connection:
                while not self.enough.is_set():
                    self.write(connection.cursor())
        except BaseException as error:
            self.error = error

    def write(self, cursor: Any) -> None:
        cursor.execute("begin")
        for _ in range(self.random.randrange(1, 6)):
            self.version += 1
            pick, at = self.random.random(), self.random.randrange(ROWS * 2)
            hot = self.random.randrange(10)
            if pick < 0.5:
                where = hot if pick < 0.2 else at
                cursor.execute("update item set version = %s where id = %s", (self.version, where))
            elif pick < 0.65:
                cursor.execute("delete from item where id = %s", (at,))
            elif pick < 0.85:
                self.insert(cursor, at, str(uuid.UUID(int=at)))
            else:  # T61: a row moves over the chunks' key
                cursor.execute("delete from item where id = %s", (at,))
                cursor.execute(
                    "update item set id = %s, version = %s where id = %s", (at, self.version, hot)
                )
        cursor.execute("commit")

    def insert(self, cursor: Any, at: int, sync_id: str) -> None:
        cursor.execute("delete from item where id = %s or sync_id = %s", (at, sync_id))
        cursor.execute(
            "insert into item values (%s, %s, %s, %s)", (at, sync_id, self.version, "x" * 20)
        )


def fill(database: Database) -> None:
    database.execute(CREATE[family(database)])
    rows = ",".join(f"({i},'{uuid.UUID(int=i)}',{i},'body {i}')" for i in range(ROWS))
    database.execute(f"insert into item values {rows}")


def replay(store: MemoryStore) -> dict[bytes, dict[str, Any]]:
    """What a target holds after the whole log; fails when a row steps back to an older version."""
    state: dict[bytes, dict[str, Any]] = {}
    newest: dict[bytes, int] = {}
    for batch in MemoryLog(NAME, store).read(None, follow=False):
        assert batch is not None
        for block in batch.blocks():
            for rows in block:
                for op, key, value in zip(rows.ops, rows.keys, rows.values, strict=True):
                    if op == "d":
                        state.pop(key, None)
                        continue
                    after = parse(value)["after"]
                    assert after["version"] >= newest.get(key, -1), "a row stepped back"
                    assert op != "r" or key in state or after["version"] > newest.get(key, -1)
                    newest[key] = after["version"]
                    state[key] = {**state.get(key, {}), **after}
    return state


def copy_until(
    database: Database,
    store: MemoryStore,
    *,
    is_enough: Callable[[int, Progress], bool],
    what: What = "rows",
    readers: int = 3,
) -> None:
    """One life of a capture: ends where `is_enough(pieces so far, progress)` says so."""
    wanted: dict[str, What] = {table_name(database): what}
    with opened(database) as source, contextlib.closing(MemoryLog(NAME, store)) as log:
        begun = log.open()
        progress = dict(begun.progress)
        for number, piece in enumerate(
            with_copies(source, begun, wanted, pace=Pace(rows=CHUNK, readers=readers))
        ):
            log.append(piece)
            log.accepted()
            progress = (piece.commit and piece.commit.progress) or progress
            if is_enough(number, progress):
                return


def has_passed(most: int, pieces: int, progress: Progress) -> bool:
    return pieces >= most


def drain(database: Database, store: MemoryStore) -> None:
    with opened(database) as source, contextlib.closing(MemoryLog(NAME, store)) as log:
        begun = log.open()
        end, _ = source.now()
        for piece in source.stream(begun.position, begun.stamp):
            log.append(piece)
            if piece.commit and source.reached(end, piece.commit.position):
                log.flush()
                return


def table_name(database: Database) -> str:
    return "public.item" if family(database) == "postgres" else f"{database.name}.item"


@pytest.mark.parametrize("lives", [1, 20])
def test_a_table_copied_under_fire_ends_equal_and_no_row_steps_back(
    database: Database, lives: int
) -> None:
    """T61, T63, H126: rows move over the chunk key; the copy is interrupted at random points."""
    seed = int(os.environ["HEADWATER_SEED"])
    print("seed", seed)
    chance = random.Random(seed)
    fill(database)
    if family(database) == "postgres":
        with opened(database) as source:
            source.prepare()
    store, writer = MemoryStore(), Writer(database, seed)
    writer.start()
    try:
        for _ in range(lives - 1):
            most = chance.randrange(1, 12)
            copy_until(database, store, is_enough=partial(has_passed, most))
        copy_until(
            database, store, is_enough=lambda _, p: all(s["done"] for s in p.values()) and bool(p)
        )
    finally:
        writer.enough.set()
        writer.join()
    assert writer.error is None
    drain(database, store)
    held = {
        str(row["sync_id"]): (row["id"], row["version"], row["body"])
        for row in replay(store).values()
    }
    rows = database.query("select id, sync_id, version, body from item")
    assert held == {str(s): (i, v, b) for i, s, v, b in rows}
    assert orjson.loads(next(iter(replay(store)))).keys() == {"sync_id"}


def test_a_chunk_begun_again_after_a_crash_goes_on_where_the_log_ends(database: Database) -> None:
    """T63: each chunk counts once; nothing accepted is read again."""
    fill(database)
    if family(database) == "postgres":
        with opened(database) as source:
            source.prepare()
    store = MemoryStore()
    copy_until(database, store, is_enough=lambda n, _: n >= 4)
    copy_until(database, store, is_enough=lambda _, p: all(s["done"] for s in p.values()))
    copied = sum(
        batch.row_count for batch in MemoryLog(NAME, store).read(None, follow=False) if batch
    )
    assert copied == ROWS


def test_seeds_and_what_was_streamed_meanwhile_are_one_batch(database: Database) -> None:
    """A target that has the rows learns their source keys before it resolves a reference."""
    fill(database)
    if family(database) == "postgres":
        with opened(database) as source:
            source.prepare()
    store, writer = MemoryStore(), Writer(database, seed=5)

    def is_enough(pieces: int, progress: Progress) -> bool:
        if pieces == 0:
            writer.start()
        return all(state["done"] for state in progress.values())

    try:
        copy_until(database, store, is_enough=is_enough, what="identities")
    finally:
        writer.enough.set()
        writer.join()
    assert writer.error is None
    seeded = [b for b in MemoryLog(NAME, store).read(None, follow=False) if b and b.seeds]
    assert [len(list(b.truncates)) for b in seeded] == [0]
    rows = [rows for block in seeded[0].blocks() for rows in block]
    seeds = {key for part in rows for op, key in zip(part.ops, part.keys, strict=True) if op == "s"}
    touched = {k for part in rows for op, k in zip(part.ops, part.keys, strict=True) if op != "s"}
    before = {orjson.dumps({"sync_id": str(uuid.UUID(int=i))}) for i in range(ROWS)}
    assert before <= seeds | touched
    ordinals = [ordinal for part in rows for ordinal in part.ordinals]
    assert sorted(ordinals) == list(range(len(ordinals))), "one batch, each row its own place"


def test_a_table_that_the_selection_takes_in_later_is_copied_and_a_dropped_one_given_up(
    database: Database,
) -> None:
    """H131: what is left goes on, and nothing that is in the log is read again."""
    fill(database)
    if family(database) == "postgres":
        with opened(database) as source:
            source.prepare()
    store = MemoryStore()
    item, later = table_name(database), table_name(database).replace("item", "later")

    def one_life(wanted: dict[str, What], enough: int | None) -> Progress:
        progress: Progress = {}
        with opened(database) as source, contextlib.closing(MemoryLog(NAME, store)) as log:
            pieces = with_copies(source, log.open(), wanted, pace=Pace(rows=CHUNK))
            for number, piece in enumerate(pieces):
                log.append(piece)
                progress = (piece.commit and piece.commit.progress) or progress
                states = [s for n, s in progress.items() if n in (item, later)]
                if number == enough or (states and all(s["done"] for s in states)):
                    return progress
        raise AssertionError

    one_life({item: "rows"}, 4)
    database.execute(
        "create table " + CREATE[family(database)].split("table ")[1].replace("item", "later")
    )
    database.execute("insert into later select * from item where id < 250")
    if family(database) == "postgres":
        with opened(database) as source:
            source.prepare()
    progress = one_life({item: "rows", later: "rows"}, 4)
    assert not progress[item]["done"]
    is_dropped = family(database) == "postgres"
    if is_dropped:  # MySQL's log shows it, and stops for the operator
        database.execute("drop table item")
    progress = one_life({later: "rows"}, None)
    assert progress[item]["done"]
    copied: dict[str, list[bytes]] = {}
    held: set[bytes] = set()
    for batch in MemoryLog(NAME, store).read(None, follow=False):
        for block in batch.blocks() if batch else ():
            for rows in block:
                read = [k for k, op in zip(rows.keys, rows.ops, strict=True) if op == "r"]
                copied.setdefault(rows.table.full_name, []).extend(read)
                held |= set(rows.keys) if rows.table.full_name == later else set()
    # Rows that the stream gave meanwhile are left to it.
    assert len(copied[later]) == len(set(copied[later]))
    assert len(held) == 250
    assert len(copied[item]) == len(set(copied[item]))
    assert (len(copied[item]) < ROWS) == is_dropped


def test_a_copy_that_was_asked_for_of_a_dropped_table_has_failed(
    database: Database,
) -> None:
    """H131: whoever waits for it hears of it, and the stream goes on."""
    fill(database)
    if family(database) == "postgres":
        with opened(database) as source:
            source.prepare()
    store, item = MemoryStore(), table_name(database)
    copy_until(database, store, is_enough=lambda n, _: n >= 1, what="none")
    asked = MemoryLog(NAME, store).ask(Request(what="copy", tables={item: {}}))

    def one_life(is_enough: Callable[[dict[str, Any]], bool]) -> None:
        with opened(database) as source, contextlib.closing(MemoryLog(NAME, store)) as log:
            pace, anew = Pace(rows=CHUNK), set[str]()
            pieces = with_copies(source, log.open(), {}, pace=pace, asked=log.requests, anew=anew)
            for piece in pieces:
                log.append(piece)
                log.accepted()
                progress = (piece.commit and piece.commit.progress) or {}
                if is_enough(asked_copies(progress).get(str(asked), {})):
                    return

    one_life(lambda copy: any(s["rows"] for s in copy.get("tables", {}).values()))
    if family(database) == "postgres":  # MySQL's log shows it, and stops for the operator
        database.execute("drop table item")
        one_life(lambda copy: copy.get("state") == "failed")
    else:
        one_life(lambda copy: copy.get("state") == "done")
