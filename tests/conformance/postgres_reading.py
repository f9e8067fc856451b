"""Reading a PostgreSQL source in tests: up to a place, as plain changes, without sleeping."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from capture.postgres import PostgresSource
from schemas.change import Piece, Position, Stamp
from schemas.codec import parse
from schemas.selection import Selection
from tests.services.database import Database

Row = dict[str, Any] | None


class Change(NamedTuple):
    """One change of one batch; op "t" is a truncate."""

    op: str
    table: str
    before: Row = None
    after: Row = None


@contextmanager
def opened(database: Database, **options: Any) -> Iterator[PostgresSource]:
    """A source on this database, prepared, and closed at the end.

    Named as the database: slots of one name cannot exist twice on a server.
    """
    options.setdefault("selection", Selection())
    with closing(PostgresSource(database.name, database.url, **options)) as source:
        source.prepare()
        yield source


def read(source: PostgresSource, after: Position | None = None) -> list[Piece]:
    """Everything after `after` up to now; nothing is acknowledged."""
    end, _ = source.now()
    pieces = []
    with closing(source.stream(after, Stamp(1))) as stream:
        for piece in stream:
            pieces.append(piece)
            if piece.commit and source.reached(end, piece.commit.position):
                break
    return pieces


def end_of(pieces: Sequence[Piece]) -> Position:
    """Where the last whole batch ends."""
    return next(p.commit.position for p in reversed(pieces) if p.commit)


def start(source: PostgresSource) -> Position:
    """The slot's place: what a new log starts at."""
    with closing(source.stream(None, Stamp(1))) as stream:
        first = next(stream)
    assert first.commit is not None
    return first.commit.position


def changes(pieces: Sequence[Piece]) -> list[Change]:
    """The changes in order: batch by batch, by ordinal."""
    result: list[Change] = []
    batch: dict[int, Change] = {}
    for piece in pieces:
        for truncate in piece.truncates:
            batch[truncate.ordinal] = Change("t", truncate.table)
        for rows in piece.rows:
            assert rows.ordinals == sorted(rows.ordinals)
            for op, ordinal, value in zip(rows.ops, rows.ordinals, rows.values, strict=True):
                row = parse(value)
                assert ordinal not in batch
                batch[ordinal] = Change(op, rows.table.full_name, row["before"], row["after"])
        if piece.commit:
            assert sorted(batch) == list(range(len(batch)))
            result += [batch[ordinal] for ordinal in sorted(batch)]
            batch = {}
    assert not batch
    return result


def images(found: Sequence[Change], column: str) -> list[tuple[str, Any]]:
    """(op, one column) of each change: of the after image, of the before image for a delete."""
    return [(c.op, (c.after or c.before or {}).get(column)) for c in found]
