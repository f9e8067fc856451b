"""What log and source still hold, beside what each reader needs: said before it is too late.

A target needs the log from its checkpoint on, a capture needs the source from the log's end on.
Half of the time or the room used up is a warning; all of it is what status and preflight refuse.
Nothing is changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

from apply.target import Applied
from capture.source import Source
from ops.compose import opened_log, opened_source, opened_target
from ops.config import Config
from schemas.change import Position
from schemas.errors import HeadwaterError
from schemas.finding import Finding
from transport.log import Log
from transport.record import Checkpoint

ENOUGH = 0.5
"""The share of a retention from which on it is warned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRetention:
    """log_since: when the oldest record that the log holds was stored there (microseconds since
    1970). log_keeps_s, log_keeps_bytes: how long, how much (Kafka: of a partition) it keeps.
    source_keeps_s: after so long the source forgets by itself; source_held_bytes: what it holds
    back for the capture, source_spare_bytes: what may be written until it lets go. None: no limit,
    or nothing says.
    """

    log_since: int | None = None
    log_keeps_s: float | None = None
    log_keeps_bytes: int | None = None
    source_keeps_s: float | None = None
    source_held_bytes: int | None = None
    source_spare_bytes: int | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRetention:
    """needs_since: when the next record that the target needs was stored in the log (microseconds
    since 1970; None: it needs none). forgotten_in_s: when the log may forget it; None: never.
    """

    needs_since: int | None = None
    forgotten_in_s: float | None = None
    findings: tuple[Finding, ...] = ()


def of_source(
    source: Source, log: Log, position: Position | None, lag_s: float | None
) -> SourceRetention:
    """position: where the log ends. lag_s: how old its newest commit is where it is behind, 0 where
    it holds all that the source has; None where that is to be found out.
    """
    kept = log.kept(None)
    if position is None:
        return SourceRetention(log_keeps_s=kept.keeps_s, log_keeps_bytes=kept.keeps_bytes)
    keeps = source.keeps(position)
    found = list(keeps.findings)
    if keeps.keeps_s is not None and not found:
        if lag_s is None:
            since_s = time() - (kept.until or 0) / 1e6
            lag_s = 0 if source.reached(source.now()[0], position) else since_s
        found += _behind(source.name, lag_s, keeps.keeps_s)
    return SourceRetention(
        log_since=kept.since,
        log_keeps_s=kept.keeps_s,
        log_keeps_bytes=kept.keeps_bytes,
        source_keeps_s=keeps.keeps_s,
        source_held_bytes=keeps.held_bytes,
        source_spare_bytes=keeps.spare_bytes,
        findings=tuple(found),
    )


def of_target(name: str, log: Log, applied: Applied | None) -> TargetRetention:
    """Raises LogTruncated where the log no longer holds what the target needs."""
    kept = log.kept(applied.offset if applied else None)
    if kept.needed is None or kept.keeps_s is None:
        return TargetRetention(needs_since=kept.needed)
    age_s = max(0.0, time() - kept.needed / 1e6)
    left_s = max(0.0, kept.keeps_s - age_s)
    found = []
    if applied is not None and age_s > kept.keeps_s * ENOUGH:
        found.append(
            Finding(
                where=f"target {name}",
                problem=f"needs what the log was given {_span(age_s)} ago, and the log keeps "
                f"{_span(kept.keeps_s)}: {_span(left_s)} are left",
                fix=f"let it catch up (headwater catch-up {name}), or raise log.retention_hours",
                refused=False,
            )
        )
    return TargetRetention(
        needs_since=kept.needed, forgotten_in_s=round(left_s, 1), findings=tuple(found)
    )


def findings(config: Config, sources: list[str], targets: list[str]) -> dict[str, list[Finding]]:
    """For preflight: by name. What has no log yet needs none."""
    found: dict[str, list[Finding]] = {}
    if config.log.kind == "sqlite" and not Path(config.log.path).exists():
        return found
    for name in sources:
        found[name] = list(_of_named_source(config, name))
    for name in targets:
        found[name] = list(_of_named_target(config, name))
    return found


def _of_named_source(config: Config, name: str) -> Iterator[Finding]:
    try:
        with opened_source(config, name) as source, opened_log(config, name) as log:
            span = log.span()
            position = Checkpoint.loads(span[1]).position if span else None
            yield from of_source(source, log, position, None).findings
    except HeadwaterError as error:
        yield Finding(where=f"log of {name}", problem=str(error), fix=error.hint)


def _of_named_target(config: Config, name: str) -> Iterator[Finding]:
    source = config.targets[name].source
    try:
        with opened_target(config, name) as target, opened_log(config, source) as log:
            if (applied := target.applied()) is not None:
                yield from of_target(name, log, applied).findings
    except HeadwaterError as error:
        yield Finding(where=f"log of {source}", problem=str(error), fix=error.hint)


def _behind(name: str, lag_s: float, keeps_s: float) -> Iterator[Finding]:
    if lag_s > keeps_s * ENOUGH:
        yield Finding(
            where=f"source {name}",
            problem=f"was last captured {_span(lag_s)} ago, and keeps its log for {_span(keeps_s)}",
            fix=f"start the capture: headwater capture {name}",
            refused=False,
        )


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
