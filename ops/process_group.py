"""The processes of `headwater run`: one per source and per target, which live and end together.

A crash or an out-of-memory kill of one leaves the others' transactions alone. Invariant: when one
ends, for whatever reason, the rest are asked to stop between batches, and the group ends with the
first failure's code.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from ops import journal
from ops.supervise import PARENT, Signals, Stop

POLL_S = 0.2


def command(*words: str) -> list[str]:
    """This very program, whatever its name, folder or environment."""
    return [sys.executable, "-P", "-m", "ops", *words]


def environment() -> dict[str, str]:
    """What `command` needs to find this very program."""
    here = str(Path(__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}


def run_together(commands: Mapping[str, list[str]], signals: Signals) -> int:
    """Run all of them until one ends or a signal comes; the exit code."""
    log = journal.get()
    # Groups of their own: Ctrl-C in a terminal reaches us alone, and we ask each of them once.
    children = {
        name: psutil.Popen(
            words, env=environment() | {PARENT: str(os.getpid())}, stdin=subprocess.DEVNULL,
            process_group=0,
        )
        for name, words in commands.items()
    }  # fmt: skip
    log.info("started", processes=list(children))
    stopped: Stop | None = None
    try:
        while all(child.poll() is None for child in children.values()):
            signals.wait(POLL_S)
    except Stop as stop:
        stopped = stop
    ended = [name for name, child in children.items() if child.poll() is not None]
    codes = [_code(children[name].returncode) for name in ended]
    _stop(list(children.values()))
    # One that was asked before it listens ends by the signal itself: as stopped as the others.
    asked = [child.returncode for name, child in children.items() if name not in ended]
    codes += [_code(code) for code in asked if code != -signal.SIGTERM]
    for name in ended:
        log.info("ended", process=name, exit_code=_code(children[name].returncode))
    return next(filter(None, codes), stopped.exit_code if stopped else 0)


def _stop(children: list[psutil.Popen]) -> None:
    """Ask each to stop; a second signal to us kills them (their transactions roll back)."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    try:
        for child in children:
            child.wait()
    except KeyboardInterrupt:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()


def _code(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode
