"""Waiting until a target has applied what its source had at a look: lag is no difference."""

import time
from collections.abc import Callable, Iterable

from apply.target import Target
from capture.source import Source
from schemas.change import Offset, Position
from transport.log import Log

POLL_S = 0.02

LOOK_S = 0.5
"""How often the log is asked whether anything is left to apply."""


class Records:
    """What the log's records say to a target of the place where it stands."""

    def __init__(self, log: Log, target: str) -> None:
        self._log, self._target = log, target
        self._at: Offset | None = None
        self._pending: frozenset[str] = frozenset()

    def pending(self, at: Offset) -> frozenset[str]:
        """The tables whose first copy is not finished there; not before a place asked for
        earlier.
        """
        if at != self._at:
            for batch in self._log.read(self._at, follow=False, target=self._target):
                if batch is None:
                    continue
                self._at, self._pending = batch.offset, batch.pending
                if batch.offset == at:
                    break
        return self._pending

    def reached(self, at: Offset) -> Position | None:
        """The place up to which the log holds no rows after `at`: the target is there too, whose
        checkpoint follows such records only now and then. None: the next record has rows.
        """
        position = None
        for batch in self._log.read(at, follow=False, target=self._target):
            if batch is None:
                continue
            if not batch.is_empty:
                break
            position = batch.position
        return position


class NoRecords:
    """For a target whose log is not at hand: nothing is being copied."""

    def pending(self, at: Offset) -> frozenset[str]:
        """None."""
        return frozenset()

    def reached(self, at: Offset) -> Position | None:
        """Unknown."""
        return None


class Fence:
    """Waits for the target; `position` is where the source stood when it was last asked.

    timeout_s: how long the applier may take to pass. Once it has not, later calls do not wait.
    pause: waits so many seconds, or does what moves the target.
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        records: Records | NoRecords,
        pause: Callable[[float], None],
        timeout_s: float,
    ) -> None:
        self._source, self._target, self._records = source, target, records
        self._pause, self._timeout_s = pause, timeout_s
        self._look_at_s = 0.0
        self.note()

    def note(self) -> None:
        """Remember where the source stands now."""
        self.position, clock = self._source.now()
        self._ahead = clock - time.monotonic_ns() // 1000

    @property
    def clock(self) -> int:
        """Microseconds since 1970 UTC by the source's clock, as it went on since it was asked."""
        return self._ahead + time.monotonic_ns() // 1000

    def passes(self, tables: Iterable[str]) -> bool:
        """Whether the target passes what the source has now, and the tables' first copies."""
        self.note()
        wanted = frozenset(tables)
        self._look_at_s = time.monotonic() + LOOK_S
        return self.comes(lambda: self._is_passed(wanted))

    def applies(self, batch: int) -> bool:
        """Whether the target has applied this batch in time."""
        return self.comes(lambda: (at := self._target.applied()) is not None and at.batch >= batch)

    def shown(self) -> Callable[[], bool]:
        """Asks whether a look at the source sees all that the target holds by now."""
        applied = self._target.applied()
        return self._source.shown(Position(applied.position)) if applied else lambda: True

    def comes(self, condition: Callable[[], bool]) -> bool:
        """Whether it comes true in time."""
        deadline = time.monotonic() + self._timeout_s
        while not condition():
            if time.monotonic() >= deadline:
                self._timeout_s = 0.0
                return False
            self._pause(POLL_S)
        return True

    def _is_passed(self, tables: frozenset[str]) -> bool:
        applied = self._target.applied()
        return (
            applied is not None
            and self._is_there(Position(applied.position), applied.offset)
            and tables.isdisjoint(self._records.pending(applied.offset))
        )

    def _is_there(self, position: Position, at: Offset) -> bool:
        if self._source.reached(self.position, position):
            return True
        if time.monotonic() < self._look_at_s:
            return False
        self._look_at_s = time.monotonic() + LOOK_S
        ahead = self._records.reached(at)
        return ahead is not None and self._source.reached(self.position, ahead)
