"""Sources on a fresh database, and what they stream, as plain values.

One maker per server: `MAKERS[kind](database, **options)`. No sleeps: `drain` reads until the stream
has passed the log's end of the moment it is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from capture.mysql import MySQLSource
from capture.postgres import PostgresSource
from capture.source import Chunk, Source
from schemas.change import Piece, Position, Stamp
from schemas.selection import Selection
from schemas.table import Table
from tests.services.database import Database


def mysql_source(database: Database, **options: Any) -> Source:
    """A source over one database of MySQL or MariaDB."""
    options.setdefault("selection", Selection(include=[f"{database.name}.*"]))
    return MySQLSource("s", database.url, **options)


def postgres_source(database: Database, **options: Any) -> Source:
    """A source over one database of PostgreSQL, named as it: a server's slots share their names."""
    options.setdefault("selection", Selection())
    return PostgresSource(database.name, database.url, **options)


MAKERS: dict[str, Callable[..., Source]] = {
    "mysql": mysql_source,
    "mariadb": mysql_source,
    "postgres": postgres_source,
}


def afters(chunk: Chunk) -> list[str]:
    """The after-images' own text in a chunk's envelopes."""
    texts = [value.decode() for value in chunk.values]
    return [t[t.index('"after":') + 8 : t.rindex(',"op":"r"')] for t in texts]


def whole(source: Source, table: Table) -> Chunk:
    """The whole table as one chunk, which native/ and the Python code must encode alike."""
    chunk = source.chunk(table, None, 10_000, epoch=1, run=2)
    with patch.dict(os.environ, HEADWATER_NATIVE="off"):
        again = source.chunk(table, None, 10_000, epoch=1, run=2)
    assert (chunk.keys, afters(chunk)) == (again.keys, afters(again))
    assert chunk.size_bytes == sum(map(len, chunk.keys + chunk.values))
    assert chunk.next_key is None
    return chunk


@dataclass(frozen=True, slots=True)
class Change:
    """One change as a reader sees it; op "t" is a truncate. The table's name has no schema."""

    op: str
    table: str
    key: Any = None
    before: Any = None
    after: Any = None


class Tap:
    """A source's stream under test; a context manager that closes both."""

    def __init__(self, source: Source, after: Position | None = None) -> None:
        self.source = source
        self.pieces: Iterator[Piece] = source.stream(after, Stamp(epoch=1))
        self.batches: list[list[Piece]] = []
        self.position = after
        if after is None:
            commit = next(self.pieces).commit
            assert commit is not None
            self.position = commit.position

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self.pieces.close()  # type: ignore[attr-defined]
        self.source.close()

    def drain(self) -> list[Change]:
        """Every change up to the log's end as it is now."""
        high, _ = self.source.now()
        changes: list[Change] = []
        open_pieces: list[Piece] = []
        while True:
            if not open_pieces and self.source.reached(high, Position(str(self.position))):
                return changes
            piece = next(self.pieces)
            open_pieces.append(piece)
            if piece.commit is not None:
                changes += in_order(open_pieces)
                self.batches.append(open_pieces)
                self.position = piece.commit.position
                open_pieces = []


def in_order(batch: list[Piece]) -> list[Change]:
    """A batch's changes by ordinal, checked to be one run with ascending ordinals per list."""
    assert len({piece.run for piece in batch}) == 1
    found: list[tuple[int, Change]] = []
    for piece in batch:
        for truncate in piece.truncates:
            found.append((truncate.ordinal, Change("t", truncate.table.partition(".")[2])))
        for rows in piece.rows:
            assert rows.ordinals == sorted(rows.ordinals)
            for op, ordinal, key, value in zip(
                rows.ops, rows.ordinals, rows.keys, rows.values, strict=True
            ):
                row = json.loads(value)
                stamp = row["source"]["headwater"]
                assert (row["op"], stamp["ordinal"], stamp["run"]) == (op, ordinal, piece.run)
                assert stamp["schema"] == rows.table.fingerprint
                change = Change(
                    op, rows.table.name, json.loads(key), row["before"], row.get("after")
                )
                found.append((ordinal, change))
    ordinals = [ordinal for ordinal, _ in found]
    assert len(set(ordinals)) == len(ordinals)
    return [change for _, change in sorted(found, key=lambda pair: pair[0])]
