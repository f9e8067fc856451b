"""A target alone: inserts, then updates of the same rows, 10,000 rows a batch.

Beside it: the same rows by the server's bulk load into a table without an index, which no upsert
by identity can reach; it says what the server takes of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from apply.mysql import MySQLTarget
from apply.postgres import PostgresTarget
from apply.target import Placement, Target
from bench import orders
from bench.envelopes import piece
from bench.measure import Clock, Figure, Sample, by_turns, compared, isolated
from bench.peer_mysql import load_data
from bench.peer_postgres import copy
from bench.servers import server
from schemas.change import Offset
from tests.services.database import fresh
from transport.memory import MemoryLog, MemoryStore

ROWS = 100_000
PER_BATCH = 10_000


def mysql(rows: int) -> Iterator[Figure]:
    return _apply("mysql", rows, "bare LOAD DATA LOCAL", load_data)


def postgres(rows: int) -> Iterator[Figure]:
    return _apply("postgres", rows, "bare COPY", copy)


def _apply(
    kind: str, rows: int, peer: str, load: Callable[[str, int, int], list[Sample]]
) -> Iterator[Figure]:
    with server(kind) as running:

        def turn(_: int) -> list[Sample]:
            with fresh(running) as made:
                samples = isolated(_batches, kind, made.url, rows)
                return samples + isolated(load, made.url, rows, PER_BATCH)

        inserted, updated, loaded = by_turns(turn)
    yield compared(f"target-{kind}", "insert", inserted, peer, loaded)
    yield compared(f"target-{kind}", "update", updated, peer, loaded)


def _batches(kind: str, url: str, rows: int) -> list[Sample]:
    """One sample of inserts, one of updates; making the batches is not part of them."""
    at: Offset | None = None
    samples = []
    log = MemoryLog("bench", MemoryStore())
    stamp = log.open().stamp
    with closing(_target(kind, url)) as target:
        target.prepare([orders.table(kind)])
        for op in "cu":
            clock = Clock()
            for part in orders.parts(0, rows, PER_BATCH):
                log.append(piece(kind, stamp, op, part))
                batch = next(log.read(at, follow=False))
                assert batch is not None
                with clock:
                    written = target.apply(batch, expect=at)
                assert written == len(part)
                at = batch.offset
                log.trim(0)
            samples.append(clock.sample(rows))
    return samples


def _target(kind: str, url: str) -> Target:
    make: Callable[..., Target] = MySQLTarget if kind == "mysql" else PostgresTarget
    return make("bench", url, "bench", Placement())
