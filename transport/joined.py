"""Accepted records -> batches: one by one, or several that wait already as one.

A target that is behind writes a thousand small batches in the time of one. Invariant: the rows keep
their order, and what is given as one is what a capture might have cut as one batch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from schemas.change import Offset, Rows
from transport.batch import StoredBatch
from transport.record import Record, Span

Fetch = Callable[[], Iterator[Rows]]


class Link(NamedTuple):
    """An accepted record, and the place just after it."""

    record: Record
    offset: Offset


class _Held:
    """Links that may be given as one batch."""

    def __init__(self, together: int) -> None:
        self._together = together
        self._links: list[Link] = []
        self._rows = 0
        self._ends: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._links)

    def takes(self, record: Record) -> bool:
        """Whether the record's rows may be given with those before it.

        A stretch of a partition that overlaps an earlier one holds other batches' rows too (see
        kafka_draft): such a batch is read by itself.
        """
        if not self._links:
            return True
        last = self._links[-1].record
        return (
            self._rows + record.row_count <= self._together
            and _is_plain(last)
            and _is_plain(record)
            and all(span.first > self._ends.get(place, -1) for place, span in _spans(record))
        )

    def add(self, link: Link) -> None:
        self._links.append(link)
        self._rows += link.record.row_count
        self._ends.update((place, span.last) for place, span in _spans(link.record))

    def take(self) -> list[Link]:
        """Give the links out, and begin anew."""
        links = self._links
        self._links, self._rows, self._ends = [], 0, {}
        return links


def up_to(links: Iterator[Link | None], until: int | None) -> Iterator[Link | None]:
    """The links to the batch `until` (None: all of them)."""
    for link in links:
        if until is None or link is None or link.record.batch <= until:
            yield link
        if until is not None and link is not None and link.record.batch >= until:
            return


def batches(
    links: Iterator[Link | None],
    together: int,
    fetch: Callable[[Sequence[Record]], Fetch],
    target: str | None,
) -> Iterator[StoredBatch | None]:
    """Give the links as batches, of at most `together` rows where several make one (0: never), as
    `target` reads them (None: with all that they hold).

    After a link, None says that nothing more waits just now, and is not passed on. fetch: the rows
    of consecutive records; the ordinals of the n-th (from 0) have n above batch.PLACE_BITS.
    """
    held = _Held(together)

    def whole() -> StoredBatch:
        found = held.take()
        records = tuple(link.record for link in found)
        return StoredBatch(
            records=records, offset=found[-1].offset, fetch=fetch(records), target=target
        )

    try:
        for link in links:
            if link is None:
                yield whole() if held else None
                continue
            link = link._replace(record=link.record.seen_by(target))
            if not held.takes(link.record):
                yield whole()
            held.add(link)
            if not together:
                yield whole()
    except Exception:
        # What came before the fault is good: a target may go so far.
        if held:
            yield whole()
        raise
    if held:
        yield whole()


def _is_plain(record: Record) -> bool:
    """Seeds and truncates have their own places; and during a first copy a row may come by its
    chunk and by the stream, which are two batches and two writes.
    """
    alone = record.seeds or record.truncates or record.sweeps or record.check
    return not (alone or record.pending(None))


def _spans(record: Record) -> Iterator[tuple[tuple[str, int], Span]]:
    for topic, parts in record.spans.items():
        for partition, span in parts.items():
            yield (topic, partition), span
