"""A checksum is the same whether a server's SQL computes it or Python: every kind's corner values,
at the source and at the target.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from capture.source import Source
from ops.verify_ranges import Range, SideRows
from schemas import checksum
from schemas.canonical import canonical
from schemas.checksum import Side
from schemas.ranges import Compared, Ranges, Total
from schemas.table import Table
from tests.conformance import test_source_postgres_values as postgres_values
from tests.conformance.mysql_values import corner_tables, random_tables
from tests.conformance.sources import MAKERS
from tests.conformance.targets import Place, Stream, c, deliver, place
from tests.conformance.test_source_mysql_values import create, fill
from tests.conformance.test_target_values import VALUES, everything, rows
from tests.services.database import Database
from tests.services.server import Server

__all__ = ["place"]

WHOLE = Range(None, None)
IN_PYTHON = "json"
"""The kind whose canonical form no SQL writes."""


def of_column(table: Table, name: str) -> Compared:
    """The table as if it had the identity and this column only."""
    kinds = {n: table.by_name[n].kind for n in (*table.identity, name)}
    return Compared(table=table, kinds=kinds, parents={})


def both(ranges: Ranges, compared: Compared, side: Side) -> tuple[Total | None, Total]:
    """What SQL says, and what Python says of the rows."""
    with closing(ranges):
        forms = [
            row.form for block in SideRows(ranges, compared, side).rows(WHOLE) for row in block
        ]
        return ranges.total(None, None), checksum.total(compared, side, forms)


def check(open_ranges: Callable[[Compared], Ranges], table: Table, side: Side, *, sql: bool) -> int:
    """Compare column by column; how many rows there are."""
    count = 0
    for column in table.columns[side == "target" :]:  # The target's own key is not compared.
        by_sql, by_python = both(
            open_ranges(of_column(table, column.name)), of_column(table, column.name), side
        )
        assert (by_sql is None) == (not sql or column.kind.name == IN_PYTHON), column
        assert by_sql in (None, by_python), (column.name, column.native)
        count = by_python.rows
    return count


def test_a_target_and_python_have_one_checksum_of_every_kind(place: Place) -> None:
    """And it is the checksum of what was sent, so the same on every server."""
    is_sqlite = place.kind == "sqlite"
    for family in ("postgres", "mysql", "mariadb"):
        table, sent = everything(family), rows()
        target = place.target()
        target.prepare([table])
        if target.checkpoint() is None:
            deliver(target, Stream().batch(*(c(table, **row) for row in sent)))
        assert check(target.ranges, table, "target", sql=not is_sqlite) == len(sent)
        for name, (kind, _) in VALUES.items():
            compared = of_column(table, name)
            form = canonical(kind)
            expected = checksum.total(
                compared, "target", [[row["sync_id"], form(row[name])] for row in sent]
            )
            with closing(target.ranges(compared)) as ranges:
                assert SideRows(ranges, compared, "target").total(WHOLE) == expected, name


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_mysql_and_python_have_one_checksum_of_every_type(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Every type and character set that is carried, by its corner values and by random ones."""
    database: Database = request.getfixturevalue(f"{kind}_db")
    found = {f"corner_{n}": columns for n, columns in corner_tables(kind).items()}
    found |= {f"random_{n}": columns for n, columns in random_tables(7).items()}
    for name, columns in found.items():
        create(database, name, columns)
        fill(database, name, columns)
    with closing(MAKERS[kind](database)) as source:
        check_all(source)


def test_postgres_and_python_have_one_checksum_of_every_type(postgres_db: Database) -> None:
    postgres_db.execute("CREATE TYPE mood AS ENUM ('it''s \"ok\", ä')")
    for i, (native, cases) in enumerate(postgres_values.CORNERS.items()):
        postgres_db.execute(f"CREATE TABLE t{i} (sync_id int PRIMARY KEY, v {native})")
        values = ", ".join(f"({n}, {sql})" for n, (sql, _) in enumerate([*cases, ("NULL", None)]))
        postgres_db.execute(f"INSERT INTO t{i} VALUES {values}".replace("%", "%%"))
    postgres_db.execute(
        "CREATE TABLE floats (sync_id int PRIMARY KEY, v float8, w real);"
        "INSERT INTO floats SELECT g, (random() - 0.5) * pow(10, g % 600 - 300),"
        " ((random() - 0.5) * pow(10, g % 70 - 37))::real FROM generate_series(1, 3000) g"
    )
    with closing(MAKERS["postgres"](postgres_db)) as source:
        check_all(source)


def check_all(source: Source) -> None:
    for table in source.describe():
        assert check(source.ranges, table, "source", sql=True), table.name


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_a_line_that_is_too_long_for_the_server_equals_nothing(
    kind: str, request: pytest.FixtureRequest, new_database: Callable[[Server], Database]
) -> None:
    """What the server cannot join into one line is null there: it must not count as nothing."""
    server: Server = request.getfixturevalue(kind)
    sums: list[Any] = []
    for text in ("a", "b"):
        database = new_database(server)
        # Its own line is longer than any packet may be: 40 texts of up to a megabyte each.
        columns = ", ".join(f"c{n} longtext" for n in range(70))
        database.execute(
            f"create table t (id int primary key, sync_id char(36) not null unique, {columns})"
        )
        names = ", ".join(f"c{n}" for n in range(70))
        values = ", ".join(["repeat('x', 1000000)"] * 69 + [f"'{text}'"])
        database.execute(f"insert into t (id, sync_id, {names}) values (1, 'k', {values})")
        with closing(MAKERS[kind](database)) as source:
            (table,) = source.describe()
            kinds = {column.name: column.kind for column in table.columns}
            compared = Compared(table=table, kinds=kinds, parents={})
            with closing(source.ranges(compared)) as ranges:
                sums.append(ranges.total(None, None))
    assert sums[0].rows == sums[1].rows == 1
    assert sums[0].hashes != 0
