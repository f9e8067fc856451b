"""Real servers for tests: where Docker answers, containers; else the same from packages.

`HEADWATER_TEST_<KIND>_URL` names a running server to use instead. Invariant: whatever is
started here is stopped here, and a server that cannot be had raises `Unavailable` with one
sentence, never a skip.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.services import kafka, mariadb, mysql, postgres
from tests.services.server import Server, Unavailable

__all__ = ["KINDS", "Server", "Unavailable", "named", "start", "variable"]

KINDS: dict[str, Callable[[Path], Server]] = {
    "postgres": postgres.start,
    "postgres15": partial(postgres.start, wheel=False),
    "mysql": mysql.start,
    "mariadb": mariadb.start,
    "kafka": kafka.start,
}


def variable(kind: str) -> str:
    return f"HEADWATER_TEST_{kind.upper()}_URL"


def named(kind: str) -> Server | None:
    """The running server that the environment names for `kind`, if it names one."""
    url = os.environ.get(variable(kind))
    return Server(kind=kind, url=url) if url else None


def start(kind: str, data_dir: Path) -> Server:
    """Start a server of `kind` with the settings that most tests share."""
    return KINDS[kind](data_dir)
