"""MySQL and MariaDB as they are polled: SELECT alone, by the same encoders as chunks of a copy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from capture import mysql_paging as paging
from capture import mysql_results as results
from capture.mysql_catalog import estimates, read_catalog
from capture.mysql_connection import connect, translated
from capture.mysql_ranges import MySQLDialect
from capture.mysql_tables import catalog_table
from capture.polling_reader import Key, Page, joined
from capture.pool import Pool
from capture.ranges import TableRanges
from schemas.codec import Envelope
from schemas.mysql_text import expression
from schemas.ranges import Compared, SourceRanges
from schemas.selection import Selection
from schemas.table import Table

_CLOCK = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"


class MySQLReader:
    """Implements capture.polling_reader.Reader."""

    def __init__(self, name: str, url: str, selection: Selection) -> None:
        self._url, self._selection = url, selection
        self._connections = Pool[Any](lambda: connect(url), lambda c: c._force_close())
        self._family = ""

    @property
    def connector(self) -> str:
        if not self._family:
            ((version,),) = self._query("SELECT version()")
            self._family = "mariadb" if "mariadb" in str(version).lower() else "mysql"
        return self._family

    def describe(self) -> list[Table]:
        wants = self._selection.wants
        found = read_catalog(self._query, self.connector, wants, None)
        return [catalog_table(t, self.connector, self._selection) for t in found]

    def estimate(self) -> Mapping[str, int]:
        return estimates(self._query, self.connector, self._selection.wants)

    @contextmanager
    def snapshot(self) -> "Iterator[_Snapshot]":
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(_CLOCK)
            clock = int(cursor.fetchone()[0])
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            yield _Snapshot(connection, clock)
            cursor.execute("COMMIT")

    def clock(self) -> int:
        return int(self._query(_CLOCK)[0][0])

    def greatest(self, table: Table, column: str) -> str | None:
        printed = expression(table.by_name[column].kind, f"MAX({paging.name(column)})")
        with self._connection() as connection:
            ((value,),) = results.rows(connection, f"SELECT {printed} FROM {paging.rows_of(table)}")
        return None if value is None else value.decode()

    def any_null(self, table: Table, column: str) -> bool:
        where = f"{paging.name(column)} IS NULL LIMIT 1"
        return bool(self._query(f"SELECT 1 FROM {paging.rows_of(table)} WHERE {where}"))

    def boundary(
        self, table: Table, after: Key | None, rows: int, until: Key | None, where: str
    ) -> Key | None:
        with self._connection() as connection:
            found = results.rows(
                connection,
                f"SELECT {', '.join(paging.selected_key(table))} FROM {paging.rows_of(table)}"
                f"{joined(paging.within(table, after, until), where)} "
                f"ORDER BY {paging.order(table)} LIMIT 1 OFFSET {rows - 1:d}",
            )
        return paging.key_of(table, found[0]) if found else None

    def ranges(self, compared: Compared, living: Callable[[Table], str]) -> SourceRanges:
        return TableRanges(_Living(self._url, living), compared)

    def quoted(self, name: str) -> str:
        return paging.name(name)

    def close(self) -> None:
        self._connections.close()

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with translated("query the source"), self._connections.taken() as connection:
            yield connection


class _Snapshot:
    """Implements capture.polling_reader.Snapshot."""

    def __init__(self, connection: Any, clock: int) -> None:
        self._connection, self.clock = connection, clock

    def page(
        self,
        table: Table,
        by: Table,
        *,
        after: Key | None,
        limit: int,
        envelope: Envelope,
        until: Key | None = None,
        where: str = "",
    ) -> Page:
        if after is None and (nulls := paging.nulls(by)) and results.rows(self._connection, nulls):
            raise paging.null_key(by, [c for c in paging.paging_columns(by) if c.nullable])
        clause = joined(paging.within(by, after, until), where)
        tail = f"{clause} ORDER BY {paging.order(by)} LIMIT {limit:d}"
        return self._read(table, by, tail, envelope)

    def listed(
        self, table: Table, identities: Sequence[bytes], envelope: Envelope, where: str
    ) -> Page:
        among = paging.among(table, identities).removeprefix(" WHERE ")
        return self._read(table, table, joined("", among, where), envelope)

    def after(self, table: Table, column: str, value: str) -> str:
        alone = table.__class__(
            family=table.family,
            schema=table.schema,
            name=table.name,
            columns=table.columns,
            primary_key=(column,),
            identity=(column,),
        )
        return paging.within(alone, [value], None).removeprefix(" WHERE ")

    def _read(self, table: Table, by: Table, tail: str, envelope: Envelope) -> Page:
        columns = [c for c in table.columns if not c.generated]
        selected = [expression(c.kind, paging.name(c.name)) for c in columns]
        key = paging.selected_key(by)
        selected += [k for k in key if k not in selected]
        sql = f"SELECT {', '.join(selected)} FROM {paging.rows_of(table)}{tail}"
        rows = results.encoded(self._connection, sql, table, columns, envelope)
        last = [rows.last[selected.index(k)] for k in key] if rows.keys else None
        return Page(rows.keys, rows.values, None if last is None else paging.key_of(by, last))


class _Living(MySQLDialect):
    """Only the rows that live."""

    def __init__(self, url: str, living: Callable[[Table], str]) -> None:
        super().__init__(url)
        self._living = living

    def relation(self, table: Table) -> str:
        where = self._living(table)
        whole = super().relation(table)
        return f"(SELECT * FROM {whole} WHERE {where})" if where else whole
