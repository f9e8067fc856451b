"""First copy: a table of rows that were there before, to Kafka by `headwater capture`.

Beside it: Debezium's initial snapshot, tuned, in a worker that is warm, with one thread and with
two, of which the faster counts. Each repetition of either side copies the whole table to a topic of
its own. A rate is counted from the broker's stamp on the
first rows to its stamp on the last, as in captures.py, and processor time with it.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import psutil

from bench import debezium, orders, topics
from bench.captures import headwater, stopped_after, watch
from bench.connect import worker
from bench.measure import Figure, Sample, Usage, by_turns, compared, costs
from bench.servers import broker, database
from bench.shapes import ORDERS
from tests.services.database import Database

ROWS = 500_000
AT_ONCE = 2_000
TUNED = {
    "snapshot.mode": "initial",
    "snapshot.fetch.size": "20480",
}


def mysql(rows: int) -> Iterator[Figure]:
    return _snapshot("mysql", rows)


def postgres(rows: int) -> Iterator[Figure]:
    return _snapshot("postgres", rows)


def _snapshot(kind: str, rows: int) -> Iterator[Figure]:
    bench = f"snapshot-{kind}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        made = stack.enter_context(database(kind))
        _fill(kind, made, rows)
        connect = stack.enter_context(worker(servers, folder, [kind]))
        prefix = f"b{secrets.token_hex(4)}"

        def ours(number: int) -> list[Sample]:
            name = f"{prefix}_{number}"
            into = [debezium.topic(name, made)]
            with headwater(folder, name, made, servers, ORDERS, first_copy="rows") as flow:
                flow.run("prepare", name)
                one = flow.capture()
                process = psutil.Process(one.process.pid)
                with stopped_after(one.stop):
                    return [
                        watch(
                            servers, into, rows, ORDERS, ORDERS.ours,
                            lambda: Usage.of(process), one.alive, is_new=True,
                        )
                    ]  # fmt: skip

        def peer(number: int, threads: int) -> list[Sample]:
            name = f"{prefix}_peer{number + 1}_{threads}"
            into = [debezium.topic(name, made)]
            topics.create(servers, *into)
            settings = debezium.source(kind, name, made, folder, number * 2 + threads + 1) | TUNED
            settings["snapshot.max.threads"] = str(threads)
            with stopped_after(lambda: connect.delete(name)):
                connect.create(name, settings)
                return [
                    watch(
                        servers, into, rows, ORDERS, ORDERS.theirs,
                        lambda: connect.usage, lambda: connect.check(name), is_new=True,
                    )
                ]  # fmt: skip

        # The first run, on a virtual machine that is still cold, does not count.
        peer(-1, 1)
        copied, *peers = by_turns(ours, lambda n: peer(n, 1), lambda n: peer(n, 2))
        connected = max(peers, key=lambda samples: median(s.rate for s in samples))
    called = f"{debezium.called(kind)} snapshot"
    yield compared(bench, ORDERS.what, copied, called, connected)
    yield from costs(bench, ORDERS.what, copied, called, connected)
    yield Figure(
        bench=bench,
        what=ORDERS.what,
        unit="rows/s per core",
        values=[1e6 / s.cpu_us for s in copied],
        peer=called,
        peer_values=[1e6 / s.cpu_us for s in connected],
    )


def _fill(kind: str, made: Database, rows: int) -> None:
    """The table, at rest: nothing is cleaned up or analysed while it is copied."""
    ORDERS.make(kind, made)
    orders.fill(made, 1, rows, at_once=AT_ONCE)
    with closing(made.connect()) as connection:
        settle = "vacuum analyze orders" if kind == "postgres" else "analyze table orders"
        connection.cursor().execute(settle)
