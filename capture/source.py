"""The seam to a source database: an ordered sequence of transactions, each ending at a position."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.beat import Beat
from schemas.change import Piece, Position, Progress, Stamp
from schemas.codec import Envelope, Wire, columns
from schemas.finding import Finding
from schemas.ranges import Compared, SourceRanges
from schemas.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows of one table as one read saw them, in paging order: parallel lists.

    keys: wire keys. values: whole envelopes (op "r") whose ordinals are their places here. after,
    until: it holds every row of (after, until], as JSON-serialisable keys of the source's paging
    order; None: from the table's beginning, to its end. next_key: the `after` of the next chunk,
    None when the end of what was asked for was reached. seen: what the read could see (see
    Source.sees). high: the log's end, noted after the read. read_at: microseconds since 1970 UTC,
    the source's clock. size_bytes: of keys and values.
    """

    table: Table
    keys: list[bytes]
    values: list[bytes]
    after: Any
    until: Any
    next_key: Any
    seen: str
    high: Position
    read_at: int
    size_bytes: int

    def source_keys(self) -> list[Wire]:
        """Each row's primary key where it is one column, else nothing."""
        if len(self.table.primary_key) != 1:
            return []
        (keys,) = columns(self.values, self.table.primary_key)
        return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A position for a dump that is taken from now on: a capture that begins there misses nothing
    that the dump does not have.

    snapshot: the name of exactly this moment, for a dump's tool; None where the source has none.
    beat: the number of the beat that a dump begun from now on holds (schemas/beat.py), None where
    none was written. findings: what a person should know before relying on it.
    """

    position: Position
    snapshot: str | None = None
    beat: int | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeps:
    """What a source keeps of its log for a capture that stands at a position.

    keeps_s: how long, None where time does not end it. held_bytes: how much it holds back for us;
    spare_bytes: how much may still be written before it lets go of that; None where nothing says.
    findings: what is lost already, or soon.
    """

    keeps_s: float | None = None
    held_bytes: int | None = None
    spare_bytes: int | None = None
    findings: tuple[Finding, ...] = ()


class Source(Protocol):
    """One database's log and tables. Implementations raise schemas.errors only (and programming
    errors).
    """

    name: str

    @property
    def connector(self) -> str:
        """The server's family as envelopes name it; known after the first connection at latest."""
        ...

    def stream(
        self, after: Position | None, stamp: Stamp, progress: Progress | None = None
    ) -> Iterator[Piece]:
        """Give every committed change of the selected tables after `after`, in commit order.

        A batch (all pieces up to one with a commit) is cut at a source commit once it holds
        batch_rows or batch_bytes, and at once when the source is idle; pieces inside stay below a
        few MB, so memory is bounded whatever the transaction. The first piece is an empty commit at
        the starting position: `after`, or now. Yields at least once a second: an empty commit when
        idle (position may have moved). Raises SourceLost when the source cannot continue exactly
        there; Transient when the connection goes. Never reconnects. Closing the iterator closes the
        connection.

        progress: the first copies' state at `after`. A source that must know a table again by more
        than its name keeps that there ("oid"): as it stands when a commit is given out, it belongs
        to that commit.
        """
        ...

    def ack(self, position: Position) -> None:
        """Let the source forget everything up to `position`; called only with what the log has
        accepted.
        """
        ...

    def describe(self) -> Sequence[Table]:
        """The selected tables as the catalog has them now, ordered by full name.

        Raises Unsupported naming the first column whose type cannot be carried, Misconfigured where
        a table has no identity.
        """
        ...

    def chunk(
        self, table: Table, after: Any, limit: int, *, until: Any = None, epoch: int, run: int
    ) -> Chunk:
        """Read the rows of (after, until], at most `limit`, in one short read-only transaction.

        This and the next three may be called from several threads at once.
        """
        ...

    def chunk_of(self, table: Table, identities: Sequence[bytes], *, epoch: int, run: int) -> Chunk:
        """Read the rows whose identity equals one of these wire keys, as the source compares them,
        in one short read-only transaction; in no order. What has no row is not in the chunk, which
        stands for no range: after, until and next_key are None.
        """
        ...

    def boundary(self, table: Table, after: Any, rows: int, *, until: Any = None) -> Any:
        """The key of the `rows`-th row of (after, until], by which several readers share a table;
        None where there are fewer. Reads the index only.
        """
        ...

    def estimate(self) -> Mapping[str, int]:
        """By full name, how many rows the server believes each selected table to have; for
        progress and time left, never for anything that must be right.
        """
        ...

    def visible(self) -> str:
        """What a read that begins now would see, as Chunk.seen says it."""
        ...

    def ranges(self, compared: Compared) -> SourceRanges:
        """The table's rows by ranges of their identity, for verify; closed by the caller."""
        ...

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        """Whether a read that saw `seen` includes every streamed commit with these marks
        (Commit.marks).
        """
        ...

    def reached(self, high: Position, position: Position) -> bool:
        """Whether a stream that stands at `position` has passed `high`."""
        ...

    def shown(self, position: Position) -> Callable[[], bool]:
        """A question to ask again until it is true: whether reads that begin now see every commit
        up to `position`, which a target has applied. A commit may be in the log before any read
        sees it; how long depends on others (a standby that is waited for).
        """
        ...

    def check(self) -> list[Finding]:
        """Preflight: everything that would lose data or stop the capture, without changing
        anything.
        """
        ...

    def prepare(self, *, dry_run: bool = False) -> list[str]:
        """Set up what the source needs (PostgreSQL: publication, replica identity, slot);
        idempotent. The statements.
        """
        ...

    def drop(self, *, dry_run: bool = False) -> list[str]:
        """Remove everything `prepare` or the capture made in the source; the statements."""
        ...

    def note(self, *, hold: bool, beat: bool = True) -> Generator[Noted | None, None, None]:
        """A position for a dump that is taken from now on (see Noted); sets up what that needs.

        beat: write one where no snapshot is offered; what hinders it is a finding.
        hold: offer a snapshot where the source can. It lives as long as the iterator, which then
        gives the same value about once a second; else the iterator ends after one. None about once
        a second while the source has to wait for transactions that run there. Raises Transient when
        the snapshot is lost.
        """
        ...

    def given(self, text: str) -> Position:
        """The position that a person names by `text`, in this source's own form.

        Raises Misconfigured where it is no position of such a server, SourceLost where the source
        does not hold everything after it, or never was there. Nothing is changed.
        """
        ...

    def keeps(self, position: Position) -> Keeps:
        """What is still there for a capture that goes on at `position`; nothing is changed."""
        ...

    def beats(self) -> list[Beat]:
        """The beats of this source that stand in it, by number."""
        ...

    def now(self) -> tuple[Position, int]:
        """The log's end and the server's clock (microseconds since 1970 UTC); for status and for
        fencing verify.
        """
        ...

    def close(self) -> None:
        """Close every connection; idempotent."""
        ...


def envelopes(source: Source, table: Table, *, epoch: int, run: int) -> Callable[[int], Envelope]:
    """The envelopes of a copy's rows, given when they were read (microseconds since 1970 UTC)."""
    return lambda read_at: Envelope(
        table,
        connector=source.connector,
        source=source.name,
        epoch=epoch,
        run=run,
        committed_at=read_at,
        snapshot=True,
    )
