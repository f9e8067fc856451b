"""The retry policy, stops between iterations, and exit codes: no server, no waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from ops.supervise import (
    LONGEST_WAIT_S,
    PARENT,
    Backoff,
    Signals,
    Stop,
    exit_code_of,
    listening,
    supervise,
)
from schemas.errors import Fenced, Misconfigured, Operator, Poison, SourceLost, Transient

Heed = Callable[[bool], None]


class Patient(Signals):
    """Signals whose waits take no time and are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.heed()


def failing(times: int, *, moved: bool = False) -> tuple[Callable[[Heed], None], list[str]]:
    """An attempt that fails so often after its first iteration, and then succeeds."""
    said: list[str] = []

    def attempt(heed: Heed) -> None:
        said.append("opened")
        heed(moved)
        if len(said) <= times:
            raise Transient("lost the connection")

    return attempt, said


def test_a_transient_is_tried_again_with_everything_opened_anew() -> None:
    attempt, said = failing(3)
    supervise(attempt, Patient())
    assert said == ["opened"] * 4


def test_waits_double_up_to_a_limit() -> None:
    backoff = Backoff(draw=lambda: 1.0)
    waits = [backoff.next_s() for _ in range(12)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == LONGEST_WAIT_S


def test_jitter_takes_off_at_most_half() -> None:
    assert Backoff(draw=lambda: 0.0).next_s() == pytest.approx(0.1)


def test_waits_start_anew_after_progress() -> None:
    signals, (attempt, _) = Patient(), failing(6, moved=True)
    supervise(attempt, signals)
    assert max(signals.waits) <= 0.2


def test_waits_grow_where_nothing_moves() -> None:
    signals, (attempt, _) = Patient(), failing(6)
    supervise(attempt, signals)
    assert signals.waits[-1] > 3


@pytest.mark.parametrize("error", [Operator("x"), Fenced("x"), Poison("x"), ZeroDivisionError()])
def test_everything_but_a_transient_ends_it(error: Exception) -> None:
    def attempt(heed: Heed) -> None:
        heed(True)
        raise error

    with pytest.raises(type(error)):
        supervise(attempt, Patient())


def test_a_signal_stops_between_iterations_and_not_inside_one() -> None:
    done = []

    def attempt(heed: Heed) -> None:
        for i in range(10):
            if i == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(i)
            heed(True)

    with listening() as signals, pytest.raises(Stop):
        supervise(attempt, signals)
    assert done == [0, 1, 2, 3]


def test_a_signal_ends_a_wait() -> None:
    attempt, said = failing(1)

    class Interrupted(Patient):
        def wait(self, seconds: float) -> None:
            self.note(signal.SIGTERM)
            Signals.wait(self, 3600)

    with pytest.raises(Stop):
        supervise(attempt, Interrupted())
    assert said == ["opened"]


def test_a_second_interrupt_does_not_wait_for_the_iteration() -> None:
    with listening():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_child_stops_when_the_process_that_started_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PARENT, str(os.getppid() + 1))
    with pytest.raises(Stop):
        Signals().heed()


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Stop(signal.SIGTERM), 0),
        (Stop(signal.SIGINT), 130),
        (KeyboardInterrupt(), 130),
        (Transient("x"), 69),
        (Fenced("x"), 75),
        (Poison("x"), 65),
        (Operator("x"), 78),
        (Misconfigured("x"), 78),
        (SourceLost("x"), 78),
        (ZeroDivisionError(), 70),
    ],
)
def test_every_end_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code
