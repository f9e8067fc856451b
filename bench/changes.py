"""What happens to the measured table: inserts alone, updates alone, or a mixture, as data.

The same changes are written to a source, made into a log's batches and staged for a bare statement,
and say what the target must hold afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain

from bench import orders
from tests.services.database import Database

Change = tuple[str, int, int]
"""An op ("c", "u", "d"), the row's number, and the version that it has afterwards."""

PHASES = ("insert", "update", "mixed")
"""In the order in which they are measured: each finds what the one before left."""


def transactions(phase: str, rows: int, first: int = 1) -> Iterator[list[Change]]:
    """The phase's changes, `rows` of them, 100 a transaction; the mixture begins at row 1."""
    if phase == "mixed":
        return _mixed(rows)
    op, version = ("c", 0) if phase == "insert" else ("u", 1)
    parts = orders.parts(first, rows, orders.PER_TRANSACTION)
    return ([(op, number, version) for number in part] for part in parts)


def _mixed(rows: int) -> Iterator[list[Change]]:
    """Of every 100 changes 40 insert, 50 update and 10 delete; no row is touched twice."""
    for k in range(rows // orders.PER_TRANSACTION):
        old, new = 1 + 60 * k, 1 + rows + 40 * k
        yield [
            *(("u", number, 2) for number in range(old, old + 50)),
            *(("d", number, 1) for number in range(old + 50, old + 60)),
            *(("c", number, 0) for number in range(new, new + 40)),
        ]


def batches(phase: str, rows: int, size: int) -> Iterator[list[Change]]:
    """The phase's changes in whole transactions, `size` changes each."""
    found: list[Change] = []
    for transaction in transactions(phase, rows):
        found += transaction
        if len(found) >= size:
            yield found
            found = []
    if found:
        yield found


def after(phase: str, rows: int) -> dict[int, int]:
    """Each row that is there after that phase, and its version."""
    held: dict[int, int] = {}
    for name in PHASES[: PHASES.index(phase) + 1]:
        for op, number, version in chain.from_iterable(transactions(name, rows)):
            if op == "d":
                del held[number]
            else:
                held[number] = version
    return held


def write(database: Database, wanted: Iterable[Sequence[Change]]) -> None:
    """Let a source's table go through these transactions."""
    one = f"({', '.join(['%s'] * len(orders.NAMES))})"
    is_postgres = database.server.url.startswith("postgres")
    form = "{0} = excluded.{0}" if is_postgres else "{0} = values({0})"
    assigned = ", ".join(form.format(name) for name in orders.NAMES[1:])
    there = "on conflict (id) do update set" if is_postgres else "on duplicate key update"
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        for transaction in wanted:
            cursor.execute("begin")
            for op in "cud":
                found = [(number, version) for o, number, version in transaction if o == op]
                if not found:
                    continue
                if op == "d":
                    numbers = tuple(number for number, _ in found)
                    cursor.execute("delete from orders where id in %s", (numbers,))
                    continue
                sql = f"insert into orders values {', '.join([one] * len(found))}"
                if op == "u":
                    sql += f" {there} {assigned}"
                cursor.execute(sql, [v for at in found for v in orders.row(*at)])
            cursor.execute("commit")
