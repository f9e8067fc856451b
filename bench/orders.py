"""The measured table: ten columns, 100 rows a transaction, the same rows on every server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from schemas.kinds import Kind
from schemas.table import Column, Table
from tests.services.database import Database

PER_TRANSACTION = 100

MYSQL = (
    "create table orders (id bigint primary key, sync_id char(36) not null unique,"
    " customer_id bigint not null, status varchar(20) not null, total decimal(12,2),"
    " note varchar(200), quantity int not null, created_at datetime(6) not null,"
    " updated_at timestamp(6) not null, paid bool)"
)
POSTGRES = (
    "create table orders (id bigint primary key, sync_id uuid not null unique,"
    " customer_id bigint not null, status varchar(20) not null, total numeric(12,2),"
    " note varchar(200), quantity int not null, created_at timestamp(6) not null,"
    " updated_at timestamptz(6) not null, paid bool)"
)
_KINDS = {
    "id": Kind(name="int", bits=64),
    "sync_id": Kind(name="text", length=36),
    "customer_id": Kind(name="int", bits=64),
    "status": Kind(name="text", length=20),
    "total": Kind(name="decimal", precision=12, scale=2),
    "note": Kind(name="text", length=200),
    "quantity": Kind(name="int", bits=32),
    "created_at": Kind(name="datetime", fraction=6),
    "updated_at": Kind(name="timestamp", fraction=6),
    "paid": Kind(name="bool"),
}
NAMES = tuple(_KINDS)
_STATUS = ("new", "paid", "packed", "sent", "returned")


def table(family: str) -> Table:
    """The table as a capture of that family would describe it."""
    nullable = {"total", "note", "paid"}
    return Table(
        family=family,
        schema="shop",
        name="orders",
        columns=tuple(
            Column(name=name, kind=kind, nullable=name in nullable) for name, kind in _KINDS.items()
        ),
        primary_key=("id",),
        identity=("sync_id",),
        uniques=(("sync_id",),),
    )


def sync_id(number: int) -> str:
    """The identity of row `number`, spread like a random one."""
    return f"{number * 2_654_435_761 % (1 << 32):08x}-0000-4000-8000-{number:012x}"


def row(number: int, version: int = 0) -> tuple[Any, ...]:
    """Row `number`; each version differs in four columns."""
    second = f"{number // 60 % 60:02d}:{number % 60:02d}.{number % 1_000_000:06d}"
    return (
        number,
        sync_id(number),
        number * 7 % 100_003,
        _STATUS[(number + version) % 5],
        f"{number % 10_000 + version}.{number % 100:02d}",
        None if number % 10 == 0 else f'row {number}, "quoted" naïve, version {version}',
        number % 1000,
        f"2026-11-22 09:{second}",
        f"2026-11-22 {10 + version:02d}:{second}",
        number % 2 == 1,
    )


def fill(database: Database, first: int, rows: int) -> None:
    """Insert rows, 100 a transaction."""
    one = f"({', '.join(['%s'] * len(NAMES))})"
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        for part in parts(first, rows, PER_TRANSACTION):
            sql = f"insert into orders values {', '.join([one] * len(part))}"
            cursor.execute(sql, [value for number in part for value in row(number)])


def parts(first: int, rows: int, size: int) -> Iterator[Sequence[int]]:
    """The numbers of rows, in stretches of `size`."""
    for at in range(first, first + rows, size):
        yield range(at, min(at + size, first + rows))


def lines(numbers: Sequence[int]) -> str:
    """Rows in the text form that both COPY and LOAD DATA take."""
    return "".join("\t".join(map(_field, row(number))) + "\n" for number in numbers)


def _field(value: Any) -> str:
    if value is None:
        return r"\N"
    return str(int(value) if isinstance(value, bool) else value)
