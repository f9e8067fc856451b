"""PostgreSQL as it is polled: SELECT alone, by the same encoders as chunks of a copy.

A standby will do: whoever polls reads all from one server.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from capture import postgres_catalog, postgres_chunk, postgres_tables
from capture import postgres_paging as paging
from capture.polling_reader import Key, Page, joined
from capture.pool import Pool
from capture.postgres_ranges import PostgresDialect
from capture.postgres_session import Session, quoted
from capture.ranges import TableRanges
from schemas.codec import Envelope
from schemas.ranges import Compared, SourceRanges
from schemas.selection import Selection
from schemas.table import Table

_CLOCK = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint"


class PostgresReader:
    """Implements capture.polling_reader.Reader."""

    connector = "postgresql"

    def __init__(self, name: str, url: str, selection: Selection) -> None:
        self._name, self._url, self._selection = name, url, selection
        self._sessions = Pool(lambda: Session(url, name), Session.close)

    def describe(self) -> list[Table]:
        return [postgres_tables.from_catalog(self._selection, r) for r in self._relations()]

    def estimate(self) -> Mapping[str, int]:
        relations = self._relations()
        with self._sessions.taken() as session:
            return postgres_catalog.estimates(session, relations)

    @contextmanager
    def snapshot(self) -> "Iterator[_Snapshot]":
        with self._sessions.taken() as session:
            clock = int(session.one(_CLOCK))
            with session.snapshot():
                yield _Snapshot(session, clock)

    def clock(self) -> int:
        with self._sessions.taken() as session:
            return int(session.one(_CLOCK))

    def greatest(self, table: Table, column: str) -> str | None:
        with self._sessions.taken() as session:
            of = paging.rows_of(session, table)
            value = session.one(f"SELECT max({quoted(column)})::text FROM {of}")
        return None if value is None else str(value)

    def any_null(self, table: Table, column: str) -> bool:
        with self._sessions.taken() as session:
            of = paging.rows_of(session, table)
            return bool(session.query(f"SELECT 1 FROM {of} WHERE {quoted(column)} IS NULL LIMIT 1"))

    def boundary(
        self, table: Table, after: Key | None, rows: int, until: Key | None, where: str
    ) -> Key | None:
        with self._sessions.taken() as session:
            clause = joined(paging.within(session, table, after, until), where)
            order = paging.order(table)
            out = session.copy(
                f"SELECT {order} FROM {paging.rows_of(session, table)}{clause} ORDER BY {order} "
                f"OFFSET {rows - 1:d} LIMIT 1"
            )
        key = replace(table, columns=tuple(table.by_name[n] for n in table.identity))
        return postgres_chunk.key_of_last(key, out) if out else None

    def ranges(self, compared: Compared, living: Callable[[Table], str]) -> SourceRanges:
        return TableRanges(_Living(Session(self._url, self._name), living), compared)

    def quoted(self, name: str) -> str:
        return quoted(name)

    def close(self) -> None:
        self._sessions.close()

    def _relations(self) -> list[postgres_catalog.Relation]:
        with self._sessions.taken() as session:
            found = postgres_catalog.tables(session)
        return [r for r in found if self._selection.wants(r.schema, r.name)]


class _Snapshot:
    """Implements capture.polling_reader.Snapshot."""

    def __init__(self, session: Session, clock: int) -> None:
        self._session, self.clock = session, clock

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
        if after is None:
            paging.refuse_null_identity(self._session, by, paging.rows_of(self._session, table))
        clause = joined(paging.within(self._session, by, after, until), where)
        tail = f"{clause} ORDER BY {paging.order(by)} LIMIT {limit:d}"
        return self._read(table, by, tail, envelope)

    def listed(
        self, table: Table, identities: Sequence[bytes], envelope: Envelope, where: str
    ) -> Page:
        among = paging.among(self._session, table, identities).removeprefix(" WHERE ")
        return self._read(table, table, joined("", among, where), envelope)

    def after(self, table: Table, column: str, value: str) -> str:
        return f"{quoted(column)} > {self._session.literal(value)}"

    def _read(self, table: Table, by: Table, tail: str, envelope: Envelope) -> Page:
        names = ", ".join(quoted(c.name) for c in table.columns)
        of = paging.rows_of(self._session, table)
        out = self._session.copy(f"SELECT {names} FROM {of}{tail}")
        rows = postgres_chunk.encoded(table, out, envelope)
        return Page(rows.keys, rows.values, postgres_chunk.key_of_last(by, out) if out else None)


class _Living(PostgresDialect):
    """Only the rows that live."""

    def __init__(self, session: Session, living: Callable[[Table], str]) -> None:
        super().__init__(session)
        self._living = living

    def relation(self, table: Table) -> str:
        where = self._living(table)
        whole = super().relation(table)
        return f"(SELECT * FROM {whole} WHERE {where})" if where else whole
