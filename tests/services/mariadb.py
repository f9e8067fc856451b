"""MariaDB from the distribution, on loopback: row format, full metadata, strict GTIDs.

Invariant: the same account, binary log contents and speed settings as `mysql.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.services import docker, install, mysql
from tests.services.server import Server, give, run, unprivileged

FLAGS = [*mysql.SHARED_FLAGS, "--gtid-domain-id=0", "--gtid-strict-mode=ON"]


def start(data_dir: Path, extra_flags: Sequence[str] = ()) -> Server:
    """Start a server with its data in `data_dir`; later flags win."""
    flags = [*FLAGS, *extra_flags]
    if docker.answers():
        return docker.mariadb(flags)
    mariadbd = install.apt("mariadb-server", "mariadbd")
    account = unprivileged()
    data = give(data_dir, account) / "data"
    if not data.exists():
        template = install.cached("mariadb-data", _initialise)
        mysql.copy(template / "data", data, account)
    return mysql.launch("mariadb", [mariadbd, "--no-defaults", *flags], data, account)


def _initialise(folder: Path) -> None:
    account = unprivileged()
    give(folder, account)
    run(
        [
            install.apt_in_lock("mariadb-server", "mariadb-install-db"),
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        account,
    )
