"""The seam to the log. Which records count is decided by transport/chain.py alone, for every
implementation.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from schemas.change import Batch, Offset, Piece, Position, Progress, Rows, Stamp
from schemas.table import Table
from transport.asked import Asked
from transport.history import History
from transport.record import Request


class Opened(NamedTuple):
    """A claimed log: what rows are stamped with, where the accepted chain ends, and the state of
    its copies.
    """

    stamp: Stamp
    position: Position | None
    progress: Progress


class Reader(NamedTuple):
    """Who last read a log as some target: the session that it noted, and when (microseconds since
    1970 UTC, a clock of its side).
    """

    session: str
    at: int


class Kept(NamedTuple):
    """What a log still holds. since, until: when its oldest and its newest record were stored;
    needed: when the first one after a reader's place was, None where nothing follows: microseconds
    since 1970 UTC, the clock that retention goes by. keeps_s: how long records are kept at least,
    keeps_bytes: the size by which they may go earlier (Kafka: of a partition); None: without end.
    """

    since: int | None
    until: int | None
    needed: int | None
    keeps_s: float | None
    keeps_bytes: int | None = None


class Log(Protocol):
    """One source's stream in a log: one writer at a time (fenced by epochs), many readers."""

    def open(self) -> Opened:
        """Claim the log for writing. Every reopen is a new claim; raises Fenced if another capture
        was faster.
        """
        ...

    def append(self, piece: Piece) -> None:
        """Queue rows; with the piece's commit, the commit record follows once every row is held
        durably.

        May block while the queue is full (a stalled broker is back-pressure). One failed row fails
        the batch before its commit record: raises Transient, after which the log must be opened
        anew. An empty commit whose position and progress are those of the last record is written at
        most every ten seconds. Table descriptions are durable before their first row.
        """
        ...

    def accepted(self) -> Position | None:
        """The newest position of this capture that came back through the chain: what may be
        acknowledged.

        Does not block. Raises Fenced when a newer epoch came back.
        """
        ...

    def flush(self) -> Position | None:
        """Wait until everything appended came back accepted; its position."""
        ...

    def requests(self) -> list[Asked]:
        """What was asked of the capture since the last call, as far as it was read back, in order;
        after `open` also what no record has taken in yet.
        """
        ...

    def ask(self, request: Request) -> int:
        """Put a request into the log, durably; its number. Any process may, without a claim."""
        ...

    def read(
        self,
        after: Offset | None,
        *,
        follow: bool = True,
        together: int = 0,
        target: str | None = None,
        until: int | None = None,
    ) -> Iterator[Batch | None]:
        """Give the accepted batches after `after` (None: from the oldest trusted record), whole, in
        order.

        target: for whom; what is for another one alone is given as a batch without rows (None: all
        is given).

        together: batches that wait already may come as one of up to so many rows, as if the capture
        had cut it so; but never with one that has seeds or truncates.
        until: end after the batch of this number.
        None is given about once a second while there is nothing new; without `follow` the iterator
        ends there instead. Raises LogReplaced when `after` is of another log, LogTruncated when it
        is no longer retained or a batch is not whole, Operator at a rebase link.
        """
        ...

    def span(self) -> tuple[Offset, Offset] | None:
        """Offsets before the oldest batch that can be read, and after the newest; None while there
        is none.
        """
        ...

    def kept(self, after: Offset | None) -> Kept:
        """What is still held, also of what a reader at `after` needs (None: one that begins).

        Raises as `read` does where that is held no more.
        """
        ...

    def described(self) -> list[Table]:
        """Every description that the log holds, in the order in which it got them."""
        ...

    def history(self, target: str, until: int | None = None) -> History:
        """What the accepted records say that the log holds for this target, up to the batch `until`
        (None: its end).
        """
        ...

    def scan(self, first: Mapping[str, int], until: int) -> Iterator[Rows]:
        """The rows of each table of `first` from that batch on, up to the batch `until`, in any
        order; seeds are left out. Ordinals have the batch's number above PLACE_BITS.

        Where the log keeps only the newest row of each key (History.compacted): at least that one;
        a tombstone is a "d" without a value, and op "?" says that a row which does not count may
        have taken the place of the key's newest. Raises LogTruncated when a row is missing.
        """
        ...

    def reader(self, target: str) -> Reader | None:
        """Who last noted to read as this target; None: nobody, or it is forgotten."""
        ...

    def read_by(self, target: str, session: str | None, at: Offset | None = None) -> None:
        """Note a session that reads as this target, and where it stands; None: nobody does."""
        ...

    def drop(self) -> list[str]:
        """Delete the source's topics or tables from the log; what was deleted."""
        ...

    def close(self) -> None:
        """Give back connections and files; idempotent."""
        ...
