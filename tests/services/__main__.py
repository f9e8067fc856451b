"""`python -m tests.services up|down|env|run`: servers that stay between test runs, or for one.

`up` starts what is not up yet and prints the variables by which test runs find it; `down`
stops exactly those processes. `run COMMAND…` has all servers up while the command runs, so that
its processes share them. Invariant: a process is signalled only if its id and its start
time are those that `up` wrote down, so a re-used id is never hit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from tests.services import KINDS, install, named, start, variable
from tests.services.server import STOP_WITHIN_S, LocalProcess, Server, Unavailable

State = dict[str, dict[str, Any]]


def state_file() -> Path:
    return install.cache() / "services.json"


def load() -> State:
    """What is up, without what has died meanwhile."""
    try:
        state: State = json.loads(state_file().read_text())
    except FileNotFoundError:
        return {}
    return {kind: entry for kind, entry in state.items() if _process(entry) is not None}


def up(kinds: list[str]) -> State:
    state = load()
    missing = [kind for kind in kinds if kind not in state]
    with ThreadPoolExecutor() as pool:
        starts = {kind: pool.submit(_start, kind) for kind in missing}
    # All have ended here; those that came up are written down before one that did not raises.
    state |= {kind: done.result() for kind, done in starts.items() if done.exception() is None}
    state_file().write_text(json.dumps(state, indent=1))
    for done in starts.values():
        done.result()
    return state


def _start(kind: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix=f"headwater-{kind}-"))
    server = start(kind, folder)
    if not isinstance(server.process, LocalProcess):
        raise Unavailable(
            "services-up starts processes, not containers: set HEADWATER_TEST_DOCKER=never"
        )
    pid = server.process.pid
    return {
        "url": server.url,
        "folder": str(folder),
        "pid": pid,
        "started": psutil.Process(pid).create_time(),
        "signal": server.process.stop_signal.name,
    }


def run(command: list[str]) -> int:
    """Run the command with a server of each kind; those that the environment names are used."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        missing = [kind for kind in KINDS if named(kind) is None]
        with ThreadPoolExecutor() as pool:
            starts = {kind: pool.submit(_serve, kind, stack) for kind in missing}
        urls = {variable(kind): done.result().url for kind, done in starts.items()}
        return subprocess.run(command, env=os.environ | urls, check=False).returncode


def _serve(kind: str, stack: ExitStack) -> Server:
    folder = Path(tempfile.mkdtemp(prefix=f"headwater-{kind}-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return stack.enter_context(start(kind, folder))


def _process(entry: dict[str, Any]) -> psutil.Process | None:
    try:
        process = psutil.Process(entry["pid"])
        return process if process.create_time() == entry["started"] else None
    except psutil.NoSuchProcess:
        return None


def down() -> None:
    entries = list(load().values())
    processes = []
    for entry in entries:
        process = _process(entry)
        if process is not None:
            process.resume()
            process.send_signal(signal.Signals[entry["signal"]])
            processes.append(process)
    for process in psutil.wait_procs(processes, timeout=STOP_WITHIN_S)[1]:
        process.kill()
    for entry in entries:
        shutil.rmtree(entry["folder"], ignore_errors=True)
    state_file().unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    command, kinds = (arguments or [""])[0], arguments[1:] or list(KINDS)
    if command != "run" and (command not in ("up", "down", "env") or not set(kinds) <= set(KINDS)):
        usage = f"python -m tests.services up|down|env [{' '.join(KINDS)}]"
        print(f"usage: {usage} or run COMMAND…", file=sys.stderr)
        return 2
    if command == "down":
        down()
        return 0
    try:
        if command == "run":
            return run(arguments[1:])
        state = up(kinds) if command == "up" else load()
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    for kind, entry in state.items():
        print(f"export {variable(kind)}={entry['url']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
