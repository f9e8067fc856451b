"""What `kill -9` costs a first copy: the rows that were published beyond the rows of the table.

The copying process is killed whenever the topic has passed one of ten places drawn at random, and
started again. Every row that a broker took counts, also those that no commit record names.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import monotonic, perf_counter, sleep

from bench import debezium, topics
from bench.captures import headwater
from bench.connect import PeerFailed
from bench.giant import INSERT
from bench.measure import Figure
from bench.servers import broker, database
from bench.shapes import ORDERS

ROWS = 10_000_000
KILLS = 10
POLL_S = 0.02
WITHIN_S = 3600.0


def snapshot_resume(rows: int) -> Iterator[Figure]:
    seed = int(os.environ.get("HEADWATER_SEED") or secrets.randbelow(10**6))
    places = sorted(Random(seed).sample(range(1, rows), KILLS))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-")))
        servers = stack.enter_context(broker(folder))
        source = stack.enter_context(database("postgres"))
        ORDERS.make("postgres", source)
        source.execute(INSERT, 1, rows)
        source.execute("vacuum analyze orders")
        name = f"r{secrets.token_hex(4)}"
        flow = stack.enter_context(
            headwater(folder, name, source, servers, ORDERS, first_copy="rows")
        )
        flow.run("prepare", name)
        topic = debezium.topic(name, source)
        capture, began, killed = flow.capture(), perf_counter(), 0
        ends, deadline = topics.Ends(servers, topic), monotonic() + WITHIN_S
        while (published := ends.total()) < rows or flow.is_copying:
            if monotonic() > deadline:
                raise PeerFailed(f"{published:,} of {rows:,} rows are there: {capture.said}")
            if killed < KILLS and published >= places[killed]:
                capture.kill()
                killed += 1
                capture = flow.capture()
            capture.alive()
            sleep(POLL_S)
        took = perf_counter() - began
        capture.stop()
        published = ends.total()
    yield Figure(
        bench="snapshot-resume",
        what=f"killed {killed} times",
        unit="% published again",
        values=[100 * (published / rows - 1)],
        less=True,
        facts={"again for each kill": round((published - rows) / killed), "seconds": round(took),
               "seed": seed},
    )  # fmt: skip
