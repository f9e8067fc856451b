"""One target's apply, as attempts for the supervisor: until stopped, or up to the log's end.

Startup order: `prepare`, reach the log, say what was missed, read the checkpoint, apply. Every
attempt opens everything anew. A target that is paused is waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from apply.loop import apply
from apply.target import Applied, Paused, Target
from ops import journal, show
from ops.ancestors import Asking
from ops.backlog import Backlog, backlog, named
from ops.compose import opened_log, opened_target, target_config
from ops.config import Config
from ops.flow import Account
from ops.readers import Reading
from ops.supervise import Signals, supervise
from schemas.change import Batch, Offset, Position
from schemas.errors import Fenced, TargetPaused

PAUSED_LOOK_S = 1.0
"""How often a paused target is asked whether it was resumed."""
TRIES = 6
"""So often `--once` tries in a row without success: about ten seconds, then the scheduler's turn
comes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an apply up to the log's end did. rows: written to the target. missed: what lay in the
    log when it began. paused: why it did nothing.
    """

    target: str
    rows: int
    batches: int
    position: Position | None
    offset: Offset | None
    batch: int | None
    committed_at: int | None
    missed: Backlog
    paused: Paused | None


def run_apply(
    config: Config,
    name: str,
    signals: Signals,
    *,
    once: bool = False,
    tries: int | None = None,
    seen: Callable[[Batch], None] = lambda batch: None,
) -> Done:
    """Apply until stopped; with `once` until the log's end.

    once: raises Fenced before it writes where another process applies, and Transient after so many
    tries. seen: told of each batch that was applied.
    """
    source = target_config(config, name).source
    with opened_target(config, name) as target, opened_log(config, source) as log:
        target.prepare([])
        before, paused = target.applied(), target.paused()
        # Raises where the log cannot be reached: a person should see that at once.
        missed = backlog(log, name, before.offset if before else None)
    lines, total, began = journal.get(target=name), 0, False
    if missed.rows:
        lines.info(
            "missed",
            batches=missed.batches,
            rows=missed.rows,
            since=show.instant(missed.since),
            until=show.instant(missed.until),
        )

    def attempt(heed: Callable[[bool], None]) -> None:
        nonlocal began
        account = Account("applied", target=name)

        def applied(batch: Batch | None, rows: int) -> None:
            nonlocal total
            total += rows
            account.add(rows, batch)
            asking.applied(batch)
            reading.look()
            if batch is not None:
                seen(batch)
            heed(batch is not None)

        with opened_log(config, source) as log, opened_target(config, name) as target:
            asking = Asking(config, target, partial(opened_log, config, source))
            reading = Reading(target, partial(opened_log, config, source))
            # Not later: after a lost connection, the one who holds it may be this very process.
            if not target.hold() and once and not began:
                raise rival(name)
            began = True
            reading.look()
            while True:
                try:
                    with named(name):
                        apply(log, target, follow=not once, seen=applied)
                    asking.applied(None)
                    return
                except TargetPaused:
                    if once:
                        return
                    _await_resume(target, signals, name)

    if paused is None or not once:
        supervise(attempt, signals, tries=tries, target=name)
    with opened_target(config, name) as target:
        after, paused = target.applied(), target.paused()
    return Done(
        target=name,
        rows=total,
        batches=_batch(after) - _batch(before),
        position=Position(after.position) if after else None,
        offset=after.offset if after else None,
        batch=after.batch if after else None,
        committed_at=after.committed_at if after else None,
        missed=missed,
        paused=paused,
    )


def rival(name: str) -> Fenced:
    """The error of who comes second."""
    return Fenced(
        f"found that another process applies to {name} already",
        hint=f"let it, and watch it: headwater catch-up {name} --watch",
    )


def _await_resume(target: Target, signals: Signals, name: str) -> None:
    lines = journal.get(target=name)
    while (paused := target.paused()) is not None:
        if lines is not None:
            lines.warning("paused", since=show.instant(paused.paused_at), reason=paused.reason)
            lines = None
        signals.wait(PAUSED_LOOK_S)
    journal.get(target=name).info("resumed")


def _batch(applied: Applied | None) -> int:
    return applied.batch if applied else 0
