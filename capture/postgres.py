"""PostgreSQL as a source: logical decoding with pgoutput, one slot and one publication.

Each part has a file: postgres_wal (the connection), pgoutput (its messages), postgres_rows and
postgres_stream (rows and batches), postgres_slot (may we go on here), postgres_tables and
postgres_catalog (descriptions), postgres_chunk, postgres_checks, postgres_prepare, postgres_export.
Here they meet.
"""

import re
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from capture import (
    pgoutput,
    postgres_beats,
    postgres_catalog,
    postgres_checks,
    postgres_chunk,
    postgres_export,
    postgres_keeps,
    postgres_prepare,
    postgres_slot,
    postgres_tables,
)
from capture.beats import Beats, left_out, refused
from capture.pool import Pool
from capture.postgres_ranges import PostgresDialect
from capture.postgres_relations import Relations
from capture.postgres_rows import RelationRows
from capture.postgres_session import Session, conninfo
from capture.postgres_stream import Assembler, follow
from capture.postgres_wal import Wal
from capture.ranges import TableRanges
from capture.resync import Resync
from capture.source import Chunk, Keeps, Noted, envelopes
from schemas.beat import BEATS, Beat
from schemas.change import Commit, Piece, Position, Progress, Stamp
from schemas.errors import HeadwaterError, Misconfigured, SourceLost
from schemas.finding import Finding
from schemas.ranges import Compared, SourceRanges
from schemas.selection import Selection
from schemas.table import Table


class PostgresSource:
    """One database's committed changes (contract: capture/source.py). Positions: postgres_slot."""

    connector = "postgresql"

    def __init__(
        self,
        name: str,
        url: str,
        selection: Selection,
        *,
        slot: str | None = None,
        publication: str | None = None,
        batch_rows: int = 10_000,
        batch_bytes: int = 8 << 20,
        auto_prepare: bool = False,
        copied_anew: Collection[str] = (),
        read_only: bool = False,
        connect: Callable[[str, str], Wal] = Wal,
    ) -> None:
        """slot, publication: `headwater_<name>` by default, in the letters PostgreSQL allows.

        auto_prepare: a stream that starts anew prepares first. copied_anew: full names of tables
        that are copied while this streams: what the log does not show of them (they were renamed,
        or made anew) is a truncate then, not an error. read_only: nothing is written to the server,
        not even messages to its log: what it must have, somebody else makes. connect: for tests of
        what the connection does.
        """
        self.name = name
        own = re.sub(r"[^a-z0-9_]", "_", f"headwater_{name}".lower())[:63]
        self._slot = slot or own
        self._publication = publication or own
        if not re.fullmatch(r"[a-z0-9_]{1,63}", self._slot):
            raise Misconfigured(
                f"cannot use {self._slot!r} as the name of a slot",
                hint="use lower-case letters, digits and underscores, 63 at most",
            )
        self._url, self._selection = url, selection
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._auto_prepare, self._connect = auto_prepare, connect
        self._read_only = read_only
        self._session = Session(url, name, read_only=read_only)
        self._readers = Pool(lambda: Session(url, name, read_only=read_only), Session.close)
        self._resync = Resync(name, copied_anew, lambda: postgres_catalog.tables(self._session))
        self._server: postgres_slot.Server | None = None
        self._wal: Wal | None = None
        self._assembler: Assembler | None = None
        self._expected = 0
        self._expecting = threading.Lock()

    def stream(
        self, after: Position | None, stamp: Stamp, progress: Progress | None = None
    ) -> Generator[Piece, None, None]:
        """See Source.stream. `after=None` starts at the slot's own place, where prepare made it.

        A slot that another process reads is Transient: after a kill its sender may live for a
        moment, and a rival capture is fenced by the log, whose claim this process already holds.
        """
        if after is None and self._auto_prepare:
            self.prepare()
        server = self._server = postgres_slot.server(self._session)
        slot = postgres_slot.find(self._session, self._slot)
        start = postgres_slot.start_of(self._slot, slot, server, after)
        if postgres_prepare.published(self._session, self._publication) is None:
            raise Misconfigured(
                f"found no publication {self._publication}",
                hint="run headwater prepare for this source",
            )
        relations = Relations(self._selection, self._resync, {} if progress is None else progress)
        self._look(relations)
        describer = postgres_tables.Describer(self._session, self._selection)
        # Before the slot is taken: a slot still held then counts as a stream that broke off.
        yield Piece(
            run=stamp.draw(), commit=Commit(position=server.position(start), committed_at=None)
        )

        def relation(message: pgoutput.Relation) -> RelationRows | None:
            found = describer.described(message)
            return RelationRows(found.table, found.taken, message.columns) if found else None

        wal = self._connect(conninfo(self._url, self.name, replication=True), self._slot)
        try:
            wal.start(start, self._publication)
            self._wal = wal
            self._assembler = Assembler(
                source=self.name,
                stamp=stamp,
                after=start,
                recent_xid=server.recent_xid,
                position=server.position,
                relation=relation,
                relations=relations,
                answer=wal.answer,
                batch_rows=self._batch_rows,
                batch_bytes=self._batch_bytes,
            )
            with self._expecting:
                self._assembler.await_place(self._expected)
            yield from follow(wal, self._assembler, look=lambda: self._look(relations))
        finally:
            self._release(wal)

    def ack(self, position: Position) -> None:
        """See Source.ack; the server hears of it at once."""
        if self._wal is not None:
            self._wal.acknowledge(postgres_slot.lsn_of(position))

    def describe(self) -> Sequence[Table]:
        """See Source.describe; unlogged and temporary tables write no log and are left out."""
        return [
            postgres_tables.from_catalog(self._selection, relation)
            for relation in postgres_prepare.selected(self._session, self._selection)
        ]

    def chunk(
        self, table: Table, after: Any, limit: int, *, until: Any = None, epoch: int, run: int
    ) -> Chunk:
        """See Source.chunk; a chunk also writes one message to the log (postgres_chunk.nudge)."""
        envelope = envelopes(self, table, epoch=epoch, run=run)
        with self._readers.taken() as session:
            server = self._known_server(session)
            chunk = postgres_chunk.page(session, server, table, after, limit, until, envelope)
            self._expect(session, chunk.high)
        return chunk

    def chunk_of(self, table: Table, identities: Sequence[bytes], *, epoch: int, run: int) -> Chunk:
        """See Source.chunk_of."""
        envelope = envelopes(self, table, epoch=epoch, run=run)
        with self._readers.taken() as session:
            server = self._known_server(session)
            chunk = postgres_chunk.listed(session, server, table, identities, envelope)
            self._expect(session, chunk.high)
        return chunk

    def boundary(self, table: Table, after: Any, rows: int, *, until: Any = None) -> Any:
        """See Source.boundary."""
        with self._readers.taken() as session:
            return postgres_chunk.boundary(session, table, after, rows, until)

    def estimate(self) -> Mapping[str, int]:
        """See Source.estimate."""
        with self._readers.taken() as session:
            tables = postgres_prepare.selected(session, self._selection)
            return postgres_catalog.estimates(session, tables)

    def visible(self) -> str:
        """See Source.visible."""
        return postgres_chunk.visible(self._session)

    def ranges(self, compared: Compared) -> SourceRanges:
        """See Source.ranges."""
        return TableRanges(PostgresDialect(Session(self._url, self.name)), compared)

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        """See Source.sees; marks are 64-bit transaction ids, `seen` is a snapshot's text."""
        return postgres_chunk.sees(seen, marks)

    def reached(self, high: Position, position: Position) -> bool:
        """See Source.reached."""
        return postgres_slot.lsn_of(position) >= postgres_slot.lsn_of(high)

    def shown(self, position: Position) -> Callable[[], bool]:
        """See Source.shown: once all has ended that runs now, but for what is prepared."""
        limit = self._session.one(postgres_chunk.LIMIT)
        return lambda: bool(self._session.one(postgres_chunk.ENDED, limit))

    def check(self) -> list[Finding]:
        """See Source.check."""
        return postgres_checks.findings(
            self._session, self._selection, self._slot, self._publication
        )

    def prepare(self, *, dry_run: bool = False) -> list[str]:
        """See Source.prepare: publication, replica identities, slot, as far as they are missing."""
        plan = postgres_prepare.plan(self._session, self._selection, self._slot, self._publication)
        return self._run(plan, dry_run=dry_run)

    def drop(self, *, dry_run: bool = False) -> list[str]:
        """See Source.drop; tables keep their replica identity, which other readers may rely on."""
        plan = postgres_prepare.plan_drop(self._session, self._slot, self._publication)
        return self._run([*plan, *self._beats.plan_drop()], dry_run=dry_run)

    def note(self, *, hold: bool, beat: bool = True) -> Generator[Noted | None, None, None]:
        """See Source.note; a slot is what keeps the log, and only a new one offers a snapshot."""
        server = self._known_server(self._session)
        is_new = postgres_slot.find(self._session, self._slot) is None
        if is_new and hold:
            yield from self._exported(server)
            return
        self.prepare()
        slot = postgres_slot.find(self._session, self._slot)
        start = postgres_slot.start_of(self._slot, slot, server, None)
        existed = Finding(
            where=f"slot {self._slot}",
            problem="is there already: the position is where it stands, and no snapshot can be "
            "taken of that moment any more",
            fix="begin the dump now, without a snapshot, and the capture once it has begun",
            refused=False,
        )
        position = server.position(start)
        writes = beat and not self._read_only
        number, found = self._beat(position) if writes else (None, left_out())
        findings = [*([] if is_new else [existed]), *([found] if found else [])]
        yield Noted(position=position, beat=number, findings=tuple(findings))

    def given(self, text: str) -> Position:
        """See Source.given; what lies below the slot's own place cannot be read any more."""
        server = postgres_slot.server(self._session)
        lsn, _, identifier = "".join(text.split()).partition("@")
        at = server.position(postgres_slot.lsn_of(Position(lsn)))
        position = Position(f"{lsn}@{identifier}") if identifier else at
        slot = postgres_slot.find(self._session, self._slot)
        if slot is None:
            raise SourceLost(
                f"found no replication slot {self._slot}, without which the server keeps nothing "
                f"of what came after {position}",
                hint="headwater position makes it",
            )
        postgres_slot.start_of(self._slot, slot, server, position)
        return at

    def keeps(self, position: Position) -> Keeps:
        """See Source.keeps; a slot holds WAL back until the server's limits say otherwise."""
        return postgres_keeps.keeps(self._session, self._slot, position)

    def beats(self) -> list[Beat]:
        """See Source.beats."""
        return self._beats.read()

    def now(self) -> tuple[Position, int]:
        """See Source.now; also writes one message to the log, so that an idle stream passes it."""
        lsn, clock = postgres_chunk.end(self._session)
        position = self._known_server(self._session).position(lsn)
        self._expect(self._session, position)
        return position, clock

    def close(self) -> None:
        """See Source.close."""
        if self._wal is not None:
            self._wal.close()
            self._wal = None
        self._session.close()
        self._readers.close()

    @property
    def _beats(self) -> Beats:
        return postgres_beats.of(self.name, self._session)

    def _beat(self, position: Position) -> tuple[int | None, Finding | None]:
        """Write a beat into every captured schema; its number, or why there is none."""
        schemas = sorted({table.schema for table in self.describe()})
        try:
            return self._beats.write(schemas, position), None
        except Misconfigured as error:
            grants = [f"GRANT CREATE ON SCHEMA {s} TO the source's user" for s in schemas]
            return None, refused(error, f"run: {'; '.join(grants)} (table {BEATS})")

    def _exported(self, server: postgres_slot.Server) -> Iterator[Noted | None]:
        """Prepare with a slot that has a snapshot; the publication comes before it, as ever."""
        plan = postgres_prepare.plan_tables(self._session, self._selection, self._publication)
        self._run(plan, dry_run=False)
        replication = conninfo(self._url, self.name, replication=True)
        with closing(postgres_export.exported(replication, self._slot)) as exports:
            for made in exports:
                yield made and Noted(position=server.position(made.lsn), snapshot=made.snapshot)

    def _run(self, statements: list[str], *, dry_run: bool) -> list[str]:
        if statements and self._read_only and not dry_run:
            raise Misconfigured(
                f"found {len(statements)} statements to run on {self.name}, and read_only = true",
                hint="have them run by somebody who may: " + "; ".join(statements),
            )
        if not dry_run:
            for statement in statements:
                self._session.query(statement)
        return statements

    def _look(self, relations: Relations) -> None:
        """Compare the catalog with what the log knows; what differs counts at the log's end."""
        catalog = postgres_catalog.names(self._session)
        relations.look(catalog, lambda: postgres_slot.lsn_of(self.now()[0]))

    def _expect(self, session: Session, position: Position) -> None:
        """Make the stream pass `position` at once, however idle the server is; where nothing may be
        written, as soon as somebody else writes, at the latest after some 15 s.
        """
        if not self._read_only:
            postgres_chunk.nudge(session)
        with self._expecting:
            self._expected = max(self._expected, postgres_slot.lsn_of(position))
            if self._assembler is not None:
                self._assembler.await_place(self._expected)

    def _known_server(self, session: Session) -> postgres_slot.Server:
        if self._server is None:
            self._server = postgres_slot.server(session)
        return self._server

    def _release(self, wal: Wal) -> None:
        """Close the connection and see the sender's process end, so that the slot is free after."""
        wal.close()
        with self._expecting:
            self._wal = self._assembler = None
        with suppress(HeadwaterError):
            self._session.query("SELECT pg_catalog.pg_terminate_backend(%s, 5000)", wal.pid)
