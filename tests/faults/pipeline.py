"""One source, one log and its targets, moved by the real command in processes of their own.

Not here: what is written to the source (workload.py). Invariant: every process is ended by its id,
however the test ends, and every wait is for a condition and fails by saying which.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import tomlkit
from typer.testing import CliRunner, Result

from ops.cli import app
from ops.compose import opened_log, opened_source, opened_target
from ops.config import Config
from ops.config_file import load
from ops.verify import verify
from ops.verify_fence import Records
from ops.verify_report import Report
from tests.services.database import Database
from tests.services.server import Server

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 120.0
POLL_S = 0.05


def until(condition: Callable[[], bool], what: str, *, within_s: float = WITHIN_S) -> None:
    """Return as soon as the condition holds; fail, naming `what`, when it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)


@dataclass(slots=True)
class Worker:
    """One `headwater …` process; what it says is in `log`."""

    words: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    @property
    def said(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-3_000:]

    @property
    def peak_mb(self) -> float:
        """The most resident memory it ever had (the kernel's VmHWM), in MB; it must be running."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def wait(self, *, within_s: float = WITHIN_S) -> int:
        """Wait for its end; the exit code."""
        until(lambda: self.code is not None, f"the end of {self.words}", within_s=within_s)
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def alive(self) -> None:
        """Fail with its last words if it ended."""
        assert self.code is None, f"{self.words} ended with {self.code}:\n{self.said}"


@dataclass(slots=True)
class Pipeline:
    """A configuration file in `folder`, and the processes that were started with it."""

    folder: Path
    name: str
    source: Database
    targets: Mapping[str, Database]
    log: dict[str, object]
    source_settings: dict[str, object] = field(default_factory=dict)
    target_settings: dict[str, object] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _started: int = 0

    def configure(self, **source_settings: object) -> None:
        """Write the file; settings of the source are added to those from before."""
        self.source_settings |= source_settings
        document = {
            "log": self.log,
            "sources": {
                self.name: {
                    "url": user_url(self.source),
                    # A MySQL server's log holds every database, other tests' too.
                    "include": [f"{schema_of(self.source)}.*"],
                    **self.source_settings,
                }
            },
            "targets": {
                name: {"url": user_url(db), "source": self.name, **_mapped(self.source, db)}
                | self.target_settings
                for name, db in self.targets.items()
            },
        }
        (self.folder / "headwater.toml").write_text(tomlkit.dumps(document))

    @property
    def config(self) -> Config:
        return load(self.folder / "headwater.toml").config

    def start(self, *words: str, fault: str = "") -> Worker:
        """Start `headwater WORDS`, which dies at `fault` ("point:hit") if one is given."""
        self._started += 1
        log = self.folder / f"{self._started}-{words[0]}.log"
        command = [sys.executable, "-P", "-m", "ops", *words, "--config", "headwater.toml"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT), "HEADWATER_FAULT": fault},
            )
        self._stack.callback(_end, process)
        return Worker(words, log, process)

    def run(self, *words: str) -> str:
        """Run `headwater WORDS` to its end, which must be a good one; what it said."""
        worker = self.start(*words)
        code = worker.wait()
        assert code == 0, f"{words} ended with {code}:\n{worker.said}"
        return worker.log.read_text(errors="replace")

    def prepare(self) -> None:
        """Set up both sides, as `headwater run` does first."""
        for name in (self.name, *self.targets):
            self.run("prepare", name)

    def capture(self, *, fault: str = "") -> Worker:
        return self.start("capture", self.name, fault=fault)

    def apply(self, target: str, *, fault: str = "") -> Worker:
        return self.start("apply", target, fault=fault)

    @property
    def is_copying(self) -> bool:
        """Whether a first copy is not finished in the log."""
        pending: bool = True
        with opened_log(self.config, self.name) as log:
            for batch in log.read(None, follow=False):
                pending = bool(batch.pending) if batch else pending
        return pending

    def verify(self, target: str, *, values: bool = False, timeout_s: float = WITHIN_S) -> Report:
        """Compare one target with the source."""
        with (
            opened_source(self.config, self.name) as source,
            opened_target(self.config, target) as opened,
            opened_log(self.config, self.name) as log,
        ):
            return verify(
                source,
                opened,
                self.config.targets[target].placement,
                timeout_s=timeout_s,
                values=values,
                records=Records(log, target),
            )

    def close(self) -> None:
        """End every process, and remove what a source or a log keeps."""
        self._stack.close()


@contextmanager
def pipeline(
    folder: Path, name: str, source: Database, targets: Mapping[str, Database], log: object
) -> Iterator[Pipeline]:
    """A pipeline from `source` to `targets`; log: a Kafka server, or "sqlite" for a file."""
    settings: dict[str, object] = {"kind": "sqlite", "path": "log.db"}
    if isinstance(log, Server):
        settings = {"kind": "kafka", "servers": log.address, "partitions": 3}
    made = Pipeline(folder, name, source, targets, settings)
    made.configure()
    try:
        yield made
    finally:
        made.close()


def types(folder: Path, *words: str) -> Result:
    """Run `headwater WORDS` with the file in `folder`, in this process: sooner than in its own."""
    try:
        return CliRunner().invoke(app, [*words, "--config", str(folder / "headwater.toml")])
    finally:
        # It logs to streams that are closed now.
        structlog.reset_defaults()


def user_url(database: Database) -> str:
    """The URL as a user of that server would write it."""
    return database.url.replace("mysql://", f"{scheme(database)}://", 1)


def scheme(database: Database) -> str:
    """The URL scheme that a user of that server would write."""
    return database.server.url.partition(":")[0]


def _mapped(source: Database, target: Database) -> dict[str, object]:
    """The tables' schema on both sides."""
    return {"schemas": {schema_of(source): schema_of(target)}}


def schema_of(database: Database) -> str:
    """Where unqualified tables live: PostgreSQL's public, MySQL's database."""
    return "public" if scheme(database) == "postgresql" else database.name


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
