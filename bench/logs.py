"""A log alone: appending and reading rows of 350 bytes, 10,000 a batch.

Beside it: the same keys and values through the bare library, in order, without a protocol.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from bench import orders
from bench.envelopes import padded_piece
from bench.measure import Clock, Figure, Sample, by_turns, compared, isolated
from bench.peer_kafka import consume, produce
from bench.peer_sqlite import executemany, select
from bench.servers import broker
from transport.kafka import KafkaLog
from transport.log import Log
from transport.sqlite import SqliteLog

ROWS = 200_000
PER_BATCH = 10_000
SOURCE = "bench"

Run = Callable[[int], list[Sample]]


def sqlite(rows: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:

        def ours(number: int) -> list[Sample]:
            path = str(Path(folder) / f"{number}.db")
            return [isolated(_append, "sqlite", path, SOURCE, rows), _read("sqlite", path, rows)]

        def bare(number: int) -> list[Sample]:
            path = str(Path(folder) / f"{number}.plain.db")
            return [
                isolated(executemany, path, rows, PER_BATCH),
                isolated(select, path, rows, PER_BATCH),
            ]

        yield from _figures("log-sqlite", ours, "bare executemany", bare, "bare select")


def kafka(rows: int) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder,
        broker(Path(folder)) as servers,
    ):

        def ours(number: int) -> list[Sample]:
            source = f"{SOURCE}-{number}"
            return [
                isolated(_append, "kafka", servers, source, rows),
                _read("kafka", servers, rows, source),
            ]

        def bare(number: int) -> list[Sample]:
            topic = f"plain{number}"
            return [
                isolated(produce, servers, topic, rows),
                isolated(consume, servers, topic, rows),
            ]

        yield from _figures("log-kafka", ours, "bare produce", bare, "bare consume")


def _figures(bench: str, ours: Run, writer: str, bare: Run, reader: str) -> Iterator[Figure]:
    appended, read, written, selected = by_turns(ours, bare)
    yield compared(bench, "append", appended, writer, written)
    yield compared(bench, "read", read, reader, selected)


def _log(kind: str, place: str, source: str) -> Log:
    return SqliteLog(place, source) if kind == "sqlite" else KafkaLog(place, source)


def _append(kind: str, place: str, source: str, rows: int) -> Sample:
    """Until the last batch came back accepted."""
    clock = Clock()
    with closing(_log(kind, place, source)) as log:
        stamp = log.open().stamp
        # The first batch also makes topics and tables.
        log.append(padded_piece(stamp, range(rows, rows + 1)))
        log.flush()
        batches = [padded_piece(stamp, part) for part in orders.parts(0, rows, PER_BATCH)]
        with clock:
            for piece in batches:
                log.append(piece)
            log.flush()
    return clock.sample(rows)


def _read(kind: str, place: str, rows: int, source: str = SOURCE) -> Sample:
    return isolated(_read_all, kind, place, source, rows)


def _read_all(kind: str, place: str, source: str, rows: int) -> Sample:
    clock, seen = Clock(), 0
    with closing(_log(kind, place, source)) as log, clock:
        for batch in log.read(None, follow=False):
            if batch is not None:
                seen += sum(len(run) for block in batch.blocks() for run in block)
    assert seen == rows + 1
    return clock.sample(rows)
