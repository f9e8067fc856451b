"""Seeds: the identities of rows that a target already has, for foreign keys of rows that are not
copied.

A target that was filled by other means needs to know which source key belongs to which identity
before the first child refers to it. The seeds, and all that the stream gives until it has passed
the last seed's high mark, make ONE batch, so that apply can learn every identity of that stretch
before it resolves the first reference in it. A crash before its commit record starts the stretch
again from the position before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from capture.source import Chunk, Source
from schemas.change import Commit, Piece, Position, Progress, Rows, Stamp
from schemas.codec import encode_seed
from schemas.table import Table


def due_seeds(progress: Progress, tables: Sequence[Table]) -> list[Table]:
    """The tables whose identities are wanted and not yet in the log."""
    states = [(t, progress.get(t.full_name)) for t in tables]
    return [
        t for t, state in states if state and state["what"] == "identities" and not state["done"]
    ]


def seeded(
    source: Source,
    pieces: Iterator[Piece],
    stamp: Stamp,
    tables: Sequence[Table],
    progress: Progress,
    chunk_rows: int,
) -> Iterator[Piece]:
    """The seeds of `tables` and the stream `pieces` (not begun, or begun by an empty commit), as
    described above.

    Marks the tables done in `progress` with the commit of their batch.
    """
    run = stamp.draw()
    stamp.held = (run, 0)
    high: Position | None = None
    for table in tables:
        for chunk in _chunks(source, table, chunk_rows, stamp.epoch, run):
            seeds = _encode(chunk, stamp.epoch, run, stamp.first_ordinal)
            stamp.held = (run, stamp.first_ordinal + len(seeds))
            yield Piece(run=run, rows=(seeds,) if len(seeds) else ())
            high = chunk.high
    # Only chunks of rows are held against marks, and of a long stretch they are one a transaction.
    is_copying = any(s["what"] == "rows" and not s["done"] for s in progress.values())
    commits: list[Commit] = []
    for piece in pieces:
        stamp.held = (run, max(stamp.first_ordinal, _next_ordinal(piece)))
        if piece.commit is not None:
            commits.append(piece.commit if is_copying else replace(piece.commit, marks=()))
            if high is None or source.reached(high, piece.commit.position):
                stamp.held = None
                progress.update(
                    {t.full_name: {**progress[t.full_name], "done": True} for t in tables}
                )
                yield replace(piece, run=run, commit=_merged(commits, dict(progress)))
                break
        yield replace(piece, run=run, commit=None)
    yield from pieces


def _chunks(source: Source, table: Table, chunk_rows: int, epoch: int, run: int) -> Iterator[Chunk]:
    after = None
    while True:
        chunk = source.chunk(table, after, chunk_rows, epoch=epoch, run=run)
        yield chunk
        if chunk.next_key is None:
            return
        after = chunk.next_key


def _encode(chunk: Chunk, epoch: int, run: int, first_ordinal: int) -> Rows:
    """One seed per row; a table without a single-column primary key cannot be referred to and gives
    none.
    """
    source_keys = chunk.source_keys()
    pairs = list(zip(source_keys, chunk.keys, strict=True)) if source_keys else []
    ordinals = list(range(first_ordinal, first_ordinal + len(pairs)))
    return Rows(
        table=chunk.table,
        ops=["s"] * len(pairs),
        ordinals=ordinals,
        keys=[key for _, key in pairs],
        values=[
            encode_seed(chunk.table, source_key, key, epoch=epoch, run=run, ordinal=ordinal)
            for (source_key, key), ordinal in zip(pairs, ordinals, strict=True)
        ],
    )


def _next_ordinal(piece: Piece) -> int:
    """One more than the highest ordinal in the piece; 0 for an empty one."""
    last = [rows.ordinals[-1] for rows in piece.rows if len(rows)] + [
        t.ordinal for t in piece.truncates
    ]
    return max(last, default=-1) + 1


def _merged(commits: Sequence[Commit], progress: Progress) -> Commit:
    """The commits of a stretch as one, at the last one's position."""
    times = [c.committed_at for c in commits if c.committed_at is not None]
    return replace(
        commits[-1],
        committed_at=max(times, default=None),
        transactions=sum(c.transactions for c in commits),
        marks=tuple(mark for c in commits for mark in c.marks),
        progress=progress,
    )
