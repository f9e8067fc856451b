"""A Kafka Connect worker on loopback with Debezium in it, driven by its REST interface.

Invariant: `worker` leaves nothing running, and a connector or task that failed raises with its own
first words instead of letting a wait run out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

from bench import connect_jars
from bench.measure import Usage
from tests.services.install import apt
from tests.services.server import LocalProcess, free_port

WITHIN_S = 300.0
POLL_S = 0.1
JSON = "org.apache.kafka.connect.json.JsonConverter"
JAVA = ["-Xmx2g", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]


class PeerFailed(Exception):
    """The peer could not do its work; the message is its own."""


class Connect:
    """The running worker. Connectors are made stopped or running and moved between states."""

    def __init__(self, address: str, process: LocalProcess) -> None:
        self._address = address
        self._process = process

    @property
    def usage(self) -> Usage:
        """What the worker's process has used since it started."""
        return Usage.of(psutil.Process(self._process.pid))

    def create(self, name: str, settings: Mapping[str, str], *, state: str = "RUNNING") -> None:
        """Make a connector; returns when it and its tasks are in that state."""
        body = {"name": name, "config": dict(settings), "initial_state": state}
        self._ask("POST", "/connectors", body)
        self._wait(name, state)

    def stop(self, name: str) -> None:
        """End its tasks; its place is kept, just after the last acknowledged rows."""
        self._ask("PUT", f"/connectors/{name}/stop")
        self._wait(name, "STOPPED")

    def resume(self, name: str) -> None:
        """Let it go on; returns at once."""
        self._ask("PUT", f"/connectors/{name}/resume")

    def delete(self, name: str) -> None:
        """Forget it; nothing happens if it is not there."""
        try:
            self._ask("DELETE", f"/connectors/{name}")
        except HTTPError as error:
            if error.code != 404:
                raise

    def check(self, name: str) -> tuple[str, list[str]]:
        """Its state and its tasks' states; raises PeerFailed for one that failed."""
        found = self._ask("GET", f"/connectors/{name}/status")
        for part in (found["connector"], *found["tasks"]):
            if part["state"] == "FAILED":
                raise PeerFailed(f"{name}: {part.get('trace', 'no trace')[:2000]}")
        return found["connector"]["state"], [task["state"] for task in found["tasks"]]

    def _wait(self, name: str, state: str) -> None:
        def reached() -> bool:
            try:
                connector, tasks = self.check(name)
            except HTTPError as error:
                # A connector just made has no status for a moment.
                if error.code != 404:
                    raise
                return False
            if state == "STOPPED":
                return connector == state and not tasks
            return connector == state and bool(tasks) and set(tasks) == {state}

        until(reached, f"{name} to be {state.lower()}")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        request = Request(
            self._address + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=WITHIN_S) as answer:
                text = answer.read()
        except HTTPError as error:
            if error.code in (404, 409):
                raise
            raise PeerFailed(f"{method} {path}: {error.read().decode()[:2000]}") from error
        return json.loads(text) if text else None


@contextmanager
def worker(servers: str, folder: Path, plugins: Sequence[str]) -> Iterator[Connect]:
    """A worker on that broker with these plugins; its files are in `folder`."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = {
        "bootstrap.servers": servers,
        "key.converter": JSON,
        "value.converter": JSON,
        "offset.storage.file.filename": str(folder / "connect.offsets"),
        "offset.flush.interval.ms": "500",
        "plugin.path": ",".join(str(connect_jars.plugin(name)) for name in plugins),
        "plugin.discovery": "service_load",
        "listeners": address,
        "connector.client.config.override.policy": "All",
    }
    properties = folder / "connect.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = apt("default-jre-headless", "java")
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    process = LocalProcess(
        [java, *JAVA, "-cp", f"{connect_jars.worker()}/*", main, str(properties)],
        log=folder / "connect.log",
        ready=lambda: urlopen(f"{address}/connector-plugins", timeout=5).close(),
    )
    try:
        yield Connect(address, process)
    finally:
        process.stop()


def until(condition: Callable[[], bool], what: str, *, within_s: float = WITHIN_S) -> None:
    """Return when the condition holds; raise PeerFailed, naming `what`, when it does not."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise PeerFailed(f"waited {within_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)
