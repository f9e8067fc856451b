"""Making, checking and opening a log file, and what SQLite's errors mean to us."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from struct import unpack
from uuid import uuid4

from schemas.errors import HeadwaterError, LogReplaced, Misconfigured, Operator, Transient

APPLICATION = 0x48645772
"""`HdWr` in the file's header: https://sqlite.org/fileformat.html#application_id."""
FORMAT = 1
PAGE_BYTES = 16_384
"""Measured: a million rows take a quarter less processor time than with 4,096."""
BUSY_MS = 30_000
"""How long a writer waits for another; transactions here take milliseconds."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the log file, made first where there is none.

    Raises Operator, before the file is touched, for one that is no log or a newer version's.
    """
    with mapped(path):
        if not path.exists():
            _make(path)
        _check(path)
        db = sqlite3.connect(
            path, isolation_level=None, timeout=BUSY_MS / 1000, check_same_thread=False
        )
        db.execute(f"PRAGMA wal_autocheckpoint = {(16 << 20) // PAGE_BYTES}")
        db.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        return db


def _make(path: Path) -> None:
    """Make the whole file aside and link it to its name: two processes may do so at once."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        db = sqlite3.connect(aside, isolation_level=None)
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(
            "CREATE TABLE headwater_streams"
            " (source TEXT PRIMARY KEY, incarnation TEXT NOT NULL) STRICT"
        )
        db.close()
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _check(path: Path) -> None:
    """Read the header alone: asking SQLite could already write beside the file."""
    header = _header(path)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise Operator(f"found that {path} is not a log file", hint=OTHER)
    version, application = unpack(">I4xI", header[60:72])
    if application != APPLICATION:
        raise Operator(f"found that {path} belongs to another program", hint=OTHER)
    if version > FORMAT:
        raise Operator(
            f"found that {path} was made by a newer version (format {version}, not {FORMAT})",
            hint="install that version of headwater",
        )


def _header(path: Path) -> bytes:
    """The first 100 bytes, by a descriptor that stays open as long as this process.

    Closing it would end every lock that this process holds on the file by any other connection:
    https://sqlite.org/howtocorrupt.html#posix_close_bug. One for each file, so never many.
    """
    known = os.stat(path)
    inode = known.st_dev, known.st_ino
    if inode not in _headers:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _headers[inode] = os.open(path, os.O_RDONLY)
    return os.pread(_headers[inode], 100, 0)


_headers: dict[tuple[int, int], int] = {}

OTHER = "name another file as the log, or restore this one from a backup"


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours; what is not known stays as it is."""
    try:
        yield
    except OSError as error:
        raise Misconfigured(
            f"could not open the log file {path}: {error.strerror}",
            hint="check the path and its permissions",
        ) from error
    except sqlite3.Error as error:
        known = _error(path, getattr(error, "sqlite_errorname", None) or "", str(error))
        if known is None:
            raise
        raise known from error


def _error(path: Path, name: str, text: str) -> HeadwaterError | None:
    """The meaning of an error by SQLite's name for it: https://sqlite.org/rescode.html."""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Transient(f"waited {BUSY_MS // 1000} s for another writer of {path}")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Operator(f"found {path} damaged", hint=OTHER)
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return Misconfigured(
            f"could not open the log file {path} for writing",
            hint="check the path and its permissions, and those of its folder",
        )
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return Operator(
            f"could not write the log file {path}: {text}",
            hint="free space on its disk or check the disk, then start again",
        )
    if "no such table" in text:
        return dropped(path)
    return None


def dropped(path: Path) -> LogReplaced:
    """The error of a log that is gone from its file."""
    return LogReplaced(
        f"found that the log was dropped from {path} while it was in use",
        hint="rebuild the target; a capture starts over with a new first copy",
    )
