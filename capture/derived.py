"""A source whose tables have identities that are computed: a source wrapping a source.

Inside, such a table is what its database holds, identified by the columns that its identity is
derived from; outside it is as it is published (schemas/table.py). So every row gets its identity in
one place, however it was read. What is asked for by identity has to be looked for among all the
rows, as no database can tell a row by a digest of its values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from capture.source import Chunk, Source
from schemas.change import Piece, Position, Progress, Stamp
from schemas.derived import derived, derived_rows, refuse_unfit
from schemas.table import Table

SCANNED_ROWS = 10_000
"""Rows whose keys one read looks through for those that are asked for."""


def deriving(source: Source) -> Source:
    """The source with the identities of its tables."""
    return cast(Source, _Deriving(source))


class _Deriving:
    """Implements Source; what is not here is the inner source's."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def stream(
        self, after: Position | None, stamp: Stamp, progress: Progress | None = None
    ) -> Iterator[Piece]:
        """See Source.stream."""
        pieces = self._source.stream(after, stamp, progress)
        try:
            for piece in pieces:
                yield replace(piece, rows=tuple(map(derived_rows, piece.rows)))
        finally:
            pieces.close()  # type: ignore[attr-defined]  # streams are generators

    def describe(self) -> Sequence[Table]:
        """See Source.describe. Raises Misconfigured where an identity cannot be derived."""
        tables = self._source.describe()
        for table in tables:
            refuse_unfit(table)
        return [table.published for table in tables]

    def chunk(
        self, table: Table, after: Any, limit: int, *, until: Any = None, epoch: int, run: int
    ) -> Chunk:
        """See Source.chunk."""
        inner = table.at_source
        chunk = self._source.chunk(inner, after, limit, until=until, epoch=epoch, run=run)
        return _published(chunk) if table.is_derived else chunk

    def chunk_of(self, table: Table, identities: Sequence[bytes], *, epoch: int, run: int) -> Chunk:
        """See Source.chunk_of.

        A row may come between the look for its key and the read, which then lacks it: the chunk has
        seen only what the look had seen when it began, and what came since is left to the stream.
        """
        if not table.is_derived:
            return self._source.chunk_of(table, identities, epoch=epoch, run=run)
        seen, keys = self._found(table, set(identities), epoch, run)
        chunk = self._source.chunk_of(table.at_source, keys, epoch=epoch, run=run)
        return replace(_published(chunk), seen=seen)

    def _found(
        self, table: Table, identities: set[bytes], epoch: int, run: int
    ) -> tuple[str, list[bytes]]:
        """What the first read had seen, and the source's own keys of these identities."""
        inner = table.at_source
        names = {*inner.identity, *inner.primary_key}
        narrow = replace(inner, columns=tuple(c for c in inner.columns if c.name in names))
        after, seen, found = None, None, list[bytes]()
        while True:
            chunk = self._source.chunk(narrow, after, SCANNED_ROWS, epoch=epoch, run=run)
            seen = chunk.seen if seen is None else seen
            keys, _ = derived(inner, chunk.keys, chunk.values)
            pairs = zip(chunk.keys, keys, strict=True)
            found += [own for own, key in pairs if key in identities]
            after = chunk.next_key
            if after is None:
                return seen, found

    def boundary(self, table: Table, after: Any, rows: int, *, until: Any = None) -> Any:
        """See Source.boundary."""
        return self._source.boundary(table.at_source, after, rows, until=until)


def _published(chunk: Chunk) -> Chunk:
    keys, values = derived(chunk.table, chunk.keys, chunk.values)
    size = sum(map(len, keys)) + sum(map(len, values))
    return replace(chunk, table=chunk.table.published, keys=keys, values=values, size_bytes=size)
