"""Captures of tables that somebody made other tables, as `headwater snapshot` does them and without
it, and what a target holds after them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from typing import Any

from capture.copies import begun
from capture.mysql import MySQLSource
from capture.pace import Pace
from capture.postgres import PostgresSource
from capture.snapshot import with_copies
from capture.source import Source
from schemas.change import Progress
from schemas.selection import Selection
from tests.services.database import Database
from transport.log import Opened
from transport.memory import MemoryLog, MemoryStore

NAME = "shop"
TABLE = "(id int primary key, sync_id varchar(40) not null unique, n int)"
CHUNK = 3

Held = dict[str, dict[str, Any]]


def full_name(database: Database, table: str) -> str:
    """The table's name as people write it."""
    schema = "public" if database.url.startswith("postgres") else database.name
    return f"{schema}.{table}"


def source_of(database: Database, exclude: tuple[str, ...], names: Collection[str]) -> Source:
    selection = Selection(include=[full_name(database, "*")], exclude=exclude)
    if not database.url.startswith("postgres"):
        return MySQLSource(NAME, database.url, selection, copied_anew=names)
    return PostgresSource(
        NAME,
        database.url,
        selection,
        slot=database.name,
        publication=database.name,
        auto_prepare=True,
        copied_anew=names,
    )


def insert(database: Database, table: str, *numbers: int) -> None:
    rows = ", ".join(f"({n}, 'k{n}', {n * 10})" for n in numbers)
    database.execute(f"insert into {table} values {rows}")


def capture(
    database: Database,
    store: MemoryStore,
    *,
    again: tuple[str, ...] = (),
    resumes: bool = False,
    pieces: int | None = None,
    exclude: tuple[str, ...] = (),
) -> None:
    """One life of a capture: to the log's end, or killed after some pieces.

    again: as `headwater snapshot` does; resumes: as its later attempts do.
    """
    names = {full_name(database, name) for name in again}
    source = source_of(database, exclude, names)
    with contextlib.closing(source), contextlib.closing(MemoryLog(NAME, store)) as log:
        if again:
            source.prepare()
        opened = log.open()
        fresh: Progress = {
            n: {**opened.progress.get(n, {}), **begun(), "what": "rows"} for n in names
        }
        opened = Opened(opened.stamp, opened.position, opened.progress | ({} if resumes else fresh))
        end, _ = source.now()
        stream = with_copies(source, opened, {}, pace=Pace(rows=CHUNK))
        progress = dict(opened.progress)
        for number, piece in enumerate(stream, start=1):
            log.append(piece)
            progress = (piece.commit and piece.commit.progress) or progress
            done = all(state["done"] for state in progress.values())
            if number == pieces or (
                piece.commit and done and source.reached(end, piece.commit.position)
            ):
                log.flush() if piece.commit else None
                return


def replay(store: MemoryStore) -> Held:
    """What a target holds after the whole log: by table, key -> n."""
    held: Held = {}
    for batch in MemoryLog(NAME, store).read(None, follow=False):
        assert batch is not None
        truncates = {t.ordinal: t.table.partition(".")[2] for t in batch.truncates}
        changes: list[tuple[int, str, str, str, Any]] = []
        for block in batch.blocks():
            for rows in block:
                values = [json.loads(value) for value in rows.values]
                name = rows.table.name
                for op, at, one, value in zip(
                    rows.ops, rows.ordinals, rows.keys, values, strict=True
                ):
                    row = value.get("after") or {}
                    changes.append((at, op, name, json.loads(one)["sync_id"], row.get("n")))
        changes += [(at, "t", name, "", None) for at, name in truncates.items()]
        for _, op, name, key, n in sorted(changes):
            state = held.setdefault(name, {})
            if op == "t":
                state.clear()
            elif op == "d":
                state.pop(key, None)
            else:
                state[key] = n
    return {name: rows for name, rows in held.items() if rows}


def assert_equal(database: Database, store: MemoryStore, *names: str) -> None:
    there = {name: dict(database.query(f"select sync_id, n from {name}")) for name in names}
    assert {name: replay(store).get(name, {}) for name in names} == there
