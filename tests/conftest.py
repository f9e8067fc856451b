"""What every test has: the servers as fixtures, stopped at the end however the run ends.

With xdist, run it by `python -m tests.services run`: each worker would start servers of its own.
"""

from __future__ import annotations

import os
import secrets
import signal
from types import FrameType

pytest_plugins = ["tests.services.fixtures"]


def pytest_configure() -> None:
    # Python's default for SIGTERM skips every `finally`, and would leave servers behind.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Not SystemExit: raised inside a test, pytest would take it for that test's failure.
    raise KeyboardInterrupt(signal.Signals(number).name)


os.environ.setdefault("HEADWATER_SEED", str(secrets.randbits(32)))
"""What is drawn at random is drawn from this; the processes of a run inherit it."""


def pytest_report_header() -> str:
    return f"HEADWATER_SEED={os.environ['HEADWATER_SEED']}"
