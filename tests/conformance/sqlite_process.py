"""What tests of the embedded log run as processes of their own: `-m … TASK PATH [NUMBER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from schemas.change import Piece, Position, Rows
from tests.conformance.logs import ORDERS, USERS, Writer, positions, rows_of, users, value
from transport.sqlite import SqliteLog

PIECE = 10_000


def write_large(path: str, number: int) -> None:
    """One batch of `number` rows over two tables."""
    writer = Writer(SqliteLog(path, "shop"))
    run, epoch = writer.opened.stamp.draw(), writer.opened.stamp.epoch
    for at in range(0, number, PIECE):
        rows = []
        for table, first in ((USERS, at), (ORDERS, at + 1)):
            own = range(first, at + PIECE, 2)
            rows.append(
                Rows(
                    table=table,
                    ops=["c"] * len(own),
                    ordinals=list(own),
                    keys=[b'{"id":%d}' % n for n in own],
                    values=[value(table, "c", n, epoch, run, n) for n in own],
                )
            )
        writer.log.append(Piece(run=run, rows=tuple(rows)))
    writer.end(run, "large")
    assert writer.log.flush() == Position("large")


def read_large(path: str, number: int) -> None:
    """Read everything, block by block."""
    expected = 0
    for batch in SqliteLog(path, "shop").read(None, follow=False):
        assert batch is not None
        for block in batch.blocks():
            numbers = sorted(o for rows in block for o in rows.ordinals)
            assert numbers == [*range(expected, expected + len(numbers))]
            expected += len(numbers)
    assert expected == number


def write_many(path: str, number: int) -> None:
    """`number` batches of a few rows."""
    writer = Writer(SqliteLog(path, "shop"))
    first = int(writer.opened.position or 0)
    for batch in range(first, first + number):
        writer.write(str(batch + 1), users(*range(batch % 7)), size=2)


def read_many(path: str, number: int) -> None:
    """Follow until the batch that ends at `number`, checking that none is missing or cut."""
    seen = []
    for batch in SqliteLog(path, "shop").read(None):
        if batch is not None:
            assert len(rows_of(batch)) == (int(batch.position) - 1) % 7
            seen.append(batch)
            if batch.position == str(number):
                break
    assert positions(seen) == [str(n) for n in range(1, number + 1)]


if __name__ == "__main__":
    task, path, number = sys.argv[1:]
    globals()[task](path, int(number))
    # Not getrusage: its figure begins with what the process that started us had.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
