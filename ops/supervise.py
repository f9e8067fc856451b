"""The only retry policy, and the only place where signals and exit codes are decided.

An attempt opens everything anew and runs a loop; the loop calls `heed` once per piece or batch and
at least once a second. Invariant: a stop happens between iterations, never inside one.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ops import journal
from schemas.errors import HeadwaterError, Transient

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 30.0
UNKNOWN = 70
PARENT = "HEADWATER_PARENT"
"""Environment variable: the process id of `headwater run`, without which its children stop."""


class Stop(Exception):
    """A signal asked this process to end; raised between iterations."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """0 for SIGTERM, which is how services are stopped; 130 for Ctrl-C, as shells expect."""
        return 130 if self.number == signal.SIGINT else 0


class Signals:
    """What SIGTERM and SIGINT asked for, until somebody heeds it."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._number = 0
        self._parent = int(os.environ.get(PARENT, "0"))

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """The handler; a second SIGINT interrupts at once."""
        if self._number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self._number = number
        self._asked.set()

    def heed(self) -> None:
        """Raise Stop if a signal came, or if the process that started this one is gone."""
        if self._asked.is_set():
            raise Stop(self._number)
        if self._parent and os.getppid() != self._parent:
            raise Stop(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Wait, or raise Stop as soon as a signal comes."""
        self._asked.wait(seconds)
        self.heed()


@contextmanager
def listening() -> Iterator[Signals]:
    """Turn SIGTERM and SIGINT into Stop for the duration."""
    signals = Signals()
    before = {n: signal.signal(n, signals.note) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Backoff:
    """Waits that double, with jitter so that many processes do not come back at once."""

    def __init__(self, *, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._next_s = FIRST_WAIT_S

    def reset(self) -> None:
        """Something moved: the next failure is a new one."""
        self._next_s = FIRST_WAIT_S

    def next_s(self) -> float:
        """How long to wait now: between half and all of the current step."""
        step, self._next_s = self._next_s, min(self._next_s * 2, LONGEST_WAIT_S)
        return step * (0.5 + self._draw() / 2)


def supervise(
    attempt: Callable[[Callable[[bool], None]], None],
    signals: Signals,
    *,
    tries: int | None = None,
    **facts: str,
) -> None:
    """Run `attempt(heed)` again after each Transient until it returns or raises anything else.

    attempt calls `heed(moved)` between iterations; moved: a source commit was copied or applied.
    tries: after so many attempts in which nothing moved the Transient is raised (None: never).
    What cannot be reached at all is found before, where the caller makes everything ready.
    """
    log, backoff, failed = journal.get(**facts), Backoff(), 0

    def heed(moved: bool) -> None:
        nonlocal failed
        if moved:
            backoff.reset()
            failed = 0
        signals.heed()

    while True:
        signals.heed()
        try:
            attempt(heed)
            return
        except Transient as error:
            failed += 1
            if failed == tries:
                raise
            wait_s = backoff.next_s()
            log.warning("will_retry", after=str(error), wait_s=round(wait_s, 2))
            signals.wait(wait_s)


def exit_code_of(error: BaseException) -> int:
    """What the process ends with."""
    if isinstance(error, HeadwaterError | Stop):
        return error.exit_code
    return 130 if isinstance(error, KeyboardInterrupt) else UNKNOWN
