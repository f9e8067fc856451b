"""Positions in a MySQL or MariaDB binlog: GTID sets, GTID lists, or file and offset.

One flavour for each (contract: capture/mysql_flavour.py).
"""

from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep
from typing import Any

import pymysql

from capture.binlog import Event, Type, gtid, maria_gtid
from capture.binlog_gtid import GtidList, GtidSet
from capture.mysql_connection import log_end
from capture.mysql_flavour import Flavour, Group, Tracker
from capture.mysql_position_forms import (
    file_pos,
    foreign,
    gtid_list,
    gtid_set,
    is_past,
    position_of,
    purged,
    text_of,
)
from schemas.change import Position
from schemas.errors import Misconfigured, SourceLost, Transient, Unsupported
from schemas.finding import Finding

SEEN_WITHIN_S = 10.0
"""So long a commit may be on its way from the binlog into the engine."""

_FIRST = 4
"""The offset of a binlog's first event."""

_WRONG_OFFSET = 1220
_BETWEEN_GROUPS = {"Format_desc", "Previous_gtids", "Anonymous_Gtid", "Gtid", "Rotate", "Stop"}
"""Events that stand outside of a group, or begin one."""


class Gtids(Flavour):
    """MySQL with GTIDs: what was executed, with its holes."""

    family = "mysql"

    def now(self, cursor: Any) -> Position:
        return position_of(str(self._global(cursor, "gtid_executed")))

    def given(self, cursor: Any, text: str) -> Position:
        position = position_of(str(gtid_set(Position(text))))
        self.verify(cursor, position)
        return position

    def verify(self, cursor: Any, after: Position) -> None:
        held = gtid_set(after)
        if not held <= self._global(cursor, "gtid_executed"):
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_wait_sessions'")
            waiting = cursor.fetchone()
            if waiting and int(waiting[1]):
                raise Transient(
                    "found a commit in our position that still waits for the server's replica",
                    hint="it is executed once the replica answers, or the server waits no longer",
                )
            raise SourceLost(
                "found transactions in our position that the server never executed: it is another "
                "server, was restored from a backup, or its binlogs were reset",
                hint="check the source's URL; otherwise copy the tables anew",
            )
        if not self._global(cursor, "gtid_purged") <= held:
            raise purged()

    @staticmethod
    def _global(cursor: Any, name: str) -> GtidSet:
        cursor.execute(f"SELECT @@global.{name}")
        text = cursor.fetchone()[0]
        try:
            return GtidSet(text)
        except ValueError as error:
            raise Misconfigured(
                f"found tagged GTIDs in {name}, which are not supported yet",
                hint="use GTIDs without tags on this server",
            ) from error

    def request(self, after: Position) -> dict[str, Any]:
        return {"auto_position": text_of(after) or _Everything()}

    def tracker(self, after: Position) -> Tracker:
        return _GtidTracker(gtid_set(after))

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        held = gtid_set(Position(seen))
        return all(gtid_set(Position(mark)) <= held for mark in marks[-1:])

    def reached(self, high: Position, position: Position) -> bool:
        return gtid_set(high) <= gtid_set(position)

    def shown(self, cursor: Any, position: Position) -> Callable[[Any], bool]:
        """What was executed is what reads see."""
        return lambda cursor: self.reached(position, self.now(cursor))


class _Everything(list[str]):
    """An empty set that is true: python-mysql-replication takes a false one for "no GTIDs"."""

    def __bool__(self) -> bool:
        return True


class _GtidTracker(Tracker):
    def __init__(self, executed: GtidSet) -> None:
        self._executed = executed
        self._open: tuple[str, int] | None = None

    def begin(self, event: Event) -> Group:
        if event.kind == Type.ANONYMOUS_GTID:
            raise Unsupported(
                "found a transaction without a GTID, whose place could not be resumed from",
                hint="run: SET GLOBAL gtid_mode = ON, and copy the tables anew",
            )
        found = gtid(event.body)
        self._open = (found.uuid, found.number)
        at = found.committed_at or event.at * 1_000_000
        return Group(f"{found.uuid}:{found.number}", at, False)

    def end(self, event: Event) -> None:
        super().end(event)
        if self._open is not None:
            self._executed.add(*self._open)
            self._open = None

    @property
    def position(self) -> Position:
        return position_of(str(self._executed))


class MariaGtids(Flavour):
    """MariaDB: the last GTID of each domain. Marks are file and offset, as its snapshots are."""

    family = "mariadb"

    def now(self, cursor: Any) -> Position:
        return position_of(str(self._end(cursor)))

    @staticmethod
    def _end(cursor: Any) -> GtidList:
        cursor.execute("SELECT @@global.gtid_binlog_pos")
        return GtidList(cursor.fetchone()[0] or "")

    def noted(self, cursor: Any) -> Position:
        """The binlog's end, once reads see all of it: a commit is there first, in the engine then.

        BINLOG_GTID_POS does not tell what a snapshot's own place is: behind an event larger than
        max_allowed_packet it gives NULL (10.11).
        """
        position, (file, pos) = self.now(cursor), log_end(cursor)
        give_up = monotonic() + SEEN_WITHIN_S
        while self._seen(cursor) < (len(file), file, pos):
            if monotonic() > give_up:
                raise Transient(
                    "found a commit in the binlog that no read sees yet",
                    hint="see what it waits for (SHOW PROCESSLIST), then note a position again",
                )
            sleep(0.01)
        return position

    @staticmethod
    def _seen(cursor: Any) -> tuple[int, str, int]:
        """How far into the binlog a snapshot sees that begins now."""
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        cursor.execute("SHOW STATUS LIKE 'binlog_snapshot_%'")
        status = {name.lower(): value for name, value in cursor.fetchall()}
        cursor.execute("COMMIT")
        file = status["binlog_snapshot_file"]
        return len(file), file, int(status["binlog_snapshot_position"])

    @staticmethod
    def _at(cursor: Any, file: str, pos: int) -> GtidList:
        cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", (file, pos))
        text = cursor.fetchone()[0]
        if text is None:
            raise Transient(f"found the binlog {file} purged while a place in it was asked for")
        return GtidList(text)

    def given(self, cursor: Any, text: str) -> Position:
        """The server itself would look for a purged or foreign place only when it is asked for the
        dump.
        """
        held = gtid_list(Position(text))
        position = position_of(str(held))
        self.verify(cursor, position)
        cursor.execute("SELECT @@global.gtid_binlog_state")
        if not held.is_within(cursor.fetchone()[0] or ""):
            raise foreign()
        cursor.execute("SHOW BINARY LOGS")
        oldest = cursor.fetchone()[0]
        if not self._at(cursor, oldest, _FIRST) <= held:
            raise purged()
        return position

    def verify(self, cursor: Any, after: Position) -> None:
        if not gtid_list(after) <= self._end(cursor):
            raise foreign()

    def request(self, after: Position) -> dict[str, Any]:
        return {"auto_position": text_of(after), "is_mariadb": True}

    def tracker(self, after: Position) -> Tracker:
        return _MariaTracker(gtid_list(after))

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        return all(is_past(seen, mark) for mark in marks[-1:])

    def reached(self, high: Position, position: Position) -> bool:
        return gtid_list(high) <= gtid_list(position)

    def shown(self, cursor: Any, position: Position) -> Callable[[Any], bool]:
        """A snapshot says how far into the binlog it sees; no target is ahead of the binlog."""
        file, pos = log_end(cursor)
        return lambda cursor: self._seen(cursor) >= (len(file), file, pos)


class _MariaTracker(Tracker):
    def __init__(self, last: GtidList) -> None:
        self._last = last
        self._open: tuple[int, int, int] | None = None

    def begin(self, event: Event) -> Group:
        found = maria_gtid(event.body)
        self._open = (found.domain, event.server_id, found.number)
        name = f"{found.domain}-{event.server_id}-{found.number}"
        return Group(name, event.at * 1_000_000, found.is_standalone)

    def end(self, event: Event) -> None:
        super().end(event)
        if self._open is not None:
            self._last.add(*self._open)
            self._open = None

    @property
    def position(self) -> Position:
        return position_of(str(self._last))

    @property
    def mark(self) -> str:
        return f"{self.file}:{self._pos}"


class Files(Flavour):
    """MySQL without GTIDs: `file:offset`, and the server's identity where we noted it ourselves."""

    family = "mysql"

    def now(self, cursor: Any) -> Position:
        file, pos = log_end(cursor)
        cursor.execute("SELECT @@server_uuid")
        return Position(f"{file}:{pos}@{cursor.fetchone()[0]}")

    def cautions(self) -> Iterator[Finding]:
        yield Finding(
            where="gtid_mode",
            problem="is off: a commit that is on its way stands before this position, and a dump "
            "that begins in the same moment may lack it",
            fix="use the position that mysqldump --single-transaction --source-data=2 writes",
            refused=False,
        )

    def given(self, cursor: Any, text: str) -> Position:
        """An offset is only a number: it must be where a group of events begins."""
        file, pos, uuid = file_pos("".join(text.split()))
        cursor.execute("SELECT @@server_uuid")
        position = Position(f"{file}:{pos}@{uuid or cursor.fetchone()[0]}")
        self.verify(cursor, position)
        try:
            cursor.execute("SHOW BINLOG EVENTS IN %s FROM %s LIMIT 1", (file, pos))
            event = cursor.fetchone()
        except pymysql.err.MySQLError as error:
            if error.args[0] != _WRONG_OFFSET:
                raise
            event = (file, pos, "")
        if event is not None and (event[1] != pos or event[2] not in _BETWEEN_GROUPS):
            raise Misconfigured(
                f"found no beginning of a transaction at {file}:{pos}",
                hint="use a position that headwater position or the dump's tool has written",
            )
        return position

    def verify(self, cursor: Any, after: Position) -> None:
        file, pos, uuid = file_pos(after)
        cursor.execute("SELECT @@server_uuid")
        found = cursor.fetchone()[0]
        if uuid and uuid != found:
            raise SourceLost(
                f"found another server than our position is of ({found}, not {uuid})",
                hint="check the source's URL; otherwise copy the tables anew",
            )
        cursor.execute("SHOW BINARY LOGS")
        sizes = {row[0]: int(row[1]) for row in cursor.fetchall()}
        if file not in sizes:
            base = file.rpartition(".")[0]
            renamed = not any(name.rpartition(".")[0] == base for name in sizes)
            raise SourceLost(
                f"found no binlog {file} on the server"
                + (": its binlogs have another base name now" if renamed else ""),
                hint="copy the tables anew"
                + ("" if renamed else ", and raise binlog_expire_logs_seconds"),
            )
        if pos > sizes[file]:
            raise SourceLost(
                f"found that {file} ends at {sizes[file]}, before our position {pos}",
                hint="the binlogs were reset or restored: copy the tables anew",
            )

    def request(self, after: Position) -> dict[str, Any]:
        file, pos, _ = file_pos(after)
        return {"log_file": file, "log_pos": pos, "resume_stream": True}

    def tracker(self, after: Position) -> Tracker:
        return _FileTracker(*file_pos(after))

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        return True  # chunks are read FOR SHARE: they wait for what is in the log

    def reached(self, high: Position, position: Position) -> bool:
        return is_past(position.partition("@")[0], high.partition("@")[0])


class _FileTracker(Tracker):
    def __init__(self, file: str, pos: int, uuid: str) -> None:
        self.file, self._pos, self._uuid = file, pos, uuid
        self._at = (file, pos)

    def begin(self, event: Event) -> Group:
        found = gtid(event.body)
        return Group("", found.committed_at or event.at * 1_000_000, False)

    def end(self, event: Event) -> None:
        super().end(event)
        self._at = (self.file, event.end_pos)

    @property
    def position(self) -> Position:
        file, pos = self._at
        return Position(f"{file}:{pos}" + (f"@{self._uuid}" if self._uuid else ""))


def detect(cursor: Any) -> Flavour:
    """The flavour of the server behind `cursor`; raises Misconfigured for a mode between two."""
    cursor.execute("SELECT VERSION()")
    if "mariadb" in cursor.fetchone()[0].lower():
        return MariaGtids()
    cursor.execute("SELECT @@global.gtid_mode")
    mode = cursor.fetchone()[0]
    if mode == "ON_PERMISSIVE":
        raise Misconfigured(
            "found gtid_mode = ON_PERMISSIVE, under which transactions without a GTID may come",
            hint="run: SET GLOBAL gtid_mode = ON",
        )
    return Gtids() if mode == "ON" else Files()
