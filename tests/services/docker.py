"""The same servers as containers, wherever a Docker daemon answers (testcontainers).

Thin on purpose: settings come from the file named for each server. Invariant: the published
port is chosen before the start, so that it stays the same over `restart`.
"""

from __future__ import annotations

import functools
import gc
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.services.server import (
    POLL_S,
    START_WITHIN_S,
    Server,
    Unavailable,
    free_port,
)

IMAGES = {
    "postgres": "postgres:18",
    "postgres15": "postgres:15",
    "mysql": "mysql:9",
    "mariadb": "mariadb:10.11",
    "kafka": "apache/kafka",
}


@functools.cache
def answers() -> bool:
    """Whether a Docker daemon answers; `HEADWATER_TEST_DOCKER=never` says no for it."""
    if os.environ.get("HEADWATER_TEST_DOCKER") == "never":
        return False
    with warnings.catch_warnings():
        # The client leaves its socket open when nobody answers; collected here, so that the
        # warning does not fail whichever test runs when the collector does.
        warnings.simplefilter("ignore", ResourceWarning)
        answer = _ping()
        gc.collect()
    return answer


def _ping() -> bool:
    import docker

    try:
        client = docker.from_env(timeout=5)
    except docker.errors.DockerException:
        return False
    client.close()
    return True


class Container:
    """A container under the operations of `server.Process`."""

    def __init__(self, container: Any, ready: Callable[[], object]) -> None:
        self._container = container
        self._ready = ready
        container.start()
        self._wait()

    def stop(self) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._inner().kill()

    def pause(self) -> None:
        self._inner().pause()

    def resume(self) -> None:
        self._inner().unpause()

    def restart(self) -> None:
        self._inner().restart()
        self._wait()

    def _inner(self) -> Any:
        return self._container.get_wrapped_container()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self._ready()
            except Exception as error:
                if time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                raise Unavailable(
                    f"the container of {self._container.image} does not answer ({error}): "
                    "look at `docker logs`"
                ) from error
            return


def postgres(kind: str, settings: Sequence[str]) -> Server:
    from tests.services import postgres as local

    inside = [s for s in settings if not s.startswith(("listen_addresses", "unix_socket"))]
    port = free_port()
    url = f"postgresql://{local.USER}:{local.PASSWORD}@127.0.0.1:{port}/postgres"
    command = ["postgres", *(word for setting in inside for word in ("-c", setting))]
    process = _run(kind, {5432: port}, {"POSTGRES_PASSWORD": local.PASSWORD}, command,
                   lambda: local.connect(url).close())  # fmt: skip
    return Server(kind=kind, url=url, process=process)


def mysql(flags: Sequence[str]) -> Server:
    return _mysql("mysql", flags, "MYSQL_ROOT_PASSWORD")


def mariadb(flags: Sequence[str]) -> Server:
    return _mysql("mariadb", flags, "MARIADB_ROOT_PASSWORD")


def _mysql(kind: str, flags: Sequence[str], password_variable: str) -> Server:
    from tests.services import mysql as local

    port = free_port()
    base = f"127.0.0.1:{port}/"
    root = f"mysql://root:{local.PASSWORD}@{base}"
    process = _run(kind, {3306: port}, {password_variable: local.PASSWORD}, list(flags),
                   lambda: local.connect(root).close())  # fmt: skip
    with local.connect(root) as connection, connection.cursor() as cursor:
        for statement in local.GRANTS:
            cursor.execute(statement)
    return Server(kind=kind, url=f"mysql://{local.USER}:{local.PASSWORD}@{base}", process=process)


def kafka(settings: Mapping[str, str], version: str, client: Mapping[str, str]) -> Server:
    from tests.services import kafka as local

    port = free_port()
    inside = dict(settings) | {
        "listeners": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": "1@localhost:9093",
    }
    # The image turns KAFKA_A_B into the setting a.b.
    environment = {f"KAFKA_{k.upper().replace('.', '_')}": v for k, v in inside.items()}
    address = f"127.0.0.1:{port}"
    process = _run("kafka", {port: port}, environment, None,
                   lambda: local.answer(address, client), tag=version)  # fmt: skip
    return Server(kind="kafka", url=f"kafka://{address}", process=process)


def _run(
    kind: str,
    ports: Mapping[int, int],
    environment: Mapping[str, str],
    command: Sequence[str] | None,
    ready: Callable[[], object],
    *,
    tag: str | None = None,
) -> Container:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(IMAGES[kind] + (f":{tag}" if tag else ""))
    for inside, outside in ports.items():
        container.with_bind_ports(inside, outside)
    for name, value in environment.items():
        container.with_env(name, value)
    if command is not None:
        container.with_command(list(command))
    return Container(container, ready)
