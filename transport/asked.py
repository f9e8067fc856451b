"""Requests as the log's writer comes across them, and what its records may name meanwhile.

Invariant: a record that names an entry in `accepted` has taken in every request before that entry.
So whoever opens the log anew finds, after what the newest record names, every request that no
record has taken in; older ones need not be looked for.
"""

from collections import deque
from collections.abc import Iterable

from schemas.change import Progress
from schemas.progress import REQUESTS
from transport.record import Entry, Record, Request

Asked = tuple[int, Request]
"""A request and its number."""


class Requests:
    """What one writer has read of requests."""

    def __init__(self) -> None:
        self._new: list[Asked] = []
        self._untold: deque[tuple[int, int | None]] = deque()

    def begin(self, entries: Iterable[tuple[int, Entry]], newest: Record | None) -> None:
        """Note the requests among what follows `unread_after(newest)`, as the log is opened."""
        for number, entry in entries:
            self.found(number, entry, None if newest is None else newest.accepted)

    def found(self, number: int, entry: Entry, accepted: int | None) -> None:
        """Note an entry, if it is a request. accepted: the newest accepted record before it, or an
        older one.
        """
        if isinstance(entry, Request):
            self._new.append((number, entry))
            self._untold.append((number, accepted))

    def take(self) -> list[Asked]:
        """Give out what was found since the last call, in order."""
        new, self._new = self._new, []
        return new

    def nameable(self, progress: Progress, accepted: int | None) -> int | None:
        """Which accepted record a record with this progress may name, at best `accepted`."""
        taken_in = upto(progress)
        while self._untold and self._untold[0][0] <= taken_in:
            self._untold.popleft()
        return self._untold[0][1] if self._untold else accepted


def upto(progress: Progress) -> int:
    """The newest request that this progress has taken in."""
    number: int = progress.get(REQUESTS, {}).get("upto", -1)
    return number


def unread_after(record: Record | None) -> int:
    """The offset after which requests may stand that the chain's newest record has not taken in."""
    return -1 if record is None or record.accepted is None else record.accepted
