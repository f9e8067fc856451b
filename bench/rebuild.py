"""Rebuild: an empty PostgreSQL target from what Kafka holds, ordered and by the newest rows.

Beside it: the bare COPY of the same rows, made text beforehand, into the same table with its
primary key and unique index, in one transaction. Ours is `headwater rebuild`'s own function with
its plan, its connections and its reading of the log in it; only Python's start is not.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from bench import changes, held, orders
from bench.envelopes import piece
from bench.measure import REPETITIONS, Clock, Figure, Sample, compared, isolated
from bench.servers import broker, server
from ops.config_file import load
from ops.rebuild import rebuild
from ops.rebuild_plan import Asked
from ops.supervise import Signals
from schemas.change import Progress
from tests.faults.pipeline import pipeline, schema_of
from tests.services import postgres
from tests.services.database import fresh
from tests.services.server import Server
from transport.kafka import KafkaLog

ROWS = 1_000_000
PER_BATCH = 10_000
WAYS = ("ordered", "latest")


def rebuilds(rows: int) -> Iterator[Figure]:
    ours: dict[str, list[Sample]] = {way: [] for way in WAYS}
    bare: list[Sample] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        running = stack.enter_context(server("postgres"))
        name = f"r{secrets.token_hex(4)}"
        _write(servers, name, rows)
        lines = folder / "lines"
        with lines.open("w") as file:
            file.writelines(orders.line(number) for number in range(1, rows + 1))
        for number in range(REPETITIONS):
            for way in WAYS:
                ours[way].append(
                    _ours(folder / f"{way}{number}", name, servers, running, way, rows)
                )
            with fresh(running) as made:
                made.execute(orders.ddl("postgres"))
                bare.append(isolated(_copied, made.url, str(lines), rows))
    for way in WAYS:
        yield compared("rebuild", way, ours[way], "bare COPY", bare)


def _write(servers: str, name: str, rows: int) -> None:
    """A first copy of the table, in chunks as a capture writes them."""
    with closing(KafkaLog(servers, name)) as log:
        stamp = log.open().stamp
        for batch in changes.batches("insert", rows, PER_BATCH):
            made = piece("postgres", stamp, batch)
            assert made.commit is not None
            last = batch[-1][1]
            state = {"what": "rows", "after": last if last < rows else None, "done": last >= rows}
            progress: Progress = {f"{orders.SCHEMA}.orders": state}
            log.append(replace(made, commit=replace(made.commit, progress=progress)))
        log.flush()


def _ours(folder: Path, name: str, servers: str, running: Server, way: str, rows: int) -> Sample:
    folder.mkdir()
    broker_log = Server(kind="kafka", url=f"kafka://{servers}")
    with (
        fresh(running) as nothing,
        fresh(running) as target,
        pipeline(folder, name, nothing, {"mirror": target}, broker_log) as flow,
    ):
        target.execute(orders.ddl("postgres"))
        flow.target_settings["schemas"] = {orders.SCHEMA: schema_of(target)}
        # As the COPY: the source's own keys.
        flow.target_settings["primary_keys"] = "copy"
        flow.configure()
        sample = isolated(_rebuilt, str(folder / "headwater.toml"), way, rows)
        held.compare(target, changes.after("insert", rows))
    return sample


def _rebuilt(path: str, way: str, rows: int) -> Sample:
    clock = Clock()
    config = load(Path(path)).config
    with clock:
        rebuild(config, "mirror", Asked(latest=way == "latest"), Signals())
    return clock.sample(rows)


def _copied(url: str, lines: str, rows: int) -> Sample:
    clock = Clock()
    with closing(postgres.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        with clock, Path(lines).open("rb") as file:
            columns = ", ".join(orders.NAMES)
            cursor.copy_expert(f"copy orders ({columns}) from stdin", file, size=1 << 18)
            cursor.execute("commit")
    return clock.sample(rows)
