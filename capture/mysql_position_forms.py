"""The text of positions in a MySQL or MariaDB binlog, and the errors that speak of them."""

from capture.binlog_gtid import GtidList, GtidSet
from schemas.change import Position
from schemas.errors import Misconfigured, SourceLost

_EMPTY = "nothing"
"""A log in which nothing was ever committed: a position is never the empty text."""


def foreign() -> SourceLost:
    """The error for a position that is ahead of the server."""
    return SourceLost(
        "found transactions in our position that are not in the server's binlog: it is another "
        "server, was restored from a backup, or its binlogs were reset",
        hint="check the source's URL; otherwise copy the tables anew",
    )


def purged() -> SourceLost:
    """The error for a position that the server is beyond."""
    return SourceLost(
        "found that the server has purged binlogs our position still needs",
        hint="copy the tables anew, and raise binlog_expire_logs_seconds",
    )


def position_of(text: str) -> Position:
    """A set or list of GTIDs as a position."""
    return Position(text or _EMPTY)


def text_of(position: Position) -> str:
    """The inverse of `position_of`."""
    return "" if position == _EMPTY else position


def other_form(position: Position) -> Misconfigured:
    """The error for a position of another kind of log."""
    return Misconfigured(
        f"found a position of another form than this server's log has ({position[:60]})",
        hint="headwater position prints one of this server's form; a log that stands at another "
        "was made before the server or its gtid_mode was changed: start anew with a first copy",
    )


def gtid_set(position: Position) -> GtidSet:
    """MySQL's form; raises `other_form`."""
    try:
        return GtidSet(text_of(position))
    except ValueError as error:
        raise other_form(position) from error


def gtid_list(position: Position) -> GtidList:
    """MariaDB's form; raises `other_form`."""
    try:
        return GtidList(text_of(position))
    except ValueError as error:
        raise other_form(position) from error


def file_pos(position: str) -> tuple[str, int, str]:
    """File, offset and the server's UUID, empty where it is not noted; raises `other_form`."""
    place, _, uuid = position.partition("@")
    file, _, pos = place.rpartition(":")
    if not file or "," in file or not pos.isdigit() or not file.rpartition(".")[2].isdigit():
        raise other_form(Position(position))
    return file, int(pos), uuid


def is_past(seen: str, mark: str) -> bool:
    """Whether one `file:offset` is at or past another; files of other base names never are."""
    file, pos, _ = file_pos(seen)
    other, other_pos, _ = file_pos(mark)
    base, _, number = file.rpartition(".")
    other_base, _, other_number = other.rpartition(".")
    return base == other_base and (int(number), pos) >= (int(other_number), other_pos)
