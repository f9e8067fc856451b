"""What stands beside the embedded log's figures: the same keys and values in a plain table."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from bench import orders
from bench.envelopes import padded
from bench.measure import Clock, Sample


def executemany(path: str, rows: int, per_batch: int) -> Sample:
    """A row of the table for each; every batch is a transaction that waits for the disk."""
    clock = Clock()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma page_size = 16384")
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        db.execute("create table rows (id integer primary key, key blob, value blob) strict")
        batches = [list(padded(part)) for part in orders.parts(0, rows, per_batch)]
        with clock:
            for batch in batches:
                db.execute("begin immediate")
                db.executemany("insert into rows (key, value) values (?, ?)", batch)
                db.execute("commit")
    return clock.sample(rows)


def select(path: str, rows: int, per_batch: int) -> Sample:
    """Every row into lists, a batch at a time."""
    clock, seen = Clock(), 0
    with closing(sqlite3.connect(path)) as db, clock:
        found = db.execute("select id, key, value from rows order by id")
        while batch := found.fetchmany(per_batch):
            seen += len(batch)
    assert seen == rows
    return clock.sample(rows)
