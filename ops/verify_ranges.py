"""Both sides of one table, range by range: their checksums are made at the same time.

A range ends where the source's order and the target's surely agree: at an integer, or at a UUID in
lower case, whose order every server and collation shares but MariaDB's own type. So each side's
ranges hold every one of its rows, in the same cut. Where no key is like that, the table is one
range, which the source reads in pages of its own order all the same: no read of it is long.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

from apply.target import Target
from ops.verify_view import HasRanges
from schemas import checksum
from schemas.canonical import canonical
from schemas.checksum import Side, key_text
from schemas.codec import Wire
from schemas.ranges import ALONE, Compared, Key, Ranges, SourceRanges, Total

RANGE_ROWS = 10_000
AHEAD = 3
"""Ranges asked for before the first of them is answered: neither side waits for the other."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Range(NamedTuple):
    """Rows after `low` up to and with `high`; None: the table's end. inner: where the source's
    pages end inside it.
    """

    low: Key | None
    high: Key | None
    inner: Sequence[Key] = ()


class Seen(NamedTuple):
    """One row: its identity as text, the same from either side; the identity's wire values as this
    side has them, as JSON text; and its canonical values.
    """

    key: str
    wire: str
    form: list[Wire]


class SideRows:
    """One side of one table in the form that is compared."""

    def __init__(self, ranges: Ranges, compared: Compared, side: Side) -> None:
        self._ranges, self._compared, self.side = ranges, compared, side
        names = compared.names
        self._forms = [self._form(name) for name in names]
        self._identity = [names.index(n) for n in compared.table.identity]

    def total(self, cut: Range) -> Total:
        """The range's checksum: by the server's SQL, else of rows read here."""
        total = Total(0, 0)
        for low, high in self._pages(cut):
            total += self._ranges.total(low, high) or self._read_total(low, high)
        return total

    def rows(self, cut: Range) -> Iterator[list[Seen]]:
        """The range's rows in blocks."""
        for low, high in self._pages(cut):
            for block in self._ranges.rows(low, high):
                yield self._seen(block)

    def rows_of(self, keys: Sequence[Key]) -> list[Seen]:
        """The rows of these identities, and perhaps others."""
        spelled = [spelling for key in keys for spelling in self._spellings(key)]
        found = [
            self._ranges.rows_of(spelled[at : at + ALONE]) for at in range(0, len(spelled), ALONE)
        ]
        return self._seen([row for rows in found for row in rows])

    def _pages(self, cut: Range) -> Iterator[tuple[Key | None, Key | None]]:
        inner = cut.inner if self.side == "source" else ()
        yield from pairwise([cut.low, *inner, cut.high])

    def _read_total(self, low: Key | None, high: Key | None) -> Total:
        total = Total(0, 0)
        for block in self._ranges.rows(low, high):
            forms = [row.form for row in self._seen(block)]
            total += checksum.total(self._compared, self.side, forms)
        return total

    def _seen(self, rows: Sequence[list[Wire]]) -> list[Seen]:
        if not rows:
            return []
        columns = [
            list(map(form, values))
            for form, values in zip(self._forms, zip(*rows, strict=True), strict=True)
        ]
        identity, at = self._compared.table.identity, self._identity
        return [
            Seen(
                key_text(identity, [form[i] for i in at]),
                orjson.dumps([row[i] for i in at]).decode(),
                list(form),
            )
            for row, form in zip(rows, zip(*columns, strict=True), strict=True)
        ]

    def _form(self, name: str) -> Callable[[Any], Wire]:
        parent = self._compared.parents.get(name)
        if parent is None:
            return canonical(self._compared.kinds[name])
        of = canonical(parent.kind)
        unknown = f"no {parent.table.full_name}" if self.side == "source" else None

        def reference(value: str | None) -> Wire:
            if value is None:
                return None
            identity = orjson.loads(value)[parent.identity]
            return key_text([parent.identity], [unknown if identity is None else of(identity)])

        return reference

    def _spellings(self, key: Key) -> list[Key]:
        """A UUID that a text column holds may be in upper case on one side only."""
        table = self._compared.table
        kinds = [(self._compared.kinds[n].name, table.by_name[n].kind.name) for n in table.identity]
        if self.side == "source" and kinds == [("uuid", "text")]:
            return [[text] for text in {str(key[0]), str(key[0]).lower(), str(key[0]).upper()}]
        return [key]


class Pair:
    """Both sides of one table, each over a connection and with a thread of its own."""

    def __init__(
        self, compared: Compared, source: SourceRanges, target: Ranges, stack: ExitStack
    ) -> None:
        self.compared, self._ends = compared, source
        self.source = SideRows(source, compared, "source")
        self.target = SideRows(target, compared, "target")
        self._sorts_alike = source.sorts_alike and target.sorts_alike
        self._source_thread = stack.enter_context(ThreadPoolExecutor(1))
        self._target_thread = stack.enter_context(ThreadPoolExecutor(1))

    def cut(self, after: Key | None, rows: int) -> Iterator[Range]:
        """All ranges after `after`, of about `rows` rows each."""
        low = after
        while True:
            inner: list[Key] = []
            at = self._ends.end(low, rows)
            while at is not None and (high := self._shared(at)) is None:
                inner.append(at)
                at = self._ends.end(at, rows)
            high = at if at is None else high
            yield Range(low, high, inner)
            if high is None:
                return
            low = high

    def _shared(self, key: Key) -> Key | None:
        return _shared(self.compared, key) if self._sorts_alike else None

    def split(self, cut: Range, rows: int) -> Iterator[Range]:
        """The range in smaller ones; keys that ranges end at compare alike here too."""
        for piece in self.cut(cut.low, rows):
            if cut.high is not None and (piece.high is None or piece.high >= cut.high):  # type: ignore[operator]
                yield piece._replace(high=cut.high)
                return
            yield piece

    def totals(self, ranges: Iterator[Range]) -> Iterator[tuple[Range, Total, Total]]:
        """Each range with the source's checksum and the target's, in order."""
        flying = deque[tuple[Range, Future[Total], Future[Total]]]()
        while True:
            while len(flying) < AHEAD:
                # Where a range ends is asked over the source's own connection: in its thread.
                cut = self._source_thread.submit(next, ranges, None).result()
                if cut is None:
                    break
                theirs = self._target_thread.submit(self.target.total, cut)
                flying.append((cut, self._source_thread.submit(self.source.total, cut), theirs))
            if not flying:
                return
            cut, ours, theirs = flying.popleft()
            yield cut, ours.result(), theirs.result()


@contextmanager
def opened(source: HasRanges, target: Target, compared: Compared) -> Iterator[Pair]:
    """Both sides of a table, closed at the end, whatever their threads are at."""
    with (
        closing(source.ranges(compared)) as ours,
        closing(target.ranges(compared)) as theirs,
        ExitStack() as stack,
    ):
        yield Pair(compared, ours, theirs, stack)


def _shared(compared: Compared, key: Key) -> Key | None:
    """The key, if every server sorts it alike."""
    if len(key) != 1:
        return None
    if isinstance(key[0], int):
        return key
    text = str(key[0]).lower()
    name = compared.kinds[compared.table.identity[0]].name
    return [text] if name in ("uuid", "text") and _UUID.fullmatch(text) else None
