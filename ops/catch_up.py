"""`headwater catch-up`: apply until the target is level with its source, or watch until it is.

Level: the target has applied all that the source had committed at a moment that is at most so many
seconds ago, by the source's clock, no first copy is unfinished, and no ancestor is awaited. The
source is asked for that moment's place in its log (the goal); a goal that was reached too late is
replaced by a newer one. Nothing is level for being idle.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

from apply.loop import apply
from apply.target import Applied, Target
from capture.source import Source
from ops.ancestors import Asking
from ops.applying import rival
from ops.compose import opened_log, opened_source, opened_target, target_config
from ops.config import Config
from ops.readers import Reading
from ops.supervise import Signals, supervise
from ops.verify_fence import Records
from schemas.change import Batch, Position
from transport.log import Log

LOOK_S = 1.0
"""How often it is looked, and said, how far the target is."""
RATE_OVER = 15
"""Looks over which the rate is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """rows: applied since the start. rows_left, batches_left: in the log, behind the checkpoint;
    more may come. eta_s: for those rows at this rate, None while nothing moves. lag_s: the source's
    clock now, less the newest moment up to which all is known to be applied (None: none yet).
    copying: tables of which everything else is applied, and the first copy is not.
    """

    rows: int
    rows_left: int
    batches_left: int
    rows_per_s: float
    eta_s: float | None
    lag_s: float | None
    position: Position | None
    copying: tuple[str, ...]
    level: bool


class Level:
    """Whether a target is level with the source; within_s: how old the goal may be then."""

    def __init__(self, source: Source, within_s: float) -> None:
        self._source, self._within_us = source, within_s * 1e6
        self._goal, self._goal_at = source.now()
        self._known_at: int | None = None
        self.lag_s: float | None = None

    def is_reached(self, position: Position | None) -> bool:
        """Whether a target that lacks nothing up to `position` is level; sets the next goal where
        it is not.
        """
        reached = position is not None and self._source.reached(self._goal, position)
        now, clock = self._source.now()
        if reached:
            self._known_at = self._goal_at
        lag_us = None if self._known_at is None else max(0, clock - self._known_at)
        self.lag_s = None if lag_us is None else round(lag_us / 1e6, 3)
        if reached and lag_us is not None and lag_us <= self._within_us:
            return True
        if reached:
            self._goal, self._goal_at = now, clock
        return False


class Distance:
    """What lies between a checkpoint and the log's end: each record is read once, no row is."""

    def __init__(self, log: Log, target: str, start: Applied | None) -> None:
        self._log, self._target = log, target
        self._offset = start.offset if start else None
        self._rows = self._first_rows = start.rows if start else 0
        self._batch = self._newest_full = start.batch if start else 0
        self._position = Position(start.position) if start else None

    def left(self, applied: Applied | None) -> tuple[int, int, Position | None]:
        """Rows and batches that are not applied, and the place up to which nothing is missing."""
        for batch in self._log.read(self._offset, follow=False, target=self._target):
            if batch is not None:
                self._offset, self._position = batch.offset, batch.position
                self._batch, self._rows = batch.batch, self._rows + batch.row_count
                self._newest_full = self._newest_full if batch.is_empty else batch.batch
        at = applied.batch if applied else 0
        rows = max(0, self._rows - (applied.rows if applied else self._first_rows))
        if at >= self._newest_full:
            return rows, max(0, self._batch - at), self._position
        place = Position(applied.position) if applied else None
        return rows, max(0, self._batch - at), place


class _Account:
    """One look after the other."""

    def __init__(self, target: Target, records: Log, level: Level) -> None:
        self._target, self._level = target, level
        self._distance, self._copies = (
            Distance(records, target.name, target.applied()),
            Records(records, target.name).pending,
        )
        applied = target.applied()
        self._began = applied.rows if applied else 0
        self._looks = deque([(monotonic(), 0)], RATE_OVER)

    @property
    def is_due(self) -> bool:
        return monotonic() - self._looks[-1][0] >= LOOK_S

    def look(self) -> Progress:
        applied = self._target.applied()
        rows_left, batches_left, place = self._distance.left(applied)
        is_reached = applied is not None and self._level.is_reached(place)
        copying = self._copies(applied.offset) if applied and is_reached else frozenset()
        is_whole = is_reached and not copying and not self._target.awaited()
        rows = (applied.rows if applied else 0) - self._began
        since, before = self._looks[0]
        self._looks.append((monotonic(), rows))
        rate = (rows - before) / max(monotonic() - since, 0.001)
        return Progress(
            rows=rows,
            rows_left=rows_left,
            batches_left=batches_left,
            rows_per_s=round(rate, 1),
            eta_s=round(rows_left / rate, 1) if rate else None if rows_left else 0.0,
            lag_s=self._level.lag_s,
            position=place,
            copying=tuple(sorted(copying)),
            level=is_whole,
        )


class _Reached(Exception):
    """The target is level."""


def catch_up(
    config: Config,
    name: str,
    signals: Signals,
    *,
    watch: bool,
    within_s: float,
    seen: Callable[[Progress], None],
) -> None:
    """Return once the target is level; told of progress about once a second.

    watch: another process applies. Otherwise this one does, and raises Fenced before it writes
    where another one holds the target. A source whose capture does not run never comes level: it is
    waited for.
    """
    settings = target_config(config, name)
    with opened_target(config, name) as target:
        target.checkpoint()  # raises where the target was never prepared
        if not watch:
            target.prepare([])

    began = False

    def attempt(heed: Callable[[bool], None]) -> None:
        nonlocal began
        with (
            opened_source(config, settings.source) as source,
            opened_target(config, name) as target,
            opened_log(config, settings.source) as log,
            opened_log(config, settings.source) as records,
        ):
            # Not later: after a lost connection, the one who holds it may be this very process.
            if not watch and not target.hold() and not began:
                raise rival(name)
            began = True
            account = _Account(target, records, Level(source, within_s))

            def look() -> None:
                progress = account.look()
                seen(progress)
                if progress.level:
                    raise _Reached

            asking = Asking(config, target, partial(opened_log, config, settings.source))

            reading = Reading(target, partial(opened_log, config, settings.source))
            if not watch:
                reading.look()

            def applied(batch: Batch | None, rows: int) -> None:
                heed(batch is not None)
                asking.applied(batch)
                reading.look()
                if account.is_due:
                    look()

            try:
                while True:
                    if not watch:
                        apply(log, target, follow=False, seen=applied)
                        asking.applied(None)
                    look()
                    signals.wait(LOOK_S if watch else LOOK_S / 5)
            except _Reached:
                return

    supervise(attempt, signals, target=name)
