"""What is captured: the measured table, or tables that are wider, narrower, or a hundred.

A shape says how its tables are made and written, and what a row's image must be on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from bench import orders, topics
from bench.topics import Row
from tests.services.database import Database

Image = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """row: row `number` as either side's image of it is given by `ours` and `theirs`.

    Rows go to the tables by turns, a transaction each. what: the figure's name.
    """

    what: str
    tables: Sequence[str]
    partitions: int
    ddl: Callable[[str, str], str]
    row: Callable[[int], Row]
    ours: Callable[[Image], Row]
    theirs: Callable[[Image], Row]
    beat: str
    """An update of any one column."""

    def make(self, kind: str, database: Database) -> None:
        """Create the tables."""
        for table in self.tables:
            database.execute(self.ddl(kind, table))

    def fill(self, database: Database, first: int, rows: int) -> None:
        """Insert rows, 100 a transaction."""
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            for part in orders.parts(first, rows, orders.PER_TRANSACTION):
                found = [self.row(number) for number in part]
                one = f"({', '.join(['%s'] * len(found[0]))})"
                table = self.tables[part[0] // orders.PER_TRANSACTION % len(self.tables)]
                sql = f"insert into {table} values {', '.join([one] * len(found))}"
                cursor.execute(sql, [value for values in found for value in values])

    def beats(self, database: Database) -> Generator[None, None, None]:
        """Each step changes one row of every table that is no part of any measurement."""
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            for table in self.tables:
                row = self.row(orders.BEAT)
                cursor.execute(f"insert into {table} values ({', '.join(['%s'] * len(row))})", row)
            while True:
                for table in self.tables:
                    cursor.execute(f"update {table} set {self.beat} where id = {orders.BEAT}")
                yield


ORDERS = Shape(
    what="ten columns",
    tables=["orders"],
    partitions=6,
    ddl=lambda kind, table: orders.ddl(kind),
    row=orders.row,
    ours=topics.headwater_row,
    theirs=topics.debezium_row,
    beat="quantity = quantity + 1",
)


def _plain(what: str, columns: int, tables: Sequence[str], partitions: int) -> Shape:
    """Tables of a key, a sync_id, and integers and texts by turns: alike in both sides' images."""
    names = [f"{'n' if number % 2 == 0 else 't'}{number}" for number in range(columns)]
    all_names = ("id", "sync_id", *names)

    def ddl(kind: str, table: str) -> str:
        identity = "uuid" if kind == "postgres" else "char(36)"
        given = [f"{name} {'bigint' if name[0] == 'n' else 'varchar(40)'}" for name in names]
        return (
            f"create table {table} (id bigint primary key,"
            f" sync_id {identity} not null unique, {', '.join(given)})"
        )

    def row(number: int) -> Row:
        values = (
            number * (at + 7) % 1_000_003 if at % 2 == 0 else f"text {at} of row {number}"
            for at in range(columns)
        )
        return (number, orders.sync_id(number), *values)

    def image(found: Image) -> Row:
        return tuple(found[name] for name in all_names)

    return Shape(
        what=what,
        tables=tables,
        partitions=partitions,
        ddl=ddl,
        row=row,
        ours=image,
        theirs=image,
        beat="n0 = n0 + 1",
    )


WIDE = _plain("62 columns", 60, ["wide"], 6)
NARROW = _plain("3 columns", 1, ["narrow"], 6)
HUNDRED = _plain("100 tables", 8, [f"many{number:02d}" for number in range(100)], 1)
"""One partition each: seven sides of six would be thousands on one broker."""
