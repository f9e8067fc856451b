"""A running server as a value, and the operating-system process behind it.

Not here: how each server is configured (the file named for it). Invariant: only processes
that we started are ever signalled, always by their process id, and a server that cannot be
had is one `Unavailable` sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypedDict
from urllib.parse import unquote, urlsplit

import psutil

START_WITHIN_S = 90.0
STOP_WITHIN_S = 60.0
POLL_S = 0.05


class Unavailable(Exception):
    """A server cannot be had; the message is one sentence that says what to do."""


class Process(Protocol):
    """What can be done to a server that is ours: a process here, a container with Docker."""

    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def restart(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server to test against. As a context manager it stops the server at the end."""

    kind: str
    url: str
    process: Process | None = field(default=None, compare=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def user(self) -> str:
        return unquote(urlsplit(self.url).username or "")

    @property
    def password(self) -> str:
        return unquote(urlsplit(self.url).password or "")

    @property
    def address(self) -> str:
        """`host:port`, which is also what Kafka clients call `bootstrap.servers`."""
        return f"{self.host}:{self.port}"

    def database_url(self, name: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def stop(self) -> None:
        """End the server as its operator would; does nothing when it is already down."""
        self._own().stop()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; `restart` brings it back with its data."""
        self._own().kill()

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers until `resume`."""
        self._own().pause()

    def resume(self) -> None:
        self._own().resume()

    def restart(self) -> None:
        """Stop it if it runs and start it again: same data, same port."""
        self._own().restart()

    def _own(self) -> Process:
        if self.process is None:
            raise Unavailable(
                f"the {self.kind} server at {self.address} was not started by this test run: "
                "start a private one with tests.services to stop or pause it"
            )
        return self.process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.process.stop()


class LocalProcess:
    """A server process on this machine, in a session of its own, its output in a log file."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], object],
        account: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start `argv`; return when `ready` no longer raises.

        Raises `Unavailable` with the last line of the log if it dies or takes too long.
        """
        self._argv = list(argv)
        self._log = log
        self._ready = ready
        self._account = account
        self.stop_signal = stop_signal
        self._popen = self._start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def stop(self) -> None:
        if self._popen.poll() is None:
            # A paused process keeps a SIGTERM until it is continued.
            self.resume()
            self._popen.send_signal(self.stop_signal)
            try:
                self._popen.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        # PostgreSQL's backends leave their parent's group, so the group alone is not enough,
        # and a new postmaster refuses to start while an old backend still lives.
        victims = self._tree()
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait(STOP_WITHIN_S)
        psutil.wait_procs(victims, timeout=STOP_WITHIN_S)

    def pause(self) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def restart(self) -> None:
        self.stop()
        self._popen = self._start()

    def _tree(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            popen: subprocess.Popen[bytes] = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._log.parent,
                **identity(self._account),
            )
        try:
            self._wait(popen)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        return popen

    def _wait(self, popen: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self._ready()
                return
            except Exception as error:
                if popen.poll() is None and time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                raise Unavailable(
                    f"{Path(self._argv[0]).name} did not come up within {START_WITHIN_S:.0f} s "
                    f"({self._last_words() or error}): see {self._log}"
                ) from error

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


class Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def identity(account: str | None) -> Identity:
    """Arguments of `subprocess` that run a command as `account` (None: as ourselves)."""
    if account is None:
        return {}
    entry = pwd.getpwnam(account)
    return Identity(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])


def unprivileged() -> str | None:
    """The account servers run as: ourselves (None), or `nobody` when we are root.

    PostgreSQL refuses root outright; one account for all servers keeps this in one place.
    """
    return "nobody" if os.geteuid() == 0 else None


def give(folder: Path, account: str | None) -> Path:
    """Make `folder` if it is not there, and let `account` own it and reach it."""
    folder.mkdir(parents=True, exist_ok=True)
    if account is not None:
        shutil.chown(folder, account)
        for parent in folder.parents:
            if reachable(parent):
                continue
            # pytest's and mkdtemp's folders are mode 700; only passing through is allowed here.
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def reachable(folder: Path) -> bool:
    """Whether any account may pass through `folder` itself."""
    return bool(folder.stat().st_mode & 0o001)


def run(argv: Sequence[str | Path], account: str | None = None) -> str:
    """Run a command to its end and return what it printed; `Unavailable` if it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        **identity(account),
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no output"]
        cause = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise Unavailable(f"{Path(argv[0]).name} failed ({cause}): run it by hand to see why")
    return done.stdout


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
