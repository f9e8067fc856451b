"""Binlog events -> pieces: what each event means, and where a batch is cut.

Events arrive in bulk from `Packets`; a batch ends at a group's end when it is full, or when nothing
more is waiting. Only whole groups move the position. No reconnection, no skipping of what is not
known.
"""

from collections.abc import Iterable, Iterator
from time import monotonic

import structlog

from capture import binlog, binlog_table
from capture.binlog import Event, Framing, Type
from capture.binlog_kinds import Charsets
from capture.binlog_packets import Packets, ServerError
from capture.mysql_batch import Batch, Mark, Origin
from capture.mysql_connection import explained
from capture.mysql_flavour import Tracker
from capture.mysql_statements import Meaning, Verdict, judge
from capture.mysql_tables import Described, Descriptions
from capture.resync import Resync
from schemas.change import Commit, Piece, Stamp
from schemas.codec import quote
from schemas.errors import Operator, Transient, Unsupported
from schemas.selection import Selection

LINGER_S = 0.001
"""How long nothing must arrive for the source to count as idle."""

MOVED_S = 0.05
"""The longest that changes wait while more keep coming, and how often a position is given out that
only other tables' changes have moved.
"""

BEAT_S = 1.0

log = structlog.get_logger()

_WRITES = (Type.WRITE_ROWS, Type.WRITE_ROWS_V1)
_UPDATES = (Type.UPDATE_ROWS, Type.UPDATE_ROWS_V1)
_DELETES = (Type.DELETE_ROWS, Type.DELETE_ROWS_V1)
_ROWS = frozenset((*_WRITES, *_UPDATES, *_DELETES))
_BEATS = (Type.HEARTBEAT, Type.HEARTBEAT_V2)


class BinlogStream:
    """One dump connection's events as pieces. Use `pieces` once."""

    def __init__(
        self,
        packets: Packets,
        tracker: Tracker,
        descriptions: Descriptions,
        resync: Resync,
        *,
        connector: str,
        source: str,
        selection: Selection,
        charsets: Charsets,
        stamp: Stamp,
        batch_rows: int,
        batch_bytes: int,
    ) -> None:
        self._packets, self._framing, self._tracker = packets, Framing(), tracker
        self._descriptions, self._charsets = descriptions, charsets
        self._resync = resync
        self._connector, self._source = connector, source
        self._selection = selection
        self._batch = Batch(stamp)
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self._maps: dict[int, Described | None] = {}
        self._in_group = self._in_transaction = self._has_rows = False
        self._group_at = 0
        self._savepoints: dict[str, Mark] = {}
        self._committed_at: int | None = None
        self._transactions = 0
        self._has_moved = False
        self._given_at = monotonic()

    def pieces(self) -> Iterator[Piece]:
        """Give pieces for ever; raises as capture/source.py says."""
        wait = BEAT_S
        while True:
            try:
                events = self._packets.receive(wait)
            except ServerError as error:
                raise self._explained(error) from error
            for raw in events:
                self._take(self._framing.event(raw))
                if self._in_group:
                    if self._batch.piece_is_full:
                        yield self._batch.piece()
                elif self._is_due():
                    yield self._cut()
                    self._given_at = monotonic()
            if not events and self._in_group:
                yield self._batch.piece()
            elif not events and self._has_to_give():
                yield self._cut()
                self._given_at = monotonic()
            wait = self._wait()

    def _is_due(self) -> bool:
        """Whether to cut at this group's end although more may be waiting.

        Time counts from when the last piece was taken: a slow log makes batches larger.
        """
        full = (
            self._batch.row_count >= self._batch_rows or self._batch.size_bytes >= self._batch_bytes
        )
        return full or monotonic() - self._given_at >= self._patience()

    def _has_to_give(self) -> bool:
        return not self._batch.is_empty or monotonic() - self._given_at >= self._patience()

    def _patience(self) -> float:
        return MOVED_S if self._has_moved else BEAT_S

    def _wait(self) -> float:
        """How long to wait for more before calling the source idle."""
        if self._in_group or self._packets.is_partial:
            return BEAT_S
        if not self._batch.is_empty:
            return LINGER_S
        return max(self._patience() - (monotonic() - self._given_at), LINGER_S)

    def _cut(self) -> Piece:
        """Everything up to the last whole group as the end of a batch."""
        commit = Commit(
            position=self._tracker.position,
            committed_at=self._committed_at,
            transactions=self._transactions,
            marks=(self._tracker.mark,) if self._transactions else (),
        )
        self._has_moved = False
        self._committed_at, self._transactions = None, 0
        return self._batch.piece(commit)

    def _take(self, event: Event) -> None:
        kind = event.kind
        if kind in _ROWS:
            self._rows(event)
        elif kind == Type.TABLE_MAP:
            self._table_map(event.body)
        elif kind in (Type.GTID, Type.MARIADB_GTID, Type.ANONYMOUS_GTID):
            self._begin(event)
        elif kind == Type.XID:
            self._end(event)
        elif kind == Type.QUERY:
            self._query(event)
        elif kind in _BEATS or kind in binlog.IGNORED:
            pass
        elif kind == Type.ROTATE:
            self._tracker.file = binlog.rotate(event.body).file
        elif kind == Type.FORMAT_DESCRIPTION:
            self._format(event)
        elif kind == Type.XA_PREPARE:
            self._xa_prepare(event)
        elif kind == Type.EXECUTE_LOAD_QUERY:
            self._query(event, load=True)
        else:
            raise binlog.refuse(kind)

    def _format(self, event: Event) -> None:
        # Table ids begin anew with each start of the server.
        self._maps.clear()
        if self._in_group and binlog.begins_after_crash(event.body):
            raise Transient("lost a transaction's end: the server was restarted inside it")

    def _begin(self, event: Event) -> None:
        if self._in_group:
            raise Unsupported(
                "found a transaction without an end in the binlog",
                hint="copy the tables anew; report it with the server's version",
            )
        group = self._tracker.begin(event)
        self._in_group, self._has_rows = True, False
        self._in_transaction = not group.is_standalone and event.kind == Type.MARIADB_GTID
        self._group_at = group.committed_at
        gtid = f',"gtid":{quote(group.gtid)}' if group.gtid else ""
        place = (
            f',"server_id":{event.server_id}{gtid}'
            f',"file":{quote(self._tracker.file)},"pos":{event.end_pos}'
        )
        self._savepoints = {"": self._batch.mark()}
        self._batch.begin(
            Origin(
                connector=self._connector,
                source=self._source,
                committed_at=group.committed_at,
                place=place,
            )
        )

    def _end(self, event: Event) -> None:
        self._tracker.end(event)
        self._has_moved = True
        self._in_group = self._in_transaction = False
        self._committed_at = max(self._committed_at or 0, self._group_at)
        self._transactions += self._has_rows

    def _table_map(self, body: bytes) -> None:
        schema, name = binlog_table.table_name(body)
        found = None
        if self._selection.wants(schema, name):
            try:
                found = self._descriptions.get(
                    body[8:], lambda: binlog_table.parse(body, self._connector)
                )
            except Operator as error:
                self._lose([(schema, name)], error)
        self._maps[binlog_table.table_id(body)] = found

    def _rows(self, event: Event) -> None:
        kind, body = event.kind, event.body
        head = binlog.rows_head(kind, body)
        try:
            found = self._maps[head.table_id]
        except KeyError:
            if head.table_id == 0xFFFFFF:
                return  # made up by the server to end a statement: holds no row
            raise Unsupported(
                "found rows without a description in the binlog",
                hint="copy the tables anew; report it with the server's version",
            ) from None
        if found is None:
            return
        if problem := _misfit(found, head):
            self._lose([(found.table.schema, found.table.name)], problem)
            return
        self._has_rows = True
        if kind in _UPDATES:
            self._batch.updates(found, body, head.start)
        else:
            self._batch.images(found, "c" if kind in _WRITES else "d", body, head.start)

    def _query(self, event: Event, *, load: bool = False) -> None:
        found = binlog.query(event.body, load=load)
        verdict = judge(
            self._text(found), found.database, self._selection.wants, self._descriptions.has_schema
        )
        meaning = verdict.meaning
        if meaning == Meaning.BEGIN:
            self._in_transaction = True
        elif meaning == Meaning.COMMIT:
            self._end(event)
        elif meaning == Meaning.SAVEPOINT:
            self._savepoints[verdict.table[1]] = self._batch.mark()
        elif meaning == Meaning.ROLLBACK_TO:
            self._roll_back(verdict.table[1])
        elif meaning == Meaning.ROLLBACK:
            self._roll_back("")
            self._has_rows = False
            self._end(event)
        elif meaning != Meaning.INSIDE:
            self._statement(verdict)
            if not self._in_transaction:
                self._end(event)

    def _text(self, found: binlog.Query) -> str:
        if found.collation is None or found.text.isascii():
            return found.text.decode("utf-8", "replace")
        try:
            return self._charsets(found.collation).decode(found.text)
        except UnicodeDecodeError:
            return found.text.decode("utf-8", "replace")

    def _roll_back(self, savepoint: str) -> None:
        """The server cuts rolled-back rows out of what it logs; where it cannot (temporary tables
        made inside the transaction), it logs the rows and then this.
        """
        mark = self._savepoints.get(savepoint)
        if self._has_rows and (mark is None or not self._batch.back_to(mark)):
            raise Unsupported(
                "found rows in the binlog that were rolled back after they had been passed on",
                hint="do not make temporary tables inside large transactions; copy the tables anew",
            )

    def _statement(self, verdict: Verdict) -> None:
        if verdict.meaning == Meaning.STOP:
            names = ", ".join(".".join(table) for table in verdict.tables)
            self._lose(
                verdict.tables,
                Unsupported(
                    f"found that somebody {verdict.why} {names}, which the rows in the binlog do "
                    "not show"
                ),
            )
            return
        if verdict.meaning == Meaning.TRUNCATE:
            self._batch.truncate(".".join(verdict.table))
            self._has_rows = True
            return
        if verdict.touches:
            self._descriptions.altered()
            if verdict.meaning == Meaning.UNKNOWN:
                log.warning("statement_not_recognised", position=self._tracker.position)

    def _lose(self, tables: Iterable[tuple[str, str]], problem: Operator) -> None:
        """Take what the rows do not show as the loss of all rows, which a first copy brings anew;
        raises where none does.
        """
        for name in self._resync.emptied(tables, problem):
            self._batch.truncate(name)
        self._has_rows = True
        self._descriptions.altered()

    def _xa_prepare(self, event: Event) -> None:
        if self._has_rows and not binlog.xa_is_committed(event.body):
            raise Unsupported(
                "found an XA transaction with captured rows, prepared but not committed",
                hint="XA transactions are not supported yet: commit without XA, then copy the "
                "tables anew",
            )
        self._end(event)

    def _explained(self, error: ServerError) -> Exception:
        ours = explained(error.code, error.message, "read the binlog")
        return ours or Transient(f"lost the binlog ({error.code}: {error.message})")


def _misfit(found: Described, head: binlog.RowsHead) -> Unsupported | None:
    """Why rows cannot be read by their description."""
    name = found.table.full_name
    if not head.is_complete:
        return Unsupported(
            f"found rows of {name} that lack columns in the binlog",
            hint="run: SET GLOBAL binlog_row_image = FULL, also in sessions that set it",
        )
    if head.column_count != found.column_count:
        return Unsupported(
            f"found rows of {name} with {head.column_count} columns, "
            f"described with {found.column_count}"
        )
    return None
