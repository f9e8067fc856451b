"""Positions in a MySQL or MariaDB binlog: GTID sets, GTID lists, or file and offset.

One flavour per server: it knows how to ask for the log's end, whether a position can be continued
from, how to request a dump there, and how groups of events advance it. A position moves only at the
end of a group, so that a GTID set has no holes but the server's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import pymysql

from capture.binlog import Event, Type, gtid, maria_gtid
from capture.binlog_gtid import GtidList, GtidSet
from schemas.change import Position
from schemas.errors import Misconfigured, SourceLost, Unsupported

_EMPTY = "nothing"
"""A log in which nothing was ever committed: a position is never the empty text."""


class Group(NamedTuple):
    """The begin of one group of events. gtid: its name ("" without GTIDs); committed_at: µs."""

    gtid: str
    committed_at: int
    is_standalone: bool


class Tracker(ABC):
    """A place in the log that events advance."""

    file = ""
    _pos = 0

    @abstractmethod
    def begin(self, event: Event) -> Group:
        """A group of events begins."""

    def end(self, event: Event) -> None:
        """The group is whole: its last event."""
        self._pos = event.end_pos

    @property
    @abstractmethod
    def position(self) -> Position:
        """After the last whole group."""

    @property
    def mark(self) -> str:
        """What a read must have seen to include the last whole group."""
        return str(self.position)


class Flavour(ABC):
    """How one kind of server names places in its log."""

    family: str

    @abstractmethod
    def now(self, cursor: Any) -> Position:
        """The log's end."""

    @abstractmethod
    def verify(self, cursor: Any, after: Position) -> None:
        """Raise SourceLost or Misconfigured unless the log can be continued exactly there."""

    @abstractmethod
    def request(self, after: Position) -> dict[str, Any]:
        """Arguments of python-mysql-replication for a dump from there."""

    @abstractmethod
    def tracker(self, after: Position) -> Tracker:
        """A place to advance from."""

    @abstractmethod
    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        """Whether a read that saw `seen` includes what has these marks."""

    @abstractmethod
    def reached(self, high: Position, position: Position) -> bool:
        """Whether `position` is at or past `high`."""


class Gtids(Flavour):
    """MySQL with GTIDs: what was executed, with its holes."""

    family = "mysql"

    def now(self, cursor: Any) -> Position:
        return _position(str(self._global(cursor, "gtid_executed")))

    def verify(self, cursor: Any, after: Position) -> None:
        held = _gtids(after)
        if not held <= self._global(cursor, "gtid_executed"):
            raise SourceLost(
                "found transactions in our position that the server never executed: it is another "
                "server, was restored from a backup, or its binlogs were reset",
                hint="check the source's URL; otherwise copy the tables anew",
            )
        if not self._global(cursor, "gtid_purged") <= held:
            raise SourceLost(
                "found that the server has purged binlogs our position still needs",
                hint="copy the tables anew, and raise binlog_expire_logs_seconds",
            )

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
        return {"auto_position": _text(after) or _Everything()}

    def tracker(self, after: Position) -> Tracker:
        return _GtidTracker(_gtids(after))

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        held = _gtids(Position(seen))
        return all(_gtids(Position(mark)) <= held for mark in marks[-1:])

    def reached(self, high: Position, position: Position) -> bool:
        return _gtids(high) <= _gtids(position)


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
        return _position(str(self._executed))


class MariaGtids(Flavour):
    """MariaDB: the last GTID of each domain. Marks are file and offset, as its snapshots are."""

    family = "mariadb"

    def now(self, cursor: Any) -> Position:
        return _position(str(self._end(cursor)))

    @staticmethod
    def _end(cursor: Any) -> GtidList:
        cursor.execute("SELECT @@global.gtid_binlog_pos")
        return GtidList(cursor.fetchone()[0] or "")

    def verify(self, cursor: Any, after: Position) -> None:
        if not _gtid_list(after) <= self._end(cursor):
            raise SourceLost(
                "found transactions in our position that are not in the server's binlog: it is "
                "another server, was restored from a backup, or its binlogs were reset",
                hint="check the source's URL; otherwise copy the tables anew",
            )

    def request(self, after: Position) -> dict[str, Any]:
        return {"auto_position": _text(after), "is_mariadb": True}

    def tracker(self, after: Position) -> Tracker:
        return _MariaTracker(_gtid_list(after))

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        return all(_is_past(seen, mark) for mark in marks[-1:])

    def reached(self, high: Position, position: Position) -> bool:
        return _gtid_list(high) <= _gtid_list(position)


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
        return _position(str(self._last))

    @property
    def mark(self) -> str:
        return f"{self.file}:{self._pos}"


class Files(Flavour):
    """MySQL without GTIDs: `file:offset`, and the server's identity where we noted it ourselves."""

    family = "mysql"

    def now(self, cursor: Any) -> Position:
        file, pos = _log_end(cursor)
        cursor.execute("SELECT @@server_uuid")
        return Position(f"{file}:{pos}@{cursor.fetchone()[0]}")

    def verify(self, cursor: Any, after: Position) -> None:
        file, pos, uuid = _file_pos(after)
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
        file, pos, _ = _file_pos(after)
        return {"log_file": file, "log_pos": pos, "resume_stream": True}

    def tracker(self, after: Position) -> Tracker:
        return _FileTracker(*_file_pos(after))

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        return True  # chunks are read FOR SHARE: they wait for what is in the log

    def reached(self, high: Position, position: Position) -> bool:
        return _is_past(position.partition("@")[0], high.partition("@")[0])


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


def _log_end(cursor: Any) -> tuple[str, int]:
    try:
        cursor.execute("SHOW BINARY LOG STATUS")  # MySQL 8.2 and later
    except pymysql.err.ProgrammingError:
        cursor.execute("SHOW MASTER STATUS")
    row = cursor.fetchone()
    if row is None:
        raise Misconfigured("found the binlog switched off", hint="start the server with --log-bin")
    return row[0], int(row[1])


def _position(text: str) -> Position:
    return Position(text or _EMPTY)


def _text(position: Position) -> str:
    return "" if position == _EMPTY else position


def _other_form(position: Position) -> Misconfigured:
    return Misconfigured(
        f"found a position of another form than this server's log has ({position[:60]})",
        hint="the server or its gtid_mode was changed: start anew with a first copy",
    )


def _gtids(position: Position) -> GtidSet:
    try:
        return GtidSet(_text(position))
    except ValueError as error:
        raise _other_form(position) from error


def _gtid_list(position: Position) -> GtidList:
    try:
        return GtidList(_text(position))
    except ValueError as error:
        raise _other_form(position) from error


def _file_pos(position: str) -> tuple[str, int, str]:
    place, _, uuid = position.partition("@")
    file, _, pos = place.rpartition(":")
    if not file or "," in file or not pos.isdigit() or not file.rpartition(".")[2].isdigit():
        raise _other_form(Position(position))
    return file, int(pos), uuid


def _is_past(seen: str, mark: str) -> bool:
    """Whether one `file:offset` is at or past another; files of other base names never are."""
    file, pos, _ = _file_pos(seen)
    other, other_pos, _ = _file_pos(mark)
    base, _, number = file.rpartition(".")
    other_base, _, other_number = other.rpartition(".")
    return base == other_base and (int(number), pos) >= (int(other_number), other_pos)
