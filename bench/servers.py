"""Servers and databases for a measurement: those that the environment names, else started here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import services
from tests.services import kafka
from tests.services.database import Database, fresh
from tests.services.server import Server


@contextmanager
def server(kind: str) -> Iterator[Server]:
    """A running server of this kind, stopped at the end if it was started here."""
    if running := services.named(kind):
        yield running
        return
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-", ignore_cleanup_errors=True) as at,
        services.start(kind, Path(at)) as started,
    ):
        yield started


@contextmanager
def database(kind: str) -> Iterator[Database]:
    """An empty database, dropped at the end."""
    with server(kind) as running, fresh(running) as made:
        yield made


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """The address of a broker of the measurement's own, whose compiler works at full strength.

    Not one that the environment names: those start quickly and stay slow, which would make both
    sides of a comparison wait for the broker.
    """
    # At once, one of two consumers would work alone for seconds until the other has joined.
    flags = ["group.initial.rebalance.delay.ms=1500"]
    with kafka.start(folder / "broker", flags, java_flags=()) as started:
        yield started.address
