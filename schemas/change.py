"""The values that travel: positions, rows, pieces, commits, batches.

Nothing here is per row but list entries: rows travel as parallel lists of wire bytes. A `Piece`
without a commit is the middle of a transaction and has no position: no type can express "the
middle" as a place to resume.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal, NamedTuple, NewType, Protocol

from schemas.table import Table

Position = NewType("Position", str)
"""A place in a source between two transactions; opaque outside its source, compared for equality
only.
"""

Offset = NewType("Offset", str)
"""A place in a log just after one accepted commit record; names the log's incarnation too."""

Progress = dict[str, Any]
"""First copies by table full name, and copies that were asked for (schemas/progress.py)."""


@dataclass(slots=True)
class Stamp:
    """What encoded rows carry besides their ordinal: the epoch of this capture, and a fresh run for
    each batch.

    held: (run, next ordinal) while several of a source's batches are to become one
    (capture/seeding.py).
    """

    epoch: int
    runs: Iterator[int] = field(default_factory=lambda: count(1))
    held: tuple[int, int] | None = None

    def draw(self) -> int:
        """A run number no other batch of this epoch has; call it at the first row of each batch."""
        return self.held[0] if self.held else next(self.runs)

    @property
    def first_ordinal(self) -> int:
        """The ordinal of a batch's first row: 0, unless the batch goes on from an earlier one."""
        return self.held[1] if self.held else 0


@dataclass(slots=True, kw_only=True)
class Rows:
    """One table's run of rows: parallel lists, row i has ops[i], ordinals[i], keys[i], values[i].

    ops: "c" "u" "d" "r" (first copy) "s" (seed: an identity that was there before the stream
    began). ordinals ascend within a batch and are unique over all its tables. keys and values are
    wire bytes (docs/wire.md). `partial`: some value may lack columns (unchanged TOAST).
    """

    table: Table
    ops: list[str]
    ordinals: list[int]
    keys: list[bytes]
    values: list[bytes]
    partial: bool = False

    def __len__(self) -> int:
        return len(self.ops)

    def at(self, indexes: Sequence[int]) -> "Rows":
        """The rows at these indexes, ascending."""
        return replace(
            self,
            ops=[self.ops[i] for i in indexes],
            ordinals=[self.ordinals[i] for i in indexes],
            keys=[self.keys[i] for i in indexes],
            values=[self.values[i] for i in indexes],
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values."""
        return sum(map(len, self.keys)) + sum(map(len, self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The end of one or more whole source transactions; resuming after `position` repeats and
    misses nothing.

    committed_at: the newest source commit in it, microseconds since 1970 UTC (None: nothing was
    committed, an idle beat). marks: what a later read of the source must have seen (the source's
    own form, see Source.sees). progress: the copies' state after this commit, None where it did not
    change. for_target: its rows are for this target alone. sweeps: see Sweep. check: its rows are
    compared with the target's at exactly this place, and not written.
    """

    position: Position
    committed_at: int | None
    transactions: int = 0
    origin: str | None = None
    marks: tuple[str, ...] = ()
    progress: Progress | None = None
    for_target: str | None = None
    sweeps: tuple["Sweep", ...] = ()
    check: bool = False


SweepWhat = Literal["begins", "ends", "given up"]


class Sweep(NamedTuple):
    """A copy of all the source's rows of `table` begins or ends with this commit: at its end a
    target deletes those of the source's rows that it was given neither by the copy nor by the
    stream since the beginning.

    number: names the copy. target: for whom, None for all. after, until: only rows whose identity,
    one whole number, lies there (None: no bound). check: such rows are counted, not deleted.
    """

    table: str
    number: str
    what: SweepWhat
    target: str | None = None
    after: int | None = None
    until: int | None = None
    check: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """All rows that came from this source's table are gone, at this place of the batch."""

    table: str
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of one batch. Pieces of a batch share `run`; the batch ends with the piece that has
    a commit.
    """

    run: int
    rows: tuple[Rows, ...] = ()
    truncates: tuple[Truncate, ...] = ()
    commit: Commit | None = None


class Batch(Protocol):
    """One accepted commit record and its rows, as a reader of the log gets it; or several that
    follow each other, as one (transport.log.Log.read).

    batches: how many. offset: where the next batch is asked for. from_position/position: the source
    positions it spans. batch: the number in the chain, the newest one's. progress: the copies'
    state at its end (schemas/progress.py). pending: full names of tables whose copy for this reader
    is not finished there: a partial row that the target lacks may be left to the chunk that is
    still to come. seeds: it holds identities (op "s") of rows that were there before the stream
    began. sweeps: copies of whole tables that begin or end. check: see Commit.
    """

    @property
    def offset(self) -> Offset: ...
    @property
    def batch(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def from_position(self) -> Position: ...
    @property
    def position(self) -> Position: ...
    @property
    def committed_at(self) -> int | None: ...
    @property
    def transactions(self) -> int: ...
    @property
    def row_count(self) -> int: ...
    @property
    def truncates(self) -> Sequence[Truncate]: ...
    @property
    def is_empty(self) -> bool: ...
    @property
    def seeds(self) -> bool: ...
    @property
    def progress(self) -> Progress: ...
    @property
    def pending(self) -> frozenset[str]: ...
    @property
    def sweeps(self) -> Sequence[Sweep]: ...
    @property
    def check(self) -> bool: ...

    def place(self, ordinal: int) -> tuple[int, int]:
        """The number in the chain and the ordinal there of a row with this ordinal here."""
        ...

    def blocks(self, max_rows: int = 20_000) -> Iterator[Sequence[Rows]]:
        """The rows in ordinal order, in blocks of at most `max_rows`, grouped by table inside a
        block (each table's rows ascend). May be called again. A truncate never falls inside a
        block: blocks are cut so that every row of a block is either below or above each truncate's
        ordinal. Raises LogTruncated when a span's count is not met exactly.
        """
        ...
