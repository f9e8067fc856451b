"""A chunk's rows as they stand in the log: less what the stream touched since the read began."""

from collections.abc import Iterator

from capture.reading import Reading
from capture.source import Source, envelopes
from schemas.change import Rows


def kept(reading: Reading) -> Iterator[Rows]:
    """The rows that the stream did not touch; their ordinals are those of the chunk."""
    chunk, touched = reading.chunk, reading.touched
    keys, values, ordinals = chunk.keys, chunk.values, list(range(len(chunk.keys)))
    if not touched.isdisjoint(keys):
        ordinals = [i for i, key in enumerate(keys) if key not in touched]
        keys, values = [keys[i] for i in ordinals], [values[i] for i in ordinals]
    if keys:
        ops = ["r"] * len(keys)
        yield Rows(table=chunk.table, ops=ops, ordinals=ordinals, keys=keys, values=values)


def gone(reading: Reading, source: Source, epoch: int) -> Iterator[Rows]:
    """Deletes of listed rows that the source does not have."""
    chunk, listed = reading.chunk, reading.copy.keys
    there = reading.touched.union(chunk.keys)
    keys = [key for key in dict.fromkeys(listed or ()) if key not in there]
    if not keys:
        return
    envelope = envelopes(source, chunk.table, epoch=epoch, run=reading.run)(chunk.read_at)
    ordinals = list(range(len(chunk.keys), len(chunk.keys) + len(keys)))
    values = [envelope.delete(key.decode(), n) for key, n in zip(keys, ordinals, strict=True)]
    yield Rows(
        table=chunk.table, ops=["d"] * len(keys), ordinals=ordinals, keys=keys, values=values
    )
