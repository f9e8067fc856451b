"""MySQL and MariaDB as a source: the binlog as a stream, tables by chunks, preflight.

python-mysql-replication makes the handshake and the dump request; it never reads, so its silent
reconnection (which would ask from the original position again) cannot happen.
"""

import random
import secrets
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pymysqlreplication import BinLogStreamReader

from capture import mysql_beats, mysql_chunk
from capture.beats import Beats, left_out, refused
from capture.binlog_packets import ConnectionLost, Packets
from capture.mysql_catalog import CatalogTable, estimates, read_catalog
from capture.mysql_charsets import ServerCharsets
from capture.mysql_checks import EXPIRY, Cascades, check, expires_after_s
from capture.mysql_connection import connect, displaced, dump_settings, is_displaced, translated
from capture.mysql_flavour import Flavour
from capture.mysql_position import detect
from capture.mysql_ranges import MySQLDialect
from capture.mysql_stream import BEAT_S, BinlogStream
from capture.mysql_tables import Descriptions, catalog_table
from capture.pool import Pool
from capture.ranges import TableRanges
from capture.renames import Renames
from capture.resync import Resync
from capture.source import Chunk, Keeps, Noted, envelopes
from schemas.beat import BEATS, Beat
from schemas.change import Commit, Piece, Position, Progress, Stamp
from schemas.errors import HeadwaterError, Misconfigured, SourceLost
from schemas.finding import Finding
from schemas.ranges import Compared, SourceRanges
from schemas.selection import Selection
from schemas.table import Table


class MySQLSource:
    """One server's binlog and tables; MySQL 8 and 9, MariaDB 10.6 and later.

    server_id: by which the server tells its replicas apart; drawn from a high range by default.
    cascades: "accept": the target's foreign keys act as the source's do, or verify is to report it.
    copied_anew: full names of tables that are copied while this streams: what the binlog does not
    show of them (they were dropped, renamed, …) is a truncate then, not an error.
    """

    def __init__(
        self,
        name: str,
        url: str,
        selection: Selection,
        *,
        batch_rows: int = 10_000,
        batch_bytes: int = 8 << 20,
        server_id: int | None = None,
        cascades: Cascades = "refuse",
        copied_anew: Collection[str] = (),
    ) -> None:
        self.name = name
        self._url, self._selection = url, selection
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        # Far above what people number their servers with: two captures must never meet.
        self._server_id = server_id or random.SystemRandom().randrange(1 << 31, 1 << 32)
        # Under this name the server lists our dump, whoever else comes with the same id.
        self._reported = f"headwater-{secrets.token_hex(8)}"
        self._cascades: Cascades = cascades
        self._resync = Resync(name, copied_anew, self._catalog)
        self._connections = Pool[Any](lambda: connect(url), lambda c: c._force_close())
        self._detected: Flavour | None = None

    @property
    def connector(self) -> str:
        """The family of the server, as envelopes name it; known after the first connection."""
        return self._flavour.family

    @property
    def _flavour(self) -> Flavour:
        if self._detected is None:
            with self._cursor() as cursor:
                self._detected = detect(cursor)
        return self._detected

    def stream(
        self, after: Position | None, stamp: Stamp, progress: Progress | None = None
    ) -> Iterator[Piece]:
        """See capture/source.py; the binlog has the statements that make a table another one."""
        flavour = self._flavour
        with self._cursor() as cursor:
            if after is None:
                # What is in the binlog and not yet in the engine must come in the stream: no read
                # of a first copy would see it.
                start = flavour.noted(cursor)
            else:
                start = after
                flavour.verify(cursor, after)
        catalog = self._catalog()
        schemas = {t.schema for t in catalog} | self._selection_schemas()
        renames = Renames({t.full_name: self._taken(t) for t in catalog})
        yield Piece(run=stamp.draw(), commit=Commit(position=start, committed_at=None))
        reader = BinLogStreamReader(
            dump_settings(self._url),
            self._server_id,
            blocking=True,
            slave_heartbeat=BEAT_S,
            report_slave=self._reported,
            enable_logging=False,
            **flavour.request(start),
        )
        try:
            with translated("ask for the binlog"):
                # Its one step of connecting: handshake, session settings, dump request.
                reader._BinLogStreamReader__connect_to_stream()
            charsets = ServerCharsets(self._query)
            yield from BinlogStream(
                Packets(reader._stream_connection._sock),
                flavour.tracker(start),
                Descriptions(
                    self._look_up, flavour.family, self._selection, charsets, schemas, renames
                ),
                self._resync,
                connector=flavour.family,
                source=self.name,
                selection=self._selection,
                charsets=charsets,
                stamp=stamp,
                batch_rows=self._batch_rows,
                batch_bytes=self._batch_bytes,
            ).pieces()
        except ConnectionLost as error:
            with self._cursor() as cursor:
                if is_displaced(cursor, self._server_id, self._reported):
                    raise displaced() from error
            raise
        finally:
            dump = getattr(reader, "_stream_connection", None)
            if dump is not None:
                dump._force_close()  # a polite goodbye would wait for the server to read it

    def ack(self, position: Position) -> None:
        """The server keeps its binlog by time, not for us."""

    def describe(self) -> Sequence[Table]:
        """See capture/source.py."""
        return [catalog_table(t, self.connector, self._selection) for t in self._catalog()]

    def chunk(
        self, table: Table, after: Any, limit: int, *, until: Any = None, epoch: int, run: int
    ) -> Chunk:
        """See capture/source.py."""
        flavour, envelope = self._flavour, envelopes(self, table, epoch=epoch, run=run)
        with self._connection() as connection:
            return mysql_chunk.page(flavour, connection, table, after, limit, until, envelope)

    def chunk_of(self, table: Table, identities: Sequence[bytes], *, epoch: int, run: int) -> Chunk:
        """See capture/source.py."""
        flavour, envelope = self._flavour, envelopes(self, table, epoch=epoch, run=run)
        with self._connection() as connection:
            return mysql_chunk.listed(flavour, connection, table, identities, envelope)

    def boundary(self, table: Table, after: Any, rows: int, *, until: Any = None) -> Any:
        """See capture/source.py."""
        with self._connection() as connection:
            return mysql_chunk.boundary(connection, table, after, rows, until)

    def estimate(self) -> Mapping[str, int]:
        """See capture/source.py."""
        return estimates(self._query, self.connector, self._selection.wants)

    def visible(self) -> str:
        """See capture/source.py."""
        with self._cursor() as cursor:
            return mysql_chunk.visible(self._flavour, cursor)

    def ranges(self, compared: Compared) -> SourceRanges:
        """See Source.ranges."""
        return TableRanges(MySQLDialect(self._url), compared)

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        """See capture/source.py; of several marks the newest suffices, as each includes those
        before.
        """
        return not marks or self._flavour.sees(seen, marks)

    def reached(self, high: Position, position: Position) -> bool:
        """See capture/source.py."""
        return self._flavour.reached(high, position)

    def shown(self, position: Position) -> Callable[[], bool]:
        """See capture/source.py."""
        with self._cursor() as cursor:
            is_shown = self._flavour.shown(cursor, position)

        def ask() -> bool:
            with self._cursor() as cursor:
                return is_shown(cursor)

        return ask

    def check(self) -> list[Finding]:
        """See capture/source.py."""
        try:
            tables = self._catalog()
        except HeadwaterError as error:
            return [Finding(where=self.name, problem=str(error), fix=error.hint)]
        return check(self._query, tables, self._selection, cascades=self._cascades)

    def prepare(self, *, dry_run: bool = False) -> list[str]:
        """Nothing to set up: `check` says what the server's settings must be."""
        return []

    def drop(self, *, dry_run: bool = False) -> list[str]:
        """See capture/source.py; nothing but beats was ever made in the source."""
        statements = self._beats.plan_drop()
        for statement in () if dry_run else statements:
            self._query(statement)
        return statements

    def note(self, *, hold: bool, beat: bool = True) -> Generator[Noted | None, None, None]:
        """See capture/source.py; the dump's own tool says its place in the binlog exactly."""
        with self._cursor() as cursor:
            position = self._flavour.noted(cursor)
        number, found = self._beat(position) if beat else (None, left_out())
        findings = [*self._flavour.cautions(), *([found] if found else [])]
        yield Noted(position=position, beat=number, findings=tuple(findings))

    def keeps(self, position: Position) -> Keeps:
        """See capture/source.py; binlogs go by time, whoever still needs them."""
        settings = dict(self._query(EXPIRY))
        seconds = expires_after_s({str(n).lower(): str(v) for n, v in settings.items()})
        found = []
        try:
            with self._cursor() as cursor:
                self._flavour.given(cursor, position)
        except SourceLost as error:
            found.append(Finding(where="binlog", problem=str(error), fix=error.hint))
        return Keeps(keeps_s=seconds, findings=tuple(found))

    def beats(self) -> list[Beat]:
        """See capture/source.py."""
        return self._beats.read()

    def given(self, text: str) -> Position:
        """See capture/source.py."""
        with self._cursor() as cursor:
            return self._flavour.given(cursor, text)

    def now(self) -> tuple[Position, int]:
        """See capture/source.py."""
        with self._cursor() as cursor:
            position = self._flavour.now(cursor)
            cursor.execute("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)")
            return position, int(cursor.fetchone()[0])

    def close(self) -> None:
        """See capture/source.py."""
        self._connections.close()

    @property
    def _beats(self) -> Beats:
        return mysql_beats.of(self.name, self._query)

    def _beat(self, position: Position) -> tuple[int | None, Finding | None]:
        """Write a beat into every captured schema; its number, or why there is none."""
        schemas = sorted({table.schema for table in self._catalog()})
        try:
            if mysql_beats.is_read_only(self._query):
                raise Misconfigured("the server is read_only, perhaps a replica")
            return self._beats.write(schemas, position), None
        except Misconfigured as error:
            grants = [f"GRANT {mysql_beats.GRANT} ON {s}.{BEATS}" for s in schemas]
            return None, refused(error, f"run: {'; '.join(grants)} TO the source's user")

    def _catalog(self, only: tuple[str, str] | None = None) -> list[CatalogTable]:
        return read_catalog(self._query, self.connector, self._selection.wants, only)

    def _taken(self, table: CatalogTable) -> list[str]:
        """The columns that leave the source."""
        names = [c.name for c in table.columns if not c.generated]
        return [n for n in names if self._selection.wants_column(table.schema, table.name, n)]

    def _selection_schemas(self) -> set[str]:
        """Schemas that the selection names: their tables may be gone from the catalog already."""
        names = [p.split(".", 1) for p in self._selection.include if "." in p]
        return {schema for schema, table in names if self._selection.wants(schema, table)}

    def _look_up(self, schema: str, name: str) -> CatalogTable | None:
        return next(iter(self._catalog((schema, name))), None)

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with self._connection() as connection, connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection for everything but the dump, which has its own."""
        with translated("query the source"), self._connections.taken() as connection:
            yield connection
