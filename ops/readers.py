"""A target that reads a log under a name which another database reads it by: a clone of a child
that was restored and came online, or two children that were given one name.

As in CouchDB's replicator, both sides keep sessions. While a target's changes are applied it draws
a new name now and then, and keeps the last ones; the log keeps, for the target's name, the one
before the newest. Invariant: what the log has is among the target's own; so a restart, a crash at
any line, and a fail-over to a replica that lost the last seconds go on, and a copy that was made
earlier does not, once the other has gone on from there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic, time
from uuid import uuid4

import structlog

from apply.target import Target
from ops.compose import opened_log, target_config
from ops.config import Config
from schemas.errors import HeadwaterError, Misconfigured, Operator
from transport.log import Log

log = structlog.get_logger()

DRAW_S = 30.0
"""How often a new session is drawn."""
KEPT = 20
LIVE_S = 60.0
"""A target without sessions, a new one, takes a name over that was not read by for so long."""


class Reading:
    """One attempt's reading as a target; log: opens the source's log."""

    def __init__(self, target: Target, log: Callable[[], AbstractContextManager[Log]]) -> None:
        self._target, self._log = target, log
        self._drawn_at = float("-inf")

    def look(self) -> None:
        """See that nobody else reads by this name, and say that this one does; at most once in
        DRAW_S. Raises Operator where another database does.
        """
        if monotonic() - self._drawn_at < DRAW_S:
            return
        self._drawn_at = monotonic()
        try:
            self._look()
        except Misconfigured as error:
            # It may read, and that it does. Nothing is lost but the sight of another.
            log.warning("reader_not_noted", target=self._target.name, reason=str(error))
            self._drawn_at = float("inf")

    def _look(self) -> None:
        with self._log() as reads:
            mine = self._target.sessions()
            self._refuse_other(reads, mine)
            if mine and 0 <= time() - drawn_at(mine[-1]) < DRAW_S:
                return  # prompted often: a replica may still lack what was drawn just now
            # First here: a log that has what the target has not would be another's.
            mine = _drawn(self._target)
            _note(reads, self._target, mine[-2:][0])

    def _refuse_other(self, reads: Log, mine: list[str]) -> None:
        name, reader = self._target.name, reads.reader(self._target.name)
        if reader is None or reader.session in mine:
            return
        age_s = time() - reader.at / 1e6
        if not mine and age_s > LIVE_S:
            log.warning("reader_replaced", target=name, last_read_s=round(age_s))
            return
        raise Operator(
            f"found that another database reads this log as {name}, {max(age_s, 0):.0f} s ago last",
            hint=f"give this one a name of its own in the configuration; or, where it is to be "
            f"{name} from now on, stop the other and run: headwater child adopt {name}",
        )


def adopt(reads: Log, target: Target) -> None:
    """Let this database be who reads by the target's name; any other is refused from then on."""
    _note(reads, target, _drawn(target)[-1])


def drawn_at(session: str) -> int:
    """When a session was drawn, in seconds since 1970."""
    return int(session.partition(".")[0])


def _drawn(target: Target) -> list[str]:
    """Draw a session; the target's own, newest last."""
    return target.add_session(f"{int(time())}.{uuid4().hex[:16]}", kept=KEPT)


def forget(config: Config, name: str) -> None:
    """The target's database begins anew: another one may read by its name. A log that cannot be
    reached is left as it is: it refuses a new database for LIVE_S at most.
    """
    try:
        with opened_log(config, target_config(config, name).source) as reads:
            reads.read_by(name, None)
    except HeadwaterError as error:
        log.warning("reader_not_forgotten", target=name, reason=str(error))


def _note(reads: Log, target: Target, session: str) -> None:
    applied = target.applied()
    reads.read_by(target.name, session, applied.offset if applied else None)
