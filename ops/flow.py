"""One capture and one apply as attempts for the supervisor: open, loop, close.

Startup order of a capture: checks, `prepare` where the log is new, claim the log, first copies and
stream. Of an apply: `prepare`, reach the log, read the checkpoint, apply. Invariant: every attempt
opens everything anew.
"""

from collections.abc import Callable, Iterator, Sequence
from time import monotonic, time

from apply.loop import apply
from capture.loop import capture
from capture.snapshot import with_first_copies
from capture.source import Source
from ops import journal
from ops.beginning import beginning, begun
from ops.compose import opened_log, opened_source, opened_target, source_config, target_config
from ops.config import Config
from ops.prepare import make_ready
from ops.supervise import Signals, supervise
from schemas.change import Batch, Commit, Piece, Progress
from schemas.errors import Misconfigured
from transport.log import Opened

SPEAK_EVERY_S = 1.0


class FirstCopiesDone(Exception):
    """Every first copy that was asked for is in the log."""


class Account:
    """Sums what a loop did and says it in one line, at most once a second."""

    def __init__(self, what: str, **facts: str) -> None:
        self._log, self._what = journal.get(**facts), what
        self._rows = self._batches = 0
        self._spoke_at = 0.0

    def add(self, rows: int, batch: Commit | Batch | None) -> None:
        """Count these rows; `batch` when they end one."""
        self._rows += rows
        self._batches += batch is not None and bool(rows or self._rows)
        if self._batches and batch is not None and monotonic() - self._spoke_at >= SPEAK_EVERY_S:
            self.say(batch)

    def say(self, batch: Commit | Batch) -> None:
        """Write the line and start anew."""
        at = batch.committed_at
        lag = {} if at is None else {"lag_s": round(time() - at / 1e6, 3)}
        self._log.info(
            self._what, rows=self._rows, batches=self._batches, position=batch.position, **lag
        )
        self._rows = self._batches = 0
        self._spoke_at = monotonic()


def run_capture(
    config: Config,
    name: str,
    signals: Signals,
    *,
    copy_again: Sequence[str] | None = None,
    copied: Callable[[int, int, int], None] = lambda rows, done, total: None,
    begin: str | None = None,
) -> None:
    """Capture until stopped; with `copy_again` (empty: all tables) until their copies are done.

    copied: told the rows copied so far, tables done, and tables wanted. begin: the position at
    which a log that holds nothing yet begins, by default now (see ops/beginning.py).
    """
    settings = source_config(config, name)
    start = beginning(config, name, begin) if begin is not None else None
    asked = start
    names = [table.full_name for table in make_ready(config, [name], [])[name]]
    for table in copy_again or ():
        if table not in names:
            raise Misconfigured(
                f"found no captured table {table} in {name}", hint=f"captured: {', '.join(names)}"
            )
    wanted = dict.fromkeys(names, settings.first_copy)
    again: set[str] = set(copy_again or names) if copy_again is not None else set()
    started: set[str] = set()
    rows_copied = 0

    def restarted(opened: Opened) -> Opened:
        """A copy starts anew until the log holds that it did; later attempts go on with it."""
        fresh: Progress = {
            t: {**opened.progress.get(t, {}), "what": "rows", "after": None, "done": False}
            for t in again - started
        }
        return opened._replace(progress={**opened.progress, **fresh}) if fresh else opened

    def stream(source: Source, opened: Opened) -> Iterator[Piece]:
        nonlocal asked
        if asked is not None and opened.position is not None and opened.position != asked:
            raise begun(name, opened.position)  # by another capture, since we looked
        asked = None
        return with_first_copies(
            source, restarted(opened), wanted, chunk_rows=settings.chunk_rows, begin=start
        )

    def attempt(heed: Callable[[bool], None]) -> None:
        account = Account("captured", source=name)

        def seen(piece: Piece) -> None:
            nonlocal rows_copied
            rows = sum(map(len, piece.rows))
            account.add(rows, piece.commit)
            rows_copied += sum(r.ops.count("r") for r in piece.rows)
            if piece.commit is not None and piece.commit.progress is not None and again:
                progress = piece.commit.progress
                # Our first accepted record holds the restarted state: from then on it is resumed.
                if log.accepted() is not None:
                    started.update(again)
                done = sum(bool(progress.get(t, {}).get("done")) for t in again)
                copied(rows_copied, done, len(again))
                if done == len(again):
                    raise FirstCopiesDone
            heed(piece.commit is not None and (piece.commit.transactions > 0 or rows > 0))

        with (
            opened_source(config, name, copied_anew=again) as source,
            opened_log(config, name) as log,
        ):
            try:
                capture(source, log, stream=lambda opened: stream(source, opened), seen=seen)
            except FirstCopiesDone:
                accepted = log.flush()
                if accepted is not None:
                    source.ack(accepted)

    supervise(attempt, signals, source=name)


def run_apply(config: Config, name: str, signals: Signals, *, once: bool = False) -> int:
    """Apply until stopped; with `once` until the log's end. Gives the number of rows written."""
    settings = target_config(config, name)
    with opened_target(config, name) as target, opened_log(config, settings.source) as log:
        target.prepare([])
        log.span()  # raises where the log cannot be reached: a person should see that at once
    total = 0

    def attempt(heed: Callable[[bool], None]) -> None:
        account = Account("applied", target=name)

        def seen(batch: Batch | None, rows: int) -> None:
            nonlocal total
            total += rows
            account.add(rows, batch)
            heed(batch is not None)

        with opened_log(config, settings.source) as log, opened_target(config, name) as target:
            apply(log, target, follow=not once, seen=seen)

    supervise(attempt, signals, target=name)
    return total
