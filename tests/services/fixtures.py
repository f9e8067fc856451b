"""The servers as fixtures: each started when the first test asks for it, once per run.

Servers: `postgres`, `postgres15`, `mysql`, `mariadb`, `kafka`. Per test: `postgres_db`,
`postgres15_db`, `mysql_db`, `mariadb_db`, `sqlite_db`, `new_database` (any number),
`kafka_prefix`, and `server_dir` for a private server. Invariant: a missing server ends the run,
never a skip.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import services
from tests.services import kafka as broker
from tests.services.database import Database, fresh
from tests.services.server import Server, Unavailable
from tests.services.sqlite import SQLITE


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"headwater-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _serve(kind: str) -> Iterator[Server]:
    running = services.named(kind)
    if running is not None:
        yield running
        return
    with _folder(kind) as folder:
        try:
            server = services.start(kind, folder)
        except Unavailable as missing:
            pytest.exit(f"{kind} cannot be had: {missing}", returncode=1)
        with server:
            yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with _serve("postgres") as server:
        yield server


@pytest.fixture(scope="session")
def postgres15() -> Iterator[Server]:
    with _serve("postgres15") as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[Server]:
    with _serve("mysql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    with _serve("mariadb") as server:
        yield server


@pytest.fixture(scope="session")
def kafka() -> Iterator[Server]:
    with _serve("kafka") as server:
        yield server


@pytest.fixture(scope="session")
def sqlite() -> Server:
    """For `new_database`, beside the servers."""
    return SQLITE


@pytest.fixture
def postgres_db(postgres: Server) -> Iterator[Database]:
    with fresh(postgres) as database:
        yield database


@pytest.fixture
def postgres15_db(postgres15: Server) -> Iterator[Database]:
    with fresh(postgres15) as database:
        yield database


@pytest.fixture
def mysql_db(mysql: Server) -> Iterator[Database]:
    with fresh(mysql) as database:
        yield database


@pytest.fixture
def mariadb_db(mariadb: Server) -> Iterator[Database]:
    with fresh(mariadb) as database:
        yield database


@pytest.fixture
def sqlite_db(sqlite: Server) -> Iterator[Database]:
    with fresh(sqlite) as database:
        yield database


@pytest.fixture
def new_database() -> Iterator[Callable[[Server], Database]]:
    """`new_database(server)`: as many fresh databases as a test needs, dropped afterwards."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(fresh(server))


@pytest.fixture
def kafka_prefix(kafka: Server) -> Iterator[str]:
    """A prefix no other test uses; topics whose names start with it are deleted afterwards."""
    prefix = f"t{secrets.token_hex(5)}"
    yield prefix
    broker.drop_topics(kafka.address, prefix)


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """A folder for a private server's data.

    Not `tmp_path`: pytest closes the folders above it to other accounts whenever a second
    run starts, and as root the servers run as another account.
    """
    with _folder("private") as folder:
        yield folder
