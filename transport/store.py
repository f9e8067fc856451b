"""The seam below a log on this machine: where its entries and runs of rows are kept.

Not here: the protocol (transport/local.py). Implemented by transport/sqlite.py and
transport/memory.py.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from schemas.change import Rows
from schemas.table import Table
from transport.record import Entry, Record, Span

TOPIC = "rows"
"""What the spans of a local log's records name."""


class Store(Protocol):
    """One source's entries, numbered from 1 without gaps, and runs of rows, numbered in order."""

    @property
    def incarnation(self) -> str:
        """Names this store; another one, or one made anew, has another."""
        ...

    def writing(self, *, durable: bool) -> AbstractContextManager[object]:
        """An exclusive transaction; once `durable` ones end, all so far outlives a power cut."""
        ...

    def bounds(self) -> tuple[int, int]:
        """The oldest and the newest entry's offset; (1, 0) when there was never one."""
        ...

    def entries(self, after: int, limit: int) -> list[tuple[int, Entry]]:
        """Up to `limit` entries that follow the offset `after`, in order."""
        ...

    def written_at(self, after: int) -> float | None:
        """When the first entry after this offset was added, in seconds since 1970; None: none."""
        ...

    def add_entry(self, entry: Entry) -> int:
        """Add an entry; its offset. In `writing` only."""
        ...

    def add_rows(self, epoch: int, run: int, rows: Rows) -> int:
        """Add a run of rows, and their table's description if it is new. In `writing` only."""
        ...

    def rows(self, epoch: int, run: int, first: int, last: int) -> Iterator[Rows]:
        """The runs of rows of (epoch, run) in this stretch, in order, by short reads."""
        ...

    def described(self) -> list[Table]:
        """Every description, in the order in which they came."""
        ...

    def reader(self, target: str) -> tuple[str, float] | None:
        """The session noted for a target, and when, in seconds since 1970."""
        ...

    def note_reader(self, target: str, session: str | None) -> None:
        """Note it; None: forget. In `writing` only."""
        ...

    def delete_orphans(self) -> None:
        """Delete rows after the newest that any entry names."""
        ...

    def delete_before(self, offset: int, age_s: float) -> None:
        """Delete the oldest entries, below `offset` and older than `age_s`, and their rows."""
        ...

    def wait(self) -> None:
        """Give the time back for some milliseconds, at most until an entry is added."""
        ...

    def drop(self) -> list[str]: ...
    def close(self) -> None: ...


def span_of(entry: Entry) -> Span | None:
    """The stretch of runs of rows that a record of a local log names."""
    return entry.spans.get(TOPIC, {}).get(0) if isinstance(entry, Record) else None
