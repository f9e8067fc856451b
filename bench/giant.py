"""One source transaction of ten million rows: the most memory of each process, and what it spilled.

PostgreSQL to PostgreSQL through either log; beside the capture: Debezium reading the same
transaction into Kafka. One run each: what is measured is a peak, not a speed.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep

from bench import debezium, orders, topics
from bench.connect import PeerFailed, until, worker
from bench.measure import Figure
from bench.servers import broker, server
from tests.faults.pipeline import Worker, pipeline
from tests.services.database import fresh
from tests.services.server import Server

ROWS = 10_000_000
POLL_S = 0.5
WITHIN_S = 3600.0
INSERT = (
    "insert into orders select n, md5(n::text)::uuid, n %% 100003, 'shipped', n %% 10000 + 0.25,"
    " 'row ' || n || ' of one transaction', n %% 1000, '2026-11-22 09:00:00.123456',"
    " '2026-11-22 10:00:00.123456+00', n %% 2 = 1 from generate_series(%s, %s) n"
)
DIGEST = (
    "select count(*), sum(hashtextextended(("
    + ", ".join(orders.NAMES[1:])
    + ")::text, 0)::numeric) from orders"
)
SERVER_SPILL = (
    "select coalesce(sum(spill_bytes), 0) from pg_stat_replication_slots where slot_name = %s"
)


def giant(rows: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        running = stack.enter_context(server("postgres"))
        theirs = _debezium(servers, folder, running, rows)
        for log in ("sqlite", "kafka"):
            found = _ours(log, servers, folder / log, running, rows)
            for process, peak in found.peaks.items():
                yield Figure(
                    bench="giant-transaction",
                    what=f"{process}, {'embedded log' if log == 'sqlite' else 'Kafka'}",
                    unit="MB",
                    values=[peak],
                    peer=debezium.called("postgres") if process == "capture" else None,
                    peer_values=[theirs] if process == "capture" else [],
                    less=True,
                    facts={"spilled_mb": round(found.spilled[process]), **found.facts},
                )


@dataclass(slots=True)
class _Found:
    """MB by process: the most resident, and the most in temporary files at one time."""

    peaks: dict[str, float] = field(default_factory=dict)
    spilled: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)


def _ours(log: str, servers: str, folder: Path, running: Server, rows: int) -> _Found:
    folder.mkdir()
    place = Server(kind="kafka", url=f"kafka://{servers}") if log == "kafka" else log
    name = f"g{secrets.token_hex(4)}"
    with (
        fresh(running) as source,
        fresh(running) as target,
        pipeline(folder, name, source, {"mirror": target}, place) as flow,
    ):
        for made in (source, target):
            made.execute(orders.POSTGRES)
        flow.configure(first_copy="none")
        flow.prepare()
        workers = {"capture": flow.capture(), "apply": flow.apply("mirror")}
        numbers = iter(range(rows + 1, rows + 10_000))

        def has_come() -> bool:
            source.execute(INSERT, *[next(numbers)] * 2)
            _alive(workers)
            return target.query("select count(*) from orders") != [(0,)]

        until(has_come, "a beat")
        begun = perf_counter()
        source.execute(INSERT, 1, rows)
        wrote_s = perf_counter() - begun
        found = _Found(spilled=dict.fromkeys(workers, 0.0))
        last = "select 1 from orders where sync_id = md5(%s)::uuid"
        while not target.query(last, str(rows)):
            sleep(POLL_S)
            _alive(workers)
            for process, one in workers.items():
                found.spilled[process] = max(found.spilled[process], _temporary_mb(one))
            if perf_counter() - begun > WITHIN_S:
                raise PeerFailed("the transaction did not arrive")
        arrived_s = perf_counter() - begun
        if source.query(DIGEST) != target.query(DIGEST):
            raise topics.Different("the target is not what the source holds")
        spilled = source.query(SERVER_SPILL, f"headwater_{name}")[0][0]
        found.peaks = {process: one.peak_mb for process, one in workers.items()}
        found.facts = {
            "server_spilled_mb": round(int(spilled) / 2**20),
            "log_mb": round(sum(p.stat().st_size for p in folder.glob("log.db*")) / 2**20),
            "source_wrote_s": round(wrote_s, 1),
            "arrived_s": round(arrived_s, 1),
        }
        for one in workers.values():
            one.stop()
    return found


def _alive(workers: dict[str, Worker]) -> None:
    for one in workers.values():
        one.alive()


def _temporary_mb(one: Worker) -> float:
    """What the process holds in files that have no name any more."""
    total = 0
    for descriptor in Path(f"/proc/{one.process.pid}/fd").iterdir():
        # A file may be closed while we look.
        with suppress(FileNotFoundError):
            if os.readlink(descriptor).endswith("(deleted)"):
                held = descriptor.stat()
                total += held.st_size if stat.S_ISREG(held.st_mode) else 0
    return total / 2**20


def _debezium(servers: str, folder: Path, running: Server, rows: int) -> float:
    """Debezium's peak memory in MB when the transaction has arrived in its topic."""
    name = f"g{secrets.token_hex(4)}"
    with fresh(running) as source, worker(servers, folder, ["postgres"]) as connect:
        source.execute(orders.POSTGRES)
        topic = debezium.topic(name, source)
        topics.create(servers, topic)
        connect.create(name, debezium.source("postgres", name, source, folder, 0))
        ends = topics.Ends(servers, topic)
        numbers = iter(range(rows + 1, rows + 10_000))

        def has_come() -> bool:
            source.execute(INSERT, *[next(numbers)] * 2)
            return bool(ends.total())

        until(has_come, "a beat")
        source.execute(INSERT, 1, rows)

        def is_done() -> bool:
            connect.check(name)
            return ends.total() > rows

        until(is_done, "the transaction", within_s=WITHIN_S)
        return connect.usage.peak_mb
