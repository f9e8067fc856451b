"""Copies that are asked of whoever captures a source, through its log: no way to that process is
needed but the log, and the stream does not stop.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Any

from ops.compose import opened_log
from ops.config import Config
from schemas.change import Offset
from schemas.errors import Misconfigured, Operator
from schemas.progress import asked_copies
from transport.asked import upto
from transport.log import Log
from transport.record import Request

TAKEN_WITHIN_S = 15.0
"""A capture takes a request in within a second or two, unless it is in the middle of a transaction;
and one that has nothing to do writes a record every ten seconds.
"""
KEYS = 5_000
"""Listed rows in one request: it rides on every commit record until its end."""


class NotTaken(Exception):
    """Nobody captures the source."""


def resync(
    config: Config,
    source: str,
    target: str | None,
    keys: Mapping[str, Sequence[str]],
    *,
    timeout_s: float,
) -> int:
    """Have these rows copied for one target (None: for all) by the running capture, and rows that
    the source does not have deleted there; the batch at whose end the log holds all that.

    keys: by table full name, identities as JSON texts. Raises Operator where no capture does it
    within the time.
    """
    batch = 0
    deadline = monotonic() + timeout_s
    for name, listed in keys.items():
        for at in range(0, len(listed), KEYS):
            some = listed[at : at + KEYS]
            with opened_log(config, source) as log:
                request = Request(what="copy", tables={name: {"keys": some}}, for_target=target)
                number, after = asked(log, request)
                copy, batch = ended(log, source, number, after, deadline)
            if copy["state"] != "done":
                raise Operator(
                    f"found the copy {number} of {len(some)} rows of {name} {copy['state']}",
                    hint=copy.get("why", "ask again"),
                )
    return batch


def asked(log: Log, request: Request) -> tuple[int, Offset | None]:
    """Put a request into the log; its number, and from where on its states are found."""
    span = log.span()
    return log.ask(request), span and span[1]


def states(log: Log, number: int, after: Offset | None) -> Iterator[tuple[dict[str, Any], int]]:
    """The states of a request's copy as they come into the log, with the batches that bring them,
    until it has ended; also None's place is given, about once a second: an empty state.

    Raises NotTaken where nobody takes it in, and nobody writes to the log either.
    """
    heard_at, copy, is_taken = monotonic(), dict[str, Any](), False
    for batch in log.read(after):
        if batch is not None:
            heard_at = monotonic()
            is_taken = is_taken or upto(batch.progress) >= number
            copy = asked_copies(batch.progress).get(str(number), copy)
        elif not is_taken and monotonic() - heard_at > TAKEN_WITHIN_S:
            raise NotTaken
        yield copy, batch.batch if batch is not None else 0
        if is_taken and copy.get("state") != "copying":
            return


def ended(
    log: Log, source: str, number: int, after: Offset | None, deadline: float = inf
) -> tuple[dict[str, Any], int]:
    """Wait until a request's copy has ended, at most until `deadline` (time.monotonic); its state,
    and the batch that brought it. Raises Operator where nobody captures, or it takes too long.
    """
    copy, batch = dict[str, Any](), 0
    try:
        for found, at in states(log, number, after):
            copy, batch = found, at or batch
            if monotonic() > deadline:
                raise Operator(
                    f"waited too long for a copy of {source} (request {number})",
                    hint=f"to end it: headwater snapshot {source} --cancel {number}",
                )
    except NotTaken:
        raise Operator(
            f"found nobody who captures {source}: request {number} waits in its log",
            hint=f"run: headwater capture {source}",
        ) from None
    return copy, batch


def control(config: Config, source: str, request: Request) -> int:
    """Put a request that has no copy of its own into the log; its number."""
    with opened_log(config, source) as log:
        if log.span() is None:
            raise Misconfigured(
                f"found no log of {source} yet", hint=f"run: headwater capture {source}"
            )
        return log.ask(request)
