"""First copies, and copies that were asked for, interleaved with the stream.

A table is read in chunks. A chunk must include everything streamed before its read (a commit can be
in the log before any read sees it: the chunk is then thrown away and read again later), and it
stands in the log at its high mark, noted after the read: where the stream has passed that mark,
those of its rows follow that the stream did not touch in between (as in DBLog, arXiv:2010.12597).
So a target never steps back, and a deleted row never returns. No lock is taken, and the stream
never waits for more than one chunk's read; several tables and ranges of one are read at once.

Progress rides on the commit records: after a crash a copy goes on at the ranges that are not in the
log. Requests (transport/record.py) are taken in between two batches.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import structlog

from capture.copies import Copy, begun, beside, ended
from capture.pace import DEFAULT_PACE, Pace, Throttle
from capture.placing import gone, kept
from capture.reading import Marks, Readers, Reading
from capture.requests import changed, is_paused, sweeps, taken_in
from capture.seeding import due_seeds, seeded
from capture.source import Source
from schemas.change import Commit, Piece, Position, Progress, Stamp, Sweep, SweepWhat
from schemas.errors import Operator
from schemas.progress import asked_copies, first_copies, pending
from schemas.table import NO_PARENTS, Table, parents_first
from transport.asked import Asked
from transport.log import Opened

What = Literal["rows", "identities", "none"]

MAX_REREADS = 50
"""A chunk whose rows keep changing without their TOAST values is read again so often, then the
operator is asked.
"""

log = structlog.get_logger()


def with_copies(
    source: Source,
    opened: Opened,
    wanted: Mapping[str, What],
    *,
    pace: Pace = DEFAULT_PACE,
    begin: Position | None = None,
    asked: Callable[[], Sequence[Asked]] = lambda: (),
    anew: set[str] | None = None,
    after: Mapping[str, Collection[str]] = NO_PARENTS,
) -> Iterator[Piece]:
    """The source's stream with the first copies of `wanted` (full name -> what to copy) that are
    not done yet, and with the copies that are asked for.

    A log that holds nothing yet begins at `begin` (None: now) and starts the copies of `wanted`; a
    table that came later starts its own. asked: gives what was asked since it was called last.
    anew: filled with the tables that are copied whole, for the source (see its `copied_anew`).
    after: by full name, tables that are copied before that one, as its parents are.
    """
    tables = parents_first(source.describe(), after)
    progress, anew = _known(opened, wanted, tables, source), set() if anew is None else anew
    copies = _Copies(source, opened.stamp, tables, progress, pace, asked, anew, after)
    copies.take_in()
    pieces = source.stream(opened.position or begin, opened.stamp, progress)
    if opened.position is None:
        # The starting position becomes durable first: after a crash nothing is lost between it and
        # the copies.
        first = next(pieces)
        assert first.commit is not None
        yield replace(first, commit=copies.tell(first.commit))
    if seeds := due_seeds(progress, tables):
        pieces = seeded(source, pieces, opened.stamp, seeds, progress, pace.rows)
    yield from copies.run(pieces)


def _known(
    opened: Opened, wanted: Mapping[str, What], tables: Sequence[Table], source: Source
) -> Progress:
    """The progress to go on from: with the tables that came since, without those that are gone."""
    progress, names = dict(opened.progress), {t.full_name for t in tables}
    # Earlier versions kept no state of tables that were not to be copied.
    is_silent = opened.position is not None and not any("what" in s for s in progress.values())
    if new := [n for n in wanted if "what" not in progress.get(n, {})]:
        of = {} if is_silent else source.estimate()
        for name in new:
            what = "none" if is_silent else wanted[name]
            state = ended({}, 0) if what == "none" else begun(of=of.get(name))
            progress[name] = {**progress.get(name, {}), **state, "what": what}
    for name, state in list(first_copies(progress)):
        if not state["done"] and name not in names:
            reason = "the source no longer has this table"
            log.warning("first_copy_given_up", table=name, reason=reason)
            progress[name] = beside(state) | ended(state, state.get("rows", 0))
    return progress


class _Copies:
    """The state of the copies between two pieces of the stream."""

    def __init__(
        self,
        source: Source,
        stamp: Stamp,
        tables: Sequence[Table],
        progress: Progress,
        pace: Pace,
        asked: Callable[[], Sequence[Asked]],
        anew: set[str],
        after: Mapping[str, Collection[str]],
    ) -> None:
        self._source, self._stamp, self._pace = source, stamp, pace
        self._asked, self._anew, self._after = asked, anew, after
        self._tables = {t.full_name: t for t in tables}
        self._progress, self._told = progress, Progress()
        self._sweeps: list[Sweep] = []
        self._marks, self._throttle = Marks(), Throttle(pace.max_rate)
        self._readers = Readers(source, pace.readers)
        self._copies: list[Copy] = []
        self._readings: list[Reading] = []

    def run(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces, with chunks in their places between them."""
        self._plan()
        try:
            for piece in pieces:
                self._note(piece)
                yield self._with_progress(piece)
                if piece.commit is not None:
                    self.take_in()
                    yield from self._placed(piece.commit.position)
        finally:
            self._readers.close()

    # What is asked for.

    def take_in(self) -> None:
        """Take in what was asked; it begins once the log holds that it was."""
        if not (asked := self._asked()):
            return
        known, active = set(asked_copies(self._progress)), self._active().keys()
        self._describe()
        # In place: the source keeps its own facts there (Source.stream).
        self._progress.update(
            taken_in(self._progress, asked, self._tables, self._source.estimate())
        )
        for number, copy in asked_copies(self._progress).items():
            if number not in known:
                self._sweep(number, "begins")
            elif number in active and copy["state"] != "copying":
                self._sweep(number, "given up")
        self._plan()

    def _describe(self) -> None:
        tables = parents_first(self._source.describe(), self._after)
        self._tables = {t.full_name: t for t in tables}

    def _sweep(self, number: str, what: SweepWhat, names: Collection[str] = ()) -> None:
        self._sweeps += sweeps(self._progress, number, self._tables, what, names)

    def _plan(self) -> None:
        """Make the copies that the progress names and that are not begun here; drop the others."""
        for number, copy in self._active().items():
            left = [n for n, state in copy["tables"].items() if not state["done"]]
            if gone := [name for name in left if name not in self._tables]:
                why = f"the source no longer has {gone[0]}"
                self._progress.update(changed(self._progress, number, state="failed", why=why))
                self._sweep(number, "given up")
        old = {(c.number, c.table.full_name): c for c in self._copies}
        wanted = list(self._due())
        self._copies = [
            old.get((number, t.full_name)) or self._copy(t, state, number, target)
            for number, target, t, state in wanted
        ]
        self._readings = [r for r in self._readings if r.copy in self._copies]
        self._anew.clear()
        self._anew.update(
            name
            for copy in self._active().values()
            for name, state in copy["tables"].items()
            if copy["for"] is None and "keys" not in state
        )

    def _active(self) -> dict[str, dict[str, Any]]:
        copies = asked_copies(self._progress)
        return {n: copy for n, copy in copies.items() if copy["state"] == "copying"}

    def _due(self) -> Iterator[tuple[str | None, str | None, Table, dict[str, Any]]]:
        """Number, target, table and state of every unfinished copy: listed rows before all else."""
        asked = [
            (number, copy["for"], self._tables[name], copy["tables"][name])
            for number, copy in self._active().items()
            for name in self._tables
            if name in copy["tables"] and not copy["tables"][name]["done"]
        ]
        yield from (one for one in asked if "keys" in one[3])
        for name, table in self._tables.items():
            state = self._progress.get(name)
            if state is not None and not state["done"] and state["what"] == "rows":
                yield None, None, table, state
        yield from (one for one in asked if "keys" not in one[3])

    def _copy(
        self, table: Table, state: dict[str, Any], number: str | None, target: str | None
    ) -> Copy:
        pace = self._pace
        # Where the rate is low, small chunks: it is held within a second.
        most = pace.rows if pace.max_rate is None else min(pace.rows, pace.max_rate)
        return Copy(
            table,
            state,
            number,
            target,
            most_rows=most,
            most_bytes=pace.size_bytes,
            check=number is not None and asked_copies(self._progress)[number].get("check", False),
        )

    # What the stream does.

    def _note(self, piece: Piece) -> None:
        """Remember what the stream did to the chunks that wait for their places."""
        if piece.commit is not None:
            self._marks.add(piece.commit.marks)
            if not self._readings:
                self._marks.prune(self._source)
        if piece.truncates:
            self._begin_anew({t.table for t in piece.truncates})
        for reading in self._readings:
            for rows in piece.rows:
                reading.note(rows)

    def _with_progress(self, piece: Piece) -> Piece:
        """The piece, with the progress if the log does not have it: which copies begin must be as
        durable as what the stream gives meanwhile.
        """
        if piece.commit is None or self._told == self._progress:
            return piece
        return replace(piece, commit=self.tell(piece.commit))

    def tell(self, commit: Commit) -> Commit:
        """The commit, with the state and what targets are to know of it."""
        self._told = dict(self._progress)
        swept, self._sweeps = tuple(self._sweeps), []
        return replace(commit, progress=dict(self._told), sweeps=swept)

    def _begin_anew(self, truncated: set[str]) -> None:
        """Begin the copies of truncated tables again, the first copies that are done too: the rows
        that are there now may have come without the stream (a table renamed to this name).
        """
        copied = pending(self._progress, None) | {
            n for n, state in first_copies(self._progress) if state.get("what") == "rows"
        }
        if copied.isdisjoint(truncated):
            return
        self._describe()
        asked_for: set[str] = set()
        for number, copy in self._active().items():
            again = {
                n for n in truncated & copy["tables"].keys() if "keys" not in copy["tables"][n]
            }
            if not again:
                continue
            asked_for |= again if copy["for"] is None else set()
            states = {
                n: begun(after=copy["from"].get(n), until=s.get("until"), of=s["of"])
                | {"turn": s.get("turn", 0) + 1}
                for n, s in copy["tables"].items()
                if n in again
            }
            tables = {**copy["tables"], **states}
            self._progress.update(changed(self._progress, number, tables=tables))
            self._sweep(number, "begins", again)
        for name in truncated - asked_for:
            if self._progress.get(name, {}).get("what") == "rows":
                self._progress[name] = beside(self._progress[name]) | begun()
        self._copies = [c for c in self._copies if c.table.full_name not in truncated]
        self._plan()

    # Chunks.

    def _placed(self, at: Position) -> Iterator[Piece]:
        """The chunks that may stand at `at`, a position the stream has given out whole; reads some
        if none wait.
        """
        while self._copies:
            self._read()
            ready = self._ready(at)
            if ready is None:
                return
            yield self._place(ready, at)

    def _read(self) -> None:
        """Begin to read what may be read now: of each request parents before their children, whose
        rows would have to wait for them.
        """
        if is_paused(self._progress) or self._told != self._progress:
            return
        pace = self._pace
        most = 2 * pace.readers if pace.max_rate is None else 1
        before: set[tuple[str | None, str]] = set()
        for copy in self._copies:
            name = copy.table.full_name
            parents = (*copy.table.parents, *self._after.get(name, ()))
            is_waiting = any((copy.number, parent) in before for parent in parents)
            before.add((copy.number, name))
            while not is_waiting and len(self._readings) < most and self._throttle.is_open:
                found = copy.next(self._readers.find)
                if found is None:
                    break
                reading = self._readers.read(
                    copy,
                    found,
                    epoch=self._stamp.epoch,
                    run=self._stamp.draw(),
                    marks=self._marks,
                )
                self._readings.append(reading)

    def _ready(self, at: Position) -> Reading | None:
        """A chunk that may be placed at `at`; waits for one where none has been read."""
        while True:
            read = [r for r in self._readings if r.future.done()]
            for reading in read:
                if not self._has_seen(reading):
                    # It is read again later: the next piece of the stream first.
                    self._again(reading)
                    return None
                if not self._source.reached(reading.chunk.high, at):
                    continue
                if not reading.is_stale:
                    return reading
                self._reread(reading)
            if read or not self._readers.wait(self._readings):
                return None
            self._read()

    def _has_seen(self, reading: Reading) -> bool:
        if not self._source.sees(reading.chunk.seen, reading.must_see):
            return False
        self._marks.forget(reading.marks_end)
        return True

    def _again(self, reading: Reading) -> None:
        self._readings.remove(reading)
        reading.copy.again(reading.range)

    def _reread(self, reading: Reading) -> None:
        """Take a stale chunk back, and the table's description as it is now."""
        self._again(reading)
        copy, name = reading.copy, reading.copy.table.full_name
        copy.rereads += 1
        fresh = {t.full_name: t for t in self._source.describe()}.get(name)
        if fresh is not None:
            self._tables[name] = copy.table = fresh
        if copy.rereads <= MAX_REREADS:
            return
        problem = (
            f"read a chunk of {name} {MAX_REREADS} times, and each time its rows changed "
            "meanwhile without their TOAST values, or by another description"
        )
        if copy.number is None:
            raise Operator(
                problem,
                hint=f"on PostgreSQL run: ALTER TABLE {name} REPLICA IDENTITY FULL; otherwise copy "
                "the table while nobody alters it",
            )
        self._progress.update(changed(self._progress, copy.number, state="failed", why=problem))
        self._sweep(copy.number, "given up")
        self._plan()

    def _place(self, reading: Reading, position: Position) -> Piece:
        """The chunk as a batch of its own at `position`, less the rows that the stream touched."""
        self._readings.remove(reading)
        copy, chunk = reading.copy, reading.chunk
        rows = [*kept(reading), *gone(reading, self._source, self._stamp.epoch)]
        state = copy.place(reading.range, chunk, sum(map(len, rows)), reading.took_s)
        self._throttle.took(len(chunk.keys))
        name = copy.table.full_name
        if copy.number is None:
            self._progress[name] = beside(self._progress[name]) | state
        else:
            self._advance(copy.number, name, state)
        if copy.is_done:
            self._plan()
        commit = Commit(
            position=position, committed_at=None, for_target=copy.target, check=copy.check
        )
        return Piece(run=reading.run, rows=tuple(rows), commit=self.tell(commit))

    def _advance(self, number: str, name: str, state: Mapping[str, Any]) -> None:
        copy = asked_copies(self._progress)[number]
        tables = {**copy["tables"], name: state}
        is_done = all(s["done"] for s in tables.values())
        now = "done" if is_done else "copying"
        self._progress.update(changed(self._progress, number, tables=tables, state=now))
        if is_done:
            self._sweep(number, "ends")
