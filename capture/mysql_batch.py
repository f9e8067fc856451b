"""The batch that a binlog stream is filling: rows by table, pieces, and when it is full."""

from dataclasses import dataclass
from typing import NamedTuple

from capture.mysql_paging import refuse_null
from capture.mysql_tables import Described
from schemas.change import Commit, Piece, Rows, Stamp, Truncate
from schemas.codec import Envelope

PIECE_BYTES = 2 << 20
PIECE_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the rows of one source transaction say of it: see codec.Envelope."""

    connector: str
    source: str
    committed_at: int
    place: str


class Mark(NamedTuple):
    """A place inside a batch: pieces given, next ordinal (None: the first), rows by table,
    truncates.
    """

    pieces: int
    ordinal: int | None
    sizes: dict[str, int]
    truncates: int


class Batch:
    """Rows since the last cut. Pieces leave it early; the run and the ordinals go on."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._run: int | None = None
        self._ordinal = 0
        self._origin = Origin(connector="", source="", committed_at=0, place="")
        self._rows: dict[str, Rows] = {}
        self._envelopes: dict[str, Envelope] = {}
        self._truncates: list[Truncate] = []
        self._piece_bytes = self._piece_rows = self._pieces = 0
        self.row_count = self.size_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was put in since the last cut."""
        return self._run is None

    @property
    def piece_is_full(self) -> bool:
        """Whether the rows held should leave as a piece."""
        return self._piece_bytes >= PIECE_BYTES or self._piece_rows >= PIECE_ROWS

    def begin(self, origin: Origin) -> None:
        """The rows that follow belong to another transaction."""
        self._origin = origin
        self._envelopes.clear()

    def images(self, found: Described, op: str, data: bytes, start: int) -> None:
        """Add an event's inserted ("c") or deleted ("d") rows."""
        rows, envelope = self._open(found)
        first, held = self._ordinal, len(rows.values)
        end = found.decoder.images(data, start, first, envelope, op, rows.keys, rows.values)
        rows.ops.extend([op] * (end - first))
        self._added(found, rows, held, end)

    def updates(self, found: Described, data: bytes, start: int) -> None:
        """Add an event's updated rows."""
        rows, envelope = self._open(found)
        first, held = self._ordinal, len(rows.values)
        end = found.decoder.updates(data, start, first, envelope, rows.ops, rows.keys, rows.values)
        self._added(found, rows, held, end)

    def mark(self) -> Mark:
        """Where the batch stands, to come back to."""
        sizes = {name: len(rows) for name, rows in self._rows.items()}
        ordinal = None if self._run is None else self._ordinal
        return Mark(self._pieces, ordinal, sizes, len(self._truncates))

    def back_to(self, mark: Mark) -> bool:
        """Take out what was put in since `mark`; False when some of it has left as a piece."""
        if mark.pieces != self._pieces:
            return False
        if self._run is None:
            return True
        ordinal = self._stamp.first_ordinal if mark.ordinal is None else mark.ordinal
        removed, self._ordinal = self._ordinal - ordinal, ordinal
        for name, rows in self._rows.items():
            for one in (rows.ops, rows.ordinals, rows.keys, rows.values):
                del one[mark.sizes.get(name, 0) :]
        self._rows = {name: rows for name, rows in self._rows.items() if rows.ops}
        del self._truncates[mark.truncates :]
        self._piece_rows -= removed
        self.row_count -= removed
        return True

    def truncate(self, table: str) -> None:
        """Add the loss of all rows of a table."""
        self._begin_run()
        if self._truncates[-1:] == [Truncate(table=table, ordinal=self._ordinal - 1)]:
            return  # nothing came in between
        self._truncates.append(Truncate(table=table, ordinal=self._ordinal))
        self._ordinal += 1

    def piece(self, commit: Commit | None = None) -> Piece:
        """Take what is held as a piece; with a commit the batch ends."""
        run = self._begin_run()
        piece = Piece(
            run=run,
            rows=tuple(self._rows.values()),
            truncates=tuple(self._truncates),
            commit=commit,
        )
        self._rows, self._truncates = {}, []
        self._piece_bytes = self._piece_rows = 0
        self._pieces += 1
        if commit is not None:
            self._run = None
            self._envelopes.clear()
            self.row_count = self.size_bytes = 0
        return piece

    def _begin_run(self) -> int:
        if self._run is None:
            self._run = self._stamp.draw()
            self._ordinal = self._stamp.first_ordinal
        return self._run

    def _open(self, found: Described) -> tuple[Rows, Envelope]:
        run = self._begin_run()
        name = found.table.fingerprint
        rows = self._rows.get(name)
        if rows is None:
            rows = self._rows[name] = Rows(
                table=found.table, ops=[], ordinals=[], keys=[], values=[]
            )
        envelope = self._envelopes.get(name)
        if envelope is None:
            envelope = self._envelopes[name] = Envelope(
                found.table,
                connector=self._origin.connector,
                source=self._origin.source,
                epoch=self._stamp.epoch,
                run=run,
                committed_at=self._origin.committed_at,
                place=self._origin.place,
            )
        return rows, envelope

    def _added(self, found: Described, rows: Rows, held: int, end: int) -> None:
        if found.may_be_null:
            refuse_null(found.table, rows.keys[held:])
        added = end - self._ordinal
        rows.ordinals.extend(range(self._ordinal, end))
        self._ordinal = end
        size = sum(map(len, rows.values[held:]))
        self._piece_bytes += size
        self._piece_rows += added
        self.size_bytes += size
        self.row_count += added
