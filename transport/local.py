"""A log over a store on this machine: the protocol's writer and reader, for SQLite and for memory.

Not here: how entries and rows are kept (a `Store`), which entries count (transport/chain.py).
Invariant: a commit record is added after its batch's rows are held, in a transaction of its own,
and only while no newer epoch is in the log.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from uuid import uuid4

from schemas.change import Batch, Commit, Offset, Piece, Position, Rows, Stamp, Truncate
from schemas.errors import Fenced, LogReplaced, LogTruncated
from schemas.faults import reach
from schemas.table import Table
from transport.asked import Asked, Requests, unread_after
from transport.batch import PLACE_BITS, pieces
from transport.chain import Chain, before, resume, trusted_start
from transport.chain import follow as link
from transport.history import History
from transport.joined import Fetch, Link, batches, up_to
from transport.log import Kept, Opened, Reader
from transport.record import Checkpoint, Claim, Entry, Record, Request, Span, Spans
from transport.store import TOPIC, Store, span_of

UNMOVED_BEAT_S = 10.0
"""An empty commit that says nothing new is written at most this often: one is always retained."""
MOVED_BEAT_S = 1.0
"""An empty commit with a new position is written at most this often: an idle source may advance."""
IDLE_S = 1.0
"""A following reader gives None this often while there is nothing new."""
TRIM_S = 60.0
"""Retention is enforced at most this often."""
PAGE = 100
"""Entries in one read."""
ROWS = 4_000
ROWS_BYTES = 1 << 20
"""Runs of rows are stored in this size: what a reader fetches at once."""


@dataclass(slots=True)
class _Draft:
    """What was appended of one run so far."""

    first: int | None = None
    last: int | None = None
    rows: int = 0
    truncates: list[Truncate] = field(default_factory=list)
    schemas: set[str] = field(default_factory=set)
    seeds: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.truncates


class LocalLog:
    """Implements transport.log.Log over a `Store`. What came back is read at every transaction,
    so what `append` wrote is accepted when it returns.
    """

    def __init__(self, store: Store, *, retention_s: float | None = None) -> None:
        self._store = store
        self._incarnation: str | None = None
        self._retention_s = retention_s
        self._trimmed_at = float("-inf")
        self._epoch: int | None = None
        self._chain = Chain()
        self._at = 0
        self._requests = Requests()
        self._drafts: dict[int, _Draft] = {}
        self._beat: tuple[int, Commit] | None = None
        self._written_at = 0.0

    def open(self) -> Opened:
        self._epoch, self._drafts, self._beat, self._requests = None, {}, None, Requests()
        with self._store.writing(durable=True):
            self._chain, self._at = self._end()
            after = max(unread_after(self._chain.record), self._store.bounds()[0] - 1)
            self._requests.begin(self._walk(after), self._chain.record)
            claim = Claim(claim=uuid4().hex, over=self._chain.end.epoch)
            self._epoch = self._store.add_entry(claim)
        self._catch_up()
        self._store.delete_orphans()
        self._written_at = monotonic()
        record = self._chain.record
        return Opened(
            stamp=Stamp(epoch=self._epoch),
            position=self._chain.end.position,
            progress=record.progress if record else {},
        )

    def append(self, piece: Piece) -> None:
        draft = self._drafts.setdefault(piece.run, _Draft())
        draft.truncates += piece.truncates
        if piece.rows:
            with self._store.writing(durable=False):
                self._catch_up()
                self._add(draft, piece)
        if piece.commit is not None:
            del self._drafts[piece.run]
            self._commit(piece.run, draft, piece.commit)

    def _add(self, draft: _Draft, piece: Piece) -> None:
        for rows in pieces(piece.rows, ROWS, ROWS_BYTES):
            draft.last = self._store.add_rows(self._own_epoch(), piece.run, rows)
            draft.first = draft.first or draft.last
            draft.rows += len(rows)
            draft.schemas.add(rows.table.fingerprint)
            draft.seeds = draft.seeds or "s" in rows.ops

    def _commit(self, run: int, draft: _Draft, commit: Commit) -> None:
        if draft.is_empty and not self._is_due(commit):
            self._beat = run, commit
            return
        self._beat = None
        reach("before-commit-record")
        with self._store.writing(durable=True):
            self._catch_up()
            self._store.add_entry(self._record(run, draft, commit))
        reach("after-commit-record")
        self._written_at = monotonic()
        if self._retention_s is not None and self._written_at - self._trimmed_at >= TRIM_S:
            self.trim(self._retention_s)
            self._trimmed_at = self._written_at

    def _is_due(self, commit: Commit) -> bool:
        """Whether an empty commit is written now; a source gives another one within the second."""
        end, record = self._chain.end, self._chain.record
        if record is None or (commit.progress is not None and commit.progress != record.progress):
            return True
        waited = monotonic() - self._written_at
        return waited >= (MOVED_BEAT_S if commit.position != end.position else UNMOVED_BEAT_S)

    def _record(self, run: int, draft: _Draft, commit: Commit) -> Record:
        end, last = self._chain.end, self._chain.record
        progress = (last.progress if last else {}) if commit.progress is None else commit.progress
        spans: Spans = {}
        if draft.first is not None and draft.last is not None:
            spans = {TOPIC: {0: Span(draft.first, draft.last, draft.rows)}}
        return Record(
            epoch=self._own_epoch(),
            batch=end.batch + 1,
            run=run,
            from_position=end.position,
            position=commit.position,
            accepted=self._requests.nameable(progress, self._chain.offset),
            committed_at=commit.committed_at,
            transactions=commit.transactions,
            origin=commit.origin,
            spans=spans,
            truncates=tuple(draft.truncates),
            schemas=tuple(sorted(draft.schemas)),
            for_target=commit.for_target,
            progress=progress,
            seeds=draft.seeds,
            sweeps=commit.sweeps,
            check=commit.check,
        )

    def accepted(self) -> Position | None:
        self._catch_up()
        record = self._chain.record
        return record.position if record and record.epoch == self._epoch else None

    def flush(self) -> Position | None:
        if self._beat is not None:
            (run, commit), self._beat, self._written_at = self._beat, None, float("-inf")
            self._commit(run, _Draft(), commit)
        return self.accepted()

    def requests(self) -> list[Asked]:
        return self._requests.take()

    def ask(self, request: Request) -> int:
        with self._store.writing(durable=True):
            return self._store.add_entry(request)

    def read(
        self,
        after: Offset | None,
        *,
        follow: bool = True,
        together: int = 0,
        target: str | None = None,
        until: int | None = None,
    ) -> Iterator[Batch | None]:
        return batches(up_to(self._links(after, follow), until), together, self._fetch, target)

    def reader(self, target: str) -> Reader | None:
        found = self._store.reader(target)
        return None if found is None else Reader(found[0], int(found[1] * 1e6))

    def read_by(self, target: str, session: str | None, at: Offset | None = None) -> None:
        with self._store.writing(durable=False):
            self._store.note_reader(target, session)

    def described(self) -> list[Table]:
        return self._store.described()

    def history(self, target: str, until: int | None = None) -> History:
        first = self._first()
        history = History(target=target, begin=first.dumps() if first else None)
        for taken in up_to(self._links(history.begin, False), until):
            if taken is not None:
                history.take(taken.record, taken.offset)
        return history

    def scan(self, first: Mapping[str, int], until: int) -> Iterator[Rows]:
        start = self._first()
        for taken in up_to(self._links(start.dumps() if start else None, False), until):
            batch = taken.record.batch if taken else 0
            if taken is None or batch < min(first.values(), default=0):
                continue
            for rows in _numbered(self._fetch([taken.record])(), batch << PLACE_BITS):
                if "s" not in rows.ops and first.get(rows.table.full_name, until + 1) <= batch:
                    yield rows

    def _links(self, after: Offset | None, follow: bool) -> Iterator[Link | None]:
        start = None if after is None else Checkpoint.loads(after)
        chain, at, spoke_at, is_waited_for = Chain(), -1, monotonic(), False
        while True:
            if at < 0 and (start := start or self._first()) is not None:
                chain, at = self._resume(start), start.offset
            page = self._page(at) if at >= 0 else []
            for at, entry in page:
                record = link(chain, at, entry)
                if record is not None:
                    yield self._link(at, record)
                    spoke_at, is_waited_for = monotonic(), True
            if page:
                continue
            if not follow:
                return
            if is_waited_for or monotonic() - spoke_at >= IDLE_S:
                # First that nothing more waits, then that nothing came.
                yield None
                spoke_at, is_waited_for = monotonic(), False
            self._store.wait()

    def span(self) -> tuple[Offset, Offset] | None:
        first, (newest, _) = self._first(), self._end()
        if first is None or newest.record is None or newest.offset is None:
            return None
        last = Checkpoint.after(
            newest.record, incarnation=self._store.incarnation, offset=newest.offset
        )
        return first.dumps(), last.dumps()

    def kept(self, after: Offset | None) -> Kept:
        start = None if after is None else Checkpoint.loads(after)
        if start is not None:
            self._resume(start)  # raises where it is not held
        places = (0, self._store.bounds()[1] - 1, 0 if start is None else start.offset)
        since, until, needed = (_micros(self._store.written_at(place)) for place in places)
        return Kept(since, until, needed, self._retention_s)

    def trim(self, age_s: float) -> None:
        """Delete batches that were written more than `age_s` ago, unread or not.

        The newest record that a later one names is kept with all that follows it, so that readers
        and captures can start there.
        """
        newest, _ = self._end()
        if newest.record is not None and newest.record.accepted is not None:
            self._store.delete_before(newest.record.accepted, age_s)

    def drop(self) -> list[str]:
        self._epoch = self._incarnation = None
        return self._store.drop()

    def close(self) -> None:
        self._store.close()

    def _own_epoch(self) -> int:
        """The epoch this capture writes in; raises Fenced when it has none (any more)."""
        if self._epoch is None or self._chain.end.epoch != self._epoch:
            raise Fenced(
                f"found that another capture took over this log at entry {self._chain.end.epoch}",
                hint="stop one of the two captures of this source",
            )
        return self._epoch

    def _catch_up(self) -> None:
        """Take what was added to the log since; raises Fenced once a newer epoch is among it."""
        for offset, entry in self._walk(self._at):
            self._chain.take(offset, entry)
            self._requests.found(offset, entry, self._chain.offset)
            self._at = offset
        if self._epoch is not None:
            self._own_epoch()

    def _walk(self, after: int) -> Iterator[tuple[int, Entry]]:
        """The entries after an offset to the log's end; raises LogTruncated where some are gone."""
        while page := self._page(after):
            yield from page
            after = page[-1][0]

    def _page(self, after: int) -> list[tuple[int, Entry]]:
        page = self._store.entries(after, PAGE)
        # After the read: entries of a log made anew would be too few, or silently not count.
        incarnation = self._store.incarnation
        self._incarnation = self._incarnation or incarnation
        if incarnation != self._incarnation:
            raise LogReplaced(
                "found that the log was made anew while it was in use",
                hint="rebuild the target; a capture starts over with a new first copy",
            )
        if page and page[0][0] != after + 1:
            raise LogTruncated(
                f"found that the log begins at entry {page[0][0]}, beyond {after + 1}, the next",
                hint="headwater rebuild TARGET --on-top, and keep the log longer than it pauses",
            )
        return page

    def _end(self) -> tuple[Chain, int]:
        """A chain that has come to the log's end, begun as near to it as may be, and its offset."""
        oldest, newest = self._store.bounds()
        chain, at = Chain(), 0
        for after in (max(oldest - 1, newest - PAGE), oldest - 1):
            start = trusted_start(self._walk(after))
            if start is not None and isinstance(record := self._entry(start), Record):
                chain, at = Chain.at(start, record), start
                break
        else:
            if oldest > 1:
                raise LogTruncated(
                    f"found no record from entry {oldest} on that is known to be accepted",
                    hint="drop this log, then start over with a new first copy",
                )
        for offset, entry in self._walk(at):
            chain.take(offset, entry)
            at = offset
        return chain, at

    def _first(self) -> Checkpoint | None:
        """Where a reader without checkpoint starts; None while no retained record is trusted."""
        oldest, _ = self._store.bounds()
        if oldest == 1:
            return Checkpoint(self._store.incarnation, 0, None, 0, None)
        start = trusted_start(self._walk(oldest - 1))
        record = None if start is None else self._entry(start)
        if start is None or not isinstance(record, Record):
            return None
        return before(record, incarnation=self._store.incarnation, offset=start)

    def _resume(self, start: Checkpoint) -> Chain:
        oldest, newest = self._store.bounds()
        return resume(
            start,
            incarnation=self._store.incarnation,
            oldest=oldest,
            newest=newest,
            entry=self._entry(start.offset),
            following=self._entry(start.offset + 1),
        )

    def _entry(self, offset: int) -> Entry | None:
        found = self._store.entries(offset - 1, 1)
        return found[0][1] if found and found[0][0] == offset else None

    def _link(self, offset: int, record: Record) -> Link:
        after = Checkpoint.after(record, incarnation=self._store.incarnation, offset=offset)
        return Link(record, after.dumps())

    def _fetch(self, records: Sequence[Record]) -> Fetch:
        def fetch() -> Iterator[Rows]:
            for number, record in enumerate(records):
                if (span := span_of(record)) is not None:
                    found = self._store.rows(record.epoch, record.run, span.first, span.last)
                    yield from _numbered(found, number << PLACE_BITS) if number else found

        return fetch


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _numbered(found: Iterator[Rows], base: int) -> Iterator[Rows]:
    for rows in found:
        yield replace(rows, ordinals=[base + ordinal for ordinal in rows.ordinals])
