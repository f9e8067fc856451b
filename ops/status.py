"""Where every source's log and every target stand: positions, and seconds of source commit time.

A lag here is never "idle, so caught up": it is computed from commits that were read, and None where
none is known. Nothing is written, and one database that is away does not hide the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from apply.target import Applied, Verified
from ops.backlog import backlog
from ops.compose import opened_log, opened_source, opened_target
from ops.config import Config
from ops.retention import SourceRetention, TargetRetention, of_source, of_target
from ops.verify_report import VERDICTS
from schemas.change import Batch, Offset, Position
from schemas.errors import HeadwaterError
from transport.log import Log
from transport.record import Checkpoint

PATIENCE_S = 2.0
"""A running capture brings the place where an idle source stands into the log within a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStatus:
    """lag_s: the newest commit in the log minus the newest one applied, in source commit time;
    0 where the log holds nothing more, None where no commit with a time is known.

    batches_behind, rows_behind: in the log and not applied yet, batches without rows included;
    behind_since: the commit time of the oldest of those rows. paused_at, paused_for: since when,
    and why, it is paused. rows: rows applied so far. parked: changes that wait for a person or for
    others; parked_since: when the first of them was parked. placeholders: rows that stand for
    parents which have not come. awaited: rows outside a condition that others need, and that are
    still to come. verified: what verify last found of
    each table, and when it last held.
    """

    target: str
    source: str
    position: str | None = None
    batch: int | None = None
    batches_behind: int | None = None
    rows_behind: int | None = None
    behind_since: int | None = None
    paused_at: int | None = None
    paused_for: str | None = None
    committed_at: int | None = None
    applied_at: int | None = None
    rows: int | None = None
    lag_s: float | None = None
    parked: int = 0
    parked_since: int | None = None
    awaited: int = 0
    placeholders: int = 0
    retention: TargetRetention = field(default_factory=TargetRetention)
    verified: tuple[Verified, ...] = ()
    error: str | None = None
    hint: str | None = None
    exit_code: int = 0

    @property
    def verdicts(self) -> str | None:
        """How many tables verify found valid, invalid and unknown; None where it never ran."""
        found = [v.verdict for v in self.verified if v.verdict is not None]
        counts = {v: found.count(v) for v in VERDICTS}
        return ", ".join(f"{n} {v}" for v, n in counts.items() if n) or None

    @property
    def held_at(self) -> int | None:
        """The instant of which verify last found every table valid; None where some never was."""
        held = [v.held_at for v in self.verified]
        return None if None in held else min((h for h in held if h is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """lag_s: 0 when the log holds, or within PATIENCE_S gets, all that the source had when asked;
    else the age (by the source's clock) of the newest commit in the log.

    The age of the oldest commit that is *not* in the log cannot be known without reading it: after
    a quiet time, lag_s overstates until the next commit arrives. None: no commit with a time yet.
    """

    source: str
    position: str | None = None
    source_position: str | None = None
    committed_at: int | None = None
    lag_s: float | None = None
    retention: SourceRetention = field(default_factory=SourceRetention)
    error: str | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """What the log's records after a checkpoint say: how many, and the newest commit's time."""

    position: Position | None
    batches: int
    committed_at: int | None


def target_status(config: Config, name: str) -> TargetStatus:
    """One target's place in its source's log; what cannot be asked is in `error`."""
    source = config.targets[name].source
    known: dict[str, Any] = {"target": name, "source": source}
    try:
        with opened_target(config, name) as target, opened_log(config, source) as log:
            target.checkpoint()  # raises where the target was never prepared
            applied, paused = target.applied(), target.paused()
            if paused is not None:
                known |= {"paused_at": paused.paused_at, "paused_for": paused.reason}
            if applied is not None:
                known |= _place(applied)
            known["verified"] = tuple(v._replace(progress=None) for v in target.verified())
            behind = backlog(log, name, applied.offset if applied else None)
            known["retention"] = of_target(name, log, applied)
            waiting, standing = target.parked(), target.placeholders()
            known["awaited"] = target.awaited()
    except HeadwaterError as error:
        known |= {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
        return TargetStatus(**known)
    lag_s = None
    if applied is not None:
        newest = behind.until or applied.committed_at
        lag_s = _seconds(newest, applied.committed_at) if behind.batches else 0.0
    return TargetStatus(
        **known,
        batches_behind=behind.batches,
        rows_behind=behind.rows,
        behind_since=behind.since,
        lag_s=lag_s,
        parked=len(waiting),
        placeholders=len(standing),
        parked_since=min((change.parked_at for change in waiting), default=None),
    )


def _place(applied: Applied) -> dict[str, Any]:
    return {
        "position": applied.position,
        "batch": applied.batch,
        "committed_at": applied.committed_at,
        "applied_at": applied.applied_at,
        "rows": applied.rows,
    }


def source_status(config: Config, name: str, targets: Mapping[str, TargetStatus]) -> SourceStatus:
    """How far one source's log is behind the source; reads the log from the furthest target on."""
    try:
        after, committed_at = _furthest(config, name, targets)
        with opened_source(config, name) as source, opened_log(config, name) as log:
            now_position, now = source.now()

            def is_there(position: Position | None) -> bool:
                return position is not None and source.reached(now_position, position)

            end = _end(log, after, committed_at, until=is_there)
            lag_s = 0.0 if is_there(end.position) else _seconds(now, end.committed_at)
            retention = of_source(source, log, end.position, lag_s)
    except HeadwaterError as error:
        return SourceStatus(source=name, error=str(error), exit_code=error.exit_code)
    return SourceStatus(
        source=name,
        position=end.position,
        source_position=now_position,
        committed_at=end.committed_at,
        lag_s=lag_s,
        retention=retention,
    )


def statuses(config: Config) -> tuple[list[SourceStatus], list[TargetStatus]]:
    """All sources and targets of the configuration."""
    targets = {name: target_status(config, name) for name in config.targets}
    sources = [source_status(config, name, targets) for name in config.sources]
    return sources, list(targets.values())


def _furthest(
    config: Config, source: str, targets: Mapping[str, TargetStatus]
) -> tuple[Offset | None, int | None]:
    """From where the log need be read, and the newest commit before: where its first target is."""
    known = [t for t in targets.values() if t.source == source and t.batch is not None]
    furthest = max(known, key=lambda t: t.batch or 0, default=None)
    if furthest is None:
        return None, None
    with opened_target(config, furthest.target) as target:
        applied = target.applied()
    return (applied.offset, applied.committed_at) if applied else (None, None)


def _end(
    log: Log,
    after: Offset | None,
    committed_at: int | None,
    *,
    until: Callable[[Position | None], bool] | None = None,
) -> _End:
    """Read the records, not the rows, to the log's end; with `until`, wait PATIENCE_S for it."""
    span = log.span()
    if span is None:
        return _End(position=None, batches=0, committed_at=committed_at)
    batches = 0
    position = Checkpoint.loads(span[1]).position
    deadline = monotonic() + PATIENCE_S

    def note(batch: Batch) -> None:
        nonlocal after, batches, position, committed_at
        after, position, batches = batch.offset, batch.position, batches + 1
        committed_at = batch.committed_at or committed_at

    for batch in log.read(after, follow=False):
        if batch is not None:
            note(batch)
    if until is not None and not until(position):
        for batch in log.read(after, follow=True):
            if batch is not None:
                note(batch)
            if until(position) or monotonic() > deadline:
                break
    return _End(position=position, batches=batches, committed_at=committed_at)


def _seconds(newer: int | None, older: int | None) -> float | None:
    if newer is None or older is None:
        return None
    return round(max(0, newer - older) / 1e6, 3)
