"""One capture as attempts for the supervisor: open, loop, close (of an apply: ops/applying.py).

Startup order: checks, `prepare` where the log is new, claim the log, first copies and stream.
Invariant: every attempt opens everything anew.
"""

from collections.abc import Callable, Iterator, Mapping
from time import monotonic, time
from typing import Any

from apply.declared import told_parents
from capture.loop import capture
from capture.snapshot import with_copies
from capture.source import Source
from ops import journal
from ops.beginning import beginning, begun
from ops.compose import opened_log, opened_source, source_config
from ops.config import Config
from ops.prepare import make_ready
from ops.supervise import Signals, supervise
from schemas.change import Batch, Commit, Piece
from schemas.progress import asked_copies
from transport.log import Log, Opened

SPEAK_EVERY_S = 1.0


class CopyEnded(Exception):
    """The copy that was asked for has ended, and the log holds that."""


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
    until: int | None = None,
    copied: Callable[[Mapping[str, Any]], None] = lambda copy: None,
    begin: str | None = None,
) -> None:
    """Capture until stopped; with `until`, the number of a request, until that copy has ended.

    copied: told that copy's state (schemas/progress.py) as it goes into the log. begin: the
    position at which a log that holds nothing yet begins, by default now (see ops/beginning.py).
    """
    settings = source_config(config, name)
    start = beginning(config, name, begin) if begin is not None else None
    asked = start
    names = [table.full_name for table in make_ready(config, [name], [])[name]]
    wanted = dict.fromkeys(names, settings.first_copy)
    after = told_parents(config.targets[t].placement for t in config.targets_of(name))
    anew: set[str] = set()

    def stream(source: Source, log: Log, opened: Opened) -> Iterator[Piece]:
        nonlocal asked
        if asked is not None and opened.position is not None and opened.position != asked:
            raise begun(name, opened.position)  # by another capture, since we looked
        asked = None
        return with_copies(
            source,
            opened,
            wanted,
            pace=settings.pace,
            begin=start,
            asked=log.requests,
            anew=anew,
            after=after,
        )

    def attempt(heed: Callable[[bool], None]) -> None:
        account = Account("captured", source=name)

        def seen(piece: Piece) -> None:
            rows = sum(map(len, piece.rows))
            account.add(rows, piece.commit)
            if until is not None and piece.commit is not None and piece.commit.progress:
                copy = asked_copies(piece.commit.progress).get(str(until))
                if copy is not None:
                    copied(copy)
                    if copy["state"] != "copying":
                        raise CopyEnded
            heed(piece.commit is not None and (piece.commit.transactions > 0 or rows > 0))

        with (
            opened_source(config, name, copied_anew=anew) as source,
            opened_log(config, name) as log,
        ):
            try:
                capture(source, log, stream=lambda opened: stream(source, log, opened), seen=seen)
            except CopyEnded:
                accepted = log.flush()
                if accepted is not None:
                    source.ack(accepted)

    supervise(attempt, signals, source=name)
