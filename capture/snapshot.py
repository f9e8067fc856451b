"""First copies, interleaved with the stream: a source's rows from before the stream began.

A table is read in chunks. A chunk must include everything streamed before its read (a commit can be
in the log before any read sees it: the chunk is then thrown away and read again later), and it
stands in the log at its high mark, noted after the read: where the stream has passed that mark,
those of its rows follow that the stream did not touch in between (as in DBLog, arXiv:2010.12597).
So a target never steps back, and a deleted row never returns. No lock is taken, and the stream
never waits for more than one chunk's read.

Progress rides on the commit records: after a crash a copy goes on at the chunk after the last
accepted one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import structlog

from capture.seeding import due_seeds, seeded
from capture.source import Chunk, Source
from schemas.change import Commit, Piece, Position, Progress, Rows, Stamp
from schemas.codec import Envelope
from schemas.errors import Operator
from schemas.table import Table
from transport.log import Opened

Copy = Literal["rows", "identities", "none"]

MAX_REREADS = 50
"""A chunk whose rows keep changing without their TOAST values is read again so often, then the
operator is asked.
"""

log = structlog.get_logger()


def with_first_copies(
    source: Source,
    opened: Opened,
    wanted: Mapping[str, Copy],
    *,
    chunk_rows: int = 10_000,
    begin: Position | None = None,
) -> Iterator[Piece]:
    """The source's stream with the first copies of `wanted` (full name -> what to copy) that are
    not done yet.

    A log that holds nothing yet begins at `begin` (None: now) and starts the copies of `wanted`;
    later, those go on that the log's progress names.
    """
    tables = parents_first(source.describe())
    known = opened.progress
    is_begun = any(state["what"] != "none" for state in known.values())
    progress = _unfinished(known if is_begun else known | _begin(wanted, known), tables)
    pieces = source.stream(opened.position or begin, opened.stamp, progress)
    if opened.position is None:
        # The starting position becomes durable first: after a crash nothing is lost between it and
        # the copies.
        first = next(pieces)
        assert first.commit is not None
        yield replace(first, commit=replace(first.commit, progress=dict(progress)))
    if seeds := due_seeds(progress, tables):
        pieces = seeded(source, pieces, opened.stamp, seeds, progress, chunk_rows)
    yield from _RowCopy(source, opened.stamp, tables, progress, chunk_rows).run(pieces)


def parents_first(tables: Sequence[Table]) -> list[Table]:
    """Tables so ordered that a foreign key's parent comes before its child, cycles aside."""
    by_name = {t.full_name: t for t in tables}
    ordered: dict[str, Table] = {}

    def place(table: Table, above: frozenset[str]) -> None:
        for parent in table.parents:
            if parent in by_name and parent not in above and parent not in ordered:
                place(by_name[parent], above | {table.full_name})
        ordered.setdefault(table.full_name, table)

    for table in tables:
        place(table, frozenset((table.full_name,)))
    return list(ordered.values())


def _begin(wanted: Mapping[str, Copy], known: Progress) -> Progress:
    return {
        name: {**known.get(name, {}), "what": what, "after": None, "done": False}
        for name, what in wanted.items()
        if what != "none"
    }


def _unfinished(progress: Progress, tables: Sequence[Table]) -> Progress:
    """The progress to go on from; a table that is gone from the source has nothing left to copy."""
    names = {t.full_name for t in tables}
    for name, state in progress.items():
        if not state["done"] and name not in names:
            log.warning(
                "first_copy_given_up", table=name, reason="the source no longer has this table"
            )
    return {
        name: {**state, "done": state["done"] or name not in names}
        for name, state in progress.items()
    }


class _RowCopy:
    """The state of the copies between two pieces of the stream."""

    def __init__(
        self,
        source: Source,
        stamp: Stamp,
        tables: Sequence[Table],
        progress: Progress,
        chunk_rows: int,
    ) -> None:
        self._source, self._stamp, self._chunk_rows = source, stamp, chunk_rows
        self._tables = {t.full_name: t for t in tables}
        self._progress = progress
        self._told: Progress = {}
        self._queue = self._due()
        self._chunk: Chunk | None = None
        self._touched: set[bytes] = set()
        self._marks: list[str] = []
        self._stale = False
        self._rereads = 0

    def run(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces, with chunks in their places between them."""
        for piece in pieces:
            if self._queue:
                self._note(piece)
            yield self._with_progress(piece)
            while piece.commit and self._queue and self._is_ready(piece.commit.position):
                yield self._place(piece.commit.position)

    def _note(self, piece: Piece) -> None:
        """Remember what the stream did to the chunk that waits for its place."""
        if piece.commit is not None:
            self._marks.extend(piece.commit.marks)
        self._begin_anew({t.table for t in piece.truncates})
        if self._chunk is None:
            return
        name = self._chunk.table.full_name
        for rows in piece.rows:
            if rows.table.full_name != name:
                continue
            self._touched.update(rows.keys)
            # A change without its TOAST values cannot stand for the chunk's row, nor the chunk's
            # row for the change.
            self._stale |= rows.partial and not self._touched.isdisjoint(self._chunk.keys)
            self._stale |= not _is_alike(rows.table, self._chunk.table)

    def _with_progress(self, piece: Piece) -> Piece:
        """The piece, with the progress if the log does not have it: which copies begin must be as
        durable as what the stream gives meanwhile.
        """
        if piece.commit is None or self._told == self._progress:
            return piece
        return replace(piece, commit=replace(piece.commit, progress=self._tell()))

    def _tell(self) -> Progress:
        self._told = dict(self._progress)
        return self._told

    def _begin_anew(self, truncated: set[str]) -> None:
        """Begin the copies of truncated tables again, those done too: the rows that are there now
        may have come without the stream (a table renamed to this name).
        """
        anew = {n for n in truncated if self._progress.get(n, {}).get("what") == "rows"}
        if not anew:
            return
        for name in anew:
            self._progress[name] = {**self._progress[name], "after": None, "done": False}
        self._tables |= {t.full_name: t for t in self._source.describe()}
        self._queue, self._chunk = self._due(), None
        self._rereads = 0

    def _due(self) -> list[Table]:
        return [t for t in parents_first(list(self._tables.values())) if _is_due(self._progress, t)]

    def _is_ready(self, at: Position) -> bool:
        """Whether a chunk may be placed at `at`, a position the stream has given out whole; reads
        one if none waits.
        """
        if self._chunk is not None and self._stale and self._source.reached(self._chunk.high, at):
            self._drop_stale()
        if self._chunk is None:
            self._chunk = self._read()
        return (
            self._chunk is not None
            and not self._stale
            and self._source.reached(self._chunk.high, at)
        )

    def _read(self) -> Chunk | None:
        """The next chunk, or None when it does not include all that was streamed: then the next
        piece tries again.
        """
        table = self._queue[0]
        self._touched.clear()
        self._stale = False
        chunk = self._source.chunk(
            table, self._progress[table.full_name]["after"], self._chunk_rows
        )
        if not self._source.sees(chunk.seen, self._marks):
            return None
        self._marks.clear()
        return chunk

    def _drop_stale(self) -> None:
        self._chunk = None
        self._rereads += 1
        table = self._queue[0]
        fresh = {t.full_name: t for t in self._source.describe()}.get(table.full_name)
        if fresh is not None:
            self._queue[0] = fresh
        if self._rereads > MAX_REREADS:
            raise Operator(
                f"read a chunk of {table.full_name} {MAX_REREADS} times, and each time its rows "
                "changed meanwhile without their TOAST values, or by another description",
                hint=f"on PostgreSQL run: ALTER TABLE {table.full_name} REPLICA IDENTITY FULL; "
                "otherwise copy the table while nobody alters it",
            )

    def _place(self, position: Position) -> Piece:
        """The waiting chunk as a batch of its own at `position`, less the rows that the stream has
        touched.
        """
        chunk = self._chunk
        assert chunk is not None
        name = chunk.table.full_name
        self._progress[name] = {
            **self._progress[name],
            "after": chunk.next_key,
            "done": chunk.next_key is None,
        }
        if chunk.next_key is None:
            self._queue.pop(0)
        self._chunk, self._rereads = None, 0
        run = self._stamp.draw()
        rows = _encode(self._source, chunk, self._stamp.epoch, run, self._touched)
        commit = Commit(position=position, committed_at=None, progress=self._tell())
        return Piece(run=run, rows=(rows,) if len(rows) else (), commit=commit)


def _is_due(progress: Progress, table: Table) -> bool:
    state = progress.get(table.full_name)
    return state is not None and not state["done"] and state["what"] == "rows"


def _is_alike(one: Table, other: Table) -> bool:
    """Whether a chunk may stand beside the stream's rows. Labels of an ENUM may differ: MySQL's
    catalog shows a question mark where they have a character outside the BMP, at every read.
    """
    return one.fingerprint == other.fingerprint or _shape(one) == _shape(other)


def _shape(table: Table) -> Table:
    columns = [replace(c, kind=replace(c.kind, labels=()), native="") for c in table.columns]
    return replace(table, columns=tuple(columns))


def _encode(source: Source, chunk: Chunk, epoch: int, run: int, touched: set[bytes]) -> Rows:
    keep = [i for i, key in enumerate(chunk.keys) if key not in touched]
    envelope = Envelope(
        chunk.table,
        connector=source.connector,
        source=source.name,
        epoch=epoch,
        run=run,
        committed_at=chunk.read_at,
        snapshot=True,
    )
    images = chunk.images
    return Rows(
        table=chunk.table,
        ops=["r"] * len(keep),
        ordinals=list(range(len(keep))),
        keys=[chunk.keys[i] for i in keep],
        values=[envelope.read(images[i], ordinal) for ordinal, i in enumerate(keep)],
    )
