"""A source whose log cannot be had, polled by a column that every change moves on.

A poll reads, in one snapshot of the server, the rows whose version is newer than the last one less
a window: commits that become visible late are in it, and a row that the window shows again as it
was is left out. What deletes rows must leave a tombstone: a hard delete cannot be seen, and a
change that does not move the version cannot either (docs/polling.md). Copies, verify and repairs
are those of every source.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any

from capture.polling_checks import Columns, findings, noted
from capture.polling_position import Place, before
from capture.polling_reader import Key, Page, Reader, Snapshot, dead, paged_by
from capture.source import Chunk, Keeps, Noted, envelopes
from schemas.beat import Beat
from schemas.change import Commit, Piece, Position, Progress, Rows, Stamp
from schemas.codec import Envelope
from schemas.errors import HeadwaterError, Misconfigured
from schemas.finding import Finding
from schemas.ranges import Compared, SourceRanges
from schemas.table import Table, parents_first

DESCRIBE_EVERY_S = 30.0
"""How often the catalog is read again: a column that was added is carried from then on."""
BEAT_S = 0.9
_IMAGE = len(b'{"before":null,"after":')
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """version, tombstone: pattern of full names -> column. every_s: from one poll to the next.
    window: seconds (of numbers: so many numbers) that each poll reads again.
    """

    version: Mapping[str, str]
    tombstone: Mapping[str, str]
    every_s: float = 1.0
    window: float = 60.0


class PollingSource:
    """One database's tables, polled (contract: capture/source.py)."""

    def __init__(
        self, name: str, reader: Reader, polling: Polling, *, batch_rows: int = 10_000
    ) -> None:
        self.name = name
        self._reader, self._polling, self._batch_rows = reader, polling, batch_rows

    @property
    def connector(self) -> str:
        """See Source.connector."""
        return self._reader.connector

    def stream(
        self, after: Position | None, stamp: Stamp, progress: Progress | None = None
    ) -> Generator[Piece, None, None]:
        """See Source.stream: a batch is a poll that found something. After a restart the window's
        rows come once more.
        """
        tables, described_at = self._tables(), time.monotonic()
        place = self._here(tables) if after is None else Place.loads(after)
        yield Piece(run=stamp.draw(), commit=Commit(position=place.dumps(), committed_at=None))
        known: dict[str, dict[bytes, bytes]] = {}
        polled_at = float("-inf")
        while True:
            if (left := polled_at + self._polling.every_s - time.monotonic()) > 0:
                time.sleep(min(left, BEAT_S))
                if left > BEAT_S:
                    commit = Commit(position=place.dumps(), committed_at=None)
                    yield Piece(run=stamp.draw(), commit=commit)
                continue
            polled_at = time.monotonic()
            if polled_at - described_at > DESCRIBE_EVERY_S:
                tables, described_at = self._tables(), polled_at
            place = yield from self._poll(tables, place, known, stamp)

    def ack(self, position: Position) -> None:
        """The server keeps nothing for us."""

    def describe(self) -> Sequence[Table]:
        """See Source.describe."""
        return sorted(self._reader.describe(), key=lambda table: table.full_name)

    def chunk(
        self, table: Table, after: Any, limit: int, *, until: Any = None, epoch: int, run: int
    ) -> Chunk:
        """See Source.chunk; rows with a tombstone are not there."""

        def read(snapshot: Snapshot, envelope: Envelope) -> Page:
            where = self._living(table)
            return snapshot.page(
                table,
                table,
                after=after,
                limit=limit,
                envelope=envelope,
                until=until,
                where=where,
            )

        page, chunk = self._read(table, read, epoch, run)
        last = page.last if len(page.keys) == limit else None
        next_key = None if last == until else last
        return chunk(after, until if next_key is None else next_key, next_key)

    def chunk_of(self, table: Table, identities: Sequence[bytes], *, epoch: int, run: int) -> Chunk:
        """See Source.chunk_of."""

        def read(snapshot: Snapshot, envelope: Envelope) -> Page:
            return snapshot.listed(table, identities, envelope, self._living(table))

        _, chunk = self._read(table, read, epoch, run)
        return chunk(None, None, None)

    def boundary(self, table: Table, after: Any, rows: int, *, until: Any = None) -> Any:
        """See Source.boundary."""
        return self._reader.boundary(table, after, rows, until, self._living(table))

    def estimate(self) -> Mapping[str, int]:
        """See Source.estimate."""
        return self._reader.estimate()

    def visible(self) -> str:
        """See Source.visible; nothing need be told apart, see `sees`."""
        return ""

    def ranges(self, compared: Compared) -> SourceRanges:
        """See Source.ranges."""
        return self._reader.ranges(compared, self._living)

    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        """See Source.sees: what was streamed was read, so later reads see it too."""
        return True

    def reached(self, high: Position, position: Position) -> bool:
        """See Source.reached: whether a poll began after that moment."""
        return Place.loads(position).at >= Place.loads(high).at

    def shown(self, position: Position) -> Callable[[], bool]:
        """See Source.shown; as `sees`."""
        return lambda: True

    def check(self) -> list[Finding]:
        """See Source.check."""
        try:
            tables = self.describe()
        except HeadwaterError as error:
            return [Finding(where=self.name, problem=str(error), fix=error.hint)]
        return list(findings(self._reader, tables, self._columns, self.name))

    def prepare(self, *, dry_run: bool = False) -> list[str]:
        """Nothing to set up: `check` says what the tables must have."""
        return []

    def drop(self, *, dry_run: bool = False) -> list[str]:
        """Nothing was made in the source."""
        return []

    def note(self, *, hold: bool, beat: bool = True) -> Generator[Noted | None, None, None]:
        """See Source.note; a dump that is begun now overlaps with the window, which is harmless."""
        position = self._here(self._tables()).dumps()
        yield Noted(position=position, findings=(noted(self.name),))

    def given(self, text: str) -> Position:
        """See Source.given."""
        return Place.loads(Position(text)).dumps()

    def keeps(self, position: Position) -> Keeps:
        """See Source.keeps: nothing is forgotten; what was changed twice is read once."""
        return Keeps()

    def beats(self) -> list[Beat]:
        """See Source.beats; none is written."""
        return []

    def now(self) -> tuple[Position, int]:
        """See Source.now; a place to be reached, not one to go on from."""
        clock = self._reader.clock()
        return Place(at=clock).dumps(), clock

    def close(self) -> None:
        """See Source.close."""
        self._reader.close()

    # Polls.

    def _poll(
        self,
        tables: Sequence[Table],
        place: Place,
        known: dict[str, dict[bytes, bytes]],
        stamp: Stamp,
    ) -> Generator[Piece, None, Place]:
        """One poll, whatever its size, as one batch; where the next one goes on.

        known: by table, what the window's rows were when they were read last.
        """
        run, ordinal, newest = stamp.draw(), stamp.first_ordinal, dict[str, str | None]()
        with self._reader.snapshot() as snapshot:
            for table in tables:
                name = table.full_name
                opened = envelopes(self, table, epoch=stamp.epoch, run=run)(snapshot.clock)
                last, newest[name] = known.get(name, {}), place.of.get(name)
                known[name] = {}
                for keys, values, is_dead, version in self._pages(table, place, snapshot, opened):
                    newest[name] = version
                    rows = _fresh(table, keys, values, is_dead, last, known[name], opened, ordinal)
                    if rows.ops:
                        ordinal += len(rows.ops)
                        yield Piece(run=run, rows=(rows,))
            place = Place(at=max(snapshot.clock, place.at), of=newest)
        is_empty = ordinal == stamp.first_ordinal
        yield Piece(
            run=run,
            commit=Commit(
                position=place.dumps(),
                committed_at=None if is_empty else snapshot.clock,
                transactions=0 if is_empty else 1,
            ),
        )
        return place

    def _pages(
        self, table: Table, place: Place, snapshot: Snapshot, envelope: Envelope
    ) -> Iterator[tuple[list[bytes], list[bytes], bool, str]]:
        """Rows from the window on, in order of their versions: those that live, then those that are
        dead; and the greatest version so far.
        """
        column = self._version(table)
        by, low = paged_by(table, column), place.of.get(table.full_name)
        where = ""
        if low is not None:
            kind, full = table.by_name[column].kind, f"{table.full_name}.{column}"
            window = self._polling.window
            low = before(kind, low, window=window, clock=place.at, where=full)
            where = snapshot.after(table, column, low)
        dead_if, greatest = self._dead(table), place.of.get(table.full_name)
        for is_dead in (False, True) if dead_if else (False,):
            those = [where, dead_if if is_dead else f"NOT ({dead_if})"] if dead_if else [where]
            after: Key | None = None
            while True:
                page = snapshot.page(
                    table,
                    by,
                    after=after,
                    limit=self._batch_rows,
                    envelope=envelope,
                    where=" AND ".join(f"({c})" for c in those if c),
                )
                if page.last is None:
                    break
                after = page.last
                greatest = _greater(table.by_name[column].kind.name, greatest, after[0])
                yield page.keys, page.values, is_dead, greatest
                if len(page.keys) < self._batch_rows:
                    break

    # Tables and their columns.

    def _tables(self) -> list[Table]:
        """The selected tables, parents before children; raises Misconfigured where one has no
        version.
        """
        tables = parents_first(self.describe())
        for table in tables:
            self._version(table)
        return tables

    def _columns(self, table: Table) -> Columns:
        name = table.full_name
        version, tombstone = (
            next((column for p, column in patterns.items() if fnmatchcase(name, p)), None)
            for patterns in (self._polling.version, self._polling.tombstone)
        )
        return Columns(version or "updated_at", tombstone)

    def _version(self, table: Table) -> str:
        column = self._columns(table).version
        if column not in table.by_name:
            raise Misconfigured(
                f"found no column {column} on {table.full_name}, by which it would be polled",
                hint=f'add it, set version."{table.full_name}", or exclude the table',
            )
        return column

    def _dead(self, table: Table) -> str:
        column = self._columns(table).tombstone
        if column is None or column not in table.by_name:
            return ""
        return dead(table.by_name[column].kind, self._reader.quoted(column))

    def _living(self, table: Table) -> str:
        found = self._dead(table)
        return found and f"NOT ({found})"

    def _here(self, tables: Sequence[Table]) -> Place:
        """Now: what comes later has, but for the window, a greater version."""
        clock = self._reader.clock()
        return Place(
            at=clock,
            of={t.full_name: self._reader.greatest(t, self._version(t)) for t in tables},
        )

    def _read(
        self, table: Table, read: Callable[[Snapshot, Envelope], Page], epoch: int, run: int
    ) -> tuple[Page, Callable[[Any, Any, Any], Chunk]]:
        """What one snapshot gives, and how a chunk is made of it."""
        opened: AbstractContextManager[Snapshot] = self._reader.snapshot()
        with opened as snapshot:
            read_at = snapshot.clock
            page = read(snapshot, envelopes(self, table, epoch=epoch, run=run)(read_at))
        high, _ = self.now()

        def chunk(after: Any, until: Any, next_key: Any) -> Chunk:
            return Chunk(
                table=table,
                keys=page.keys,
                values=page.values,
                after=after,
                until=until,
                next_key=next_key,
                seen="",
                high=high,
                read_at=read_at,
                size_bytes=sum(map(len, page.keys)) + sum(map(len, page.values)),
            )

        return page, chunk


def _fresh(
    table: Table,
    keys: Sequence[bytes],
    values: Sequence[bytes],
    is_dead: bool,
    last: Mapping[bytes, bytes],
    seen: dict[bytes, bytes],
    envelope: Envelope,
    ordinal: int,
) -> Rows:
    """The rows that are not as they were in the last poll, with ordinals from `ordinal` on; what
    was read is kept in `seen`.
    """
    rows = Rows(table=table, ops=[], ordinals=[], keys=[], values=[])
    write = envelope.delete if is_dead else envelope.read
    tail = len(envelope.tails.read) + len(b"}}}")
    for place, (key, value) in enumerate(zip(keys, values, strict=True)):
        image = value[_IMAGE : -tail - len(str(place))]
        digest = seen[key] = blake2b(image, digest_size=_DIGEST_BYTES).digest()
        if last.get(key) == digest:
            continue
        rows.ops.append("d" if is_dead else "r")
        rows.ordinals.append(ordinal)
        rows.keys.append(key)
        rows.values.append(write(image.decode(), ordinal))
        ordinal += 1
    return rows


def _greater(kind: str, one: str | None, other: str) -> str:
    """The greater of two versions as they are printed."""
    if one is None:
        return other
    return max(one, other, key=int) if kind == "int" else max(one, other)
