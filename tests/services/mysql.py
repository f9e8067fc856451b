"""MySQL 9 from the distribution's sid suite, on loopback: GTIDs on, full row metadata.

Invariant: what `mariadb.py` shares with it (the account, connections, dropping a database)
is here once; both servers speak the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT

from tests.services import docker, install
from tests.services.server import LocalProcess, Server, free_port, give, run, unprivileged

USER, PASSWORD = "headwater", "headwater"
GRANTS = [
    # Not in the binary log: a test that reads it from the start sees only its own changes.
    "SET SESSION sql_log_bin = 0;",
    f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';",
    f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' WITH GRANT OPTION;",
]
SHARED_FLAGS = [
    "--server-id=1",
    "--log-bin=binlog",
    "--binlog-format=ROW",
    "--binlog-row-image=FULL",
    "--binlog-row-metadata=FULL",
    "--character-set-server=utf8mb4",
    "--local-infile=ON",
    "--max-connections=300",
    "--innodb-buffer-pool-size=256M",
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-binlog=0",
]
FLAGS = [*SHARED_FLAGS, "--gtid-mode=ON", "--enforce-gtid-consistency=ON"]


def start(data_dir: Path, extra_flags: Sequence[str] = ()) -> Server:
    """Start a server with its data in `data_dir`; later flags win, as with mysqld itself.

    Without GTIDs: `extra_flags=["--enforce-gtid-consistency=OFF", "--gtid-mode=OFF"]`.
    """
    flags = [*FLAGS, *extra_flags]
    if docker.answers():
        return docker.mysql(flags)
    usr = install.mysql()
    libraries = next((usr / "lib").glob("*-linux-gnu*"))
    loader = next(libraries.glob("ld-linux*.so.*"))
    mysqld = [
        str(loader),
        "--library-path",
        f"{libraries}:{usr}/lib/mysql/private",
        str(usr / "sbin/mysqld"),
        "--no-defaults",
        f"--lc-messages-dir={usr}/share/mysql",
        f"--plugin-dir={usr}/lib/mysql/plugin",
        "--secure-file-priv=",
        "--mysqlx=OFF",
    ]
    account = unprivileged()
    data = give(data_dir, account) / "data"
    if not data.exists():
        # Initialised once per machine; a copy takes a tenth of the time.
        template = install.cached("mysql-data", lambda folder: _initialise(mysqld, folder))
        copy(template / "data", data, account)
    return launch("mysql", [*mysqld, *flags], data, account)


def _initialise(mysqld: Sequence[str], folder: Path) -> None:
    account = unprivileged()
    data = give(folder, account) / "data"
    run([*mysqld, "--initialize-insecure", f"--datadir={data}"], account)
    # The server makes a new identity (server_uuid) where this file is missing.
    (data / "auto.cnf").unlink()


def copy(template: Path, data: Path, account: str | None) -> None:
    run(["cp", "-a", template, data])
    if account is not None:
        run(["chown", "-R", account, data])


def launch(kind: str, argv: Sequence[str], data: Path, account: str | None) -> Server:
    """Start mysqld or mariadbd on an initialised data folder."""
    port = free_port()
    grants = data.parent / "grants.sql"
    grants.write_text("\n".join(GRANTS) + "\n")
    grants.chmod(0o644)
    url = f"mysql://{USER}:{PASSWORD}@127.0.0.1:{port}/"
    process = LocalProcess(
        [
            *argv,
            f"--datadir={data}",
            # Its own: MariaDB removes other servers' temporary files where it starts, and the one
            # that has them open then crashes.
            f"--tmpdir={give(data.parent / 'tmp', account)}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            # Relative to the data folder: a socket's path may have 107 bytes.
            "--socket=server.sock",
            "--pid-file=server.pid",
            f"--init-file={grants}",
        ],
        log=data.parent / "server.log",
        ready=lambda: connect(url).close(),
        account=account,
    )
    return Server(kind=kind, url=url, process=process)


def connect(url: str) -> Any:
    """An autocommit PyMySQL connection that takes several statements at once."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/") or None,
        charset="utf8mb4",
        autocommit=True,
        local_infile=True,
        connect_timeout=5,
        client_flag=CLIENT.MULTI_STATEMENTS,
    )


def drop_database(url: str, name: str) -> None:
    """Drop a database after ending the sessions that are in it."""
    connection = connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("select id from information_schema.processlist where db = %s", (name,))
        for (session,) in cursor.fetchall():
            try:
                cursor.execute(f"kill {session}")
            except pymysql.err.OperationalError as error:
                if error.args[0] != 1094:  # gone meanwhile
                    raise
        # A metadata lock of a forgotten session would otherwise hold the run for a year.
        cursor.execute("set session lock_wait_timeout = 30")
        cursor.execute(f"drop database if exists `{name}`")
