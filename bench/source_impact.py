"""What a throttled copy costs the source: pgbench beside it, and beside the same capture at rest.

One copy of pgbench's largest table, asked of the running capture, is paused and resumed by turns,
so that a busy machine slows both sides. What the capture's own stream costs is in both, and the
same without any capture is a fact beside them. Everything shares the machine's cores.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.connect import until
from bench.measure import Figure, Unmeasured
from bench.servers import database
from tests.faults.pipeline import Pipeline, Worker, pipeline
from tests.services import postgres
from tests.services.database import Database

ROWS = 1_000_000
"""In pgbench_accounts; the copy must not be done before the last turn."""
MAX_RATE = 5_000
SECONDS = 10
TURNS = 6
CLIENTS = 2
ACCOUNTS = 100_000
"""For each unit of pgbench's scale."""
TABLE = "public.pgbench_accounts"


def source_impact(rows: int) -> Iterator[Figure]:
    if rows < MAX_RATE * SECONDS * (TURNS + 1):
        raise Unmeasured(f"{rows:,} rows are copied before the last turn: ask for more --rows")
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder,
        database("postgres") as source,
    ):
        tool = _Pgbench(source, rows)
        bare = [tool.tps() for _ in range(TURNS)]
        name = f"i{secrets.token_hex(4)}"
        with pipeline(Path(folder), name, source, {}, "sqlite") as flow:
            flow.configure(first_copy="none", max_rate=MAX_RATE)
            flow.run("prepare", name)
            capture = flow.capture()
            copy = flow.start("snapshot", name, TABLE, "--json")
            until(lambda: _copied(copy) > 0, "the copy's first rows")
            alone, beside, copied = [], [], []
            for _ in range(TURNS):
                flow.run("snapshot", name, "--pause")
                alone.append(tool.tps())
                flow.run("snapshot", name, "--resume")
                before = _copied(copy)
                beside.append(tool.tps())
                copied.append((_copied(copy) - before) / SECONDS)
                copy.alive()
                capture.alive()
            _end(flow, copy, capture)
    if min(copied) < MAX_RATE / 2:
        raise Unmeasured(f"the copy went on at {min(copied):,.0f} rows/s only")
    yield Figure(
        bench="source-impact",
        what=f"pgbench beside a copy of {MAX_RATE:,} rows/s",
        unit="% slower",
        values=[100 * (1 - one / other) for one, other in zip(beside, alone, strict=True)],
        less=True,
        facts={
            "tps beside the copy": round(median(beside)),
            "tps beside the capture": round(median(alone)),
            "tps without": round(median(bare)),
            "copied rows/s": round(median(copied)),
        },
    )


class _Pgbench:
    """pgbench's own transactions, as many as two clients can; its tables have a sync_id."""

    def __init__(self, source: Database, rows: int) -> None:
        self._source = source
        scale = max(1, round(rows / ACCOUNTS))
        self._run("-i", "-s", str(scale), "-q")
        for table in ("accounts", "branches", "tellers", "history"):
            source.execute(
                f"alter table pgbench_{table} add sync_id uuid not null unique"
                " default gen_random_uuid()"
            )
        source.execute("vacuum analyze")
        self.tps(seconds=5)  # a machine and caches that are cold do not count

    def tps(self, seconds: int = SECONDS) -> float:
        """Transactions a second."""
        said = self._run("-n", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), "--max-tries=9")
        found = re.search(r"tps = ([0-9.]+)", said)
        assert found is not None, said
        return float(found[1])

    def _run(self, *words: str) -> str:
        server = self._source.server
        place = ["-h", server.host, "-p", str(server.port), "-U", server.user]
        done = subprocess.run(
            [postgres.tool("pgbench"), *place, *words, self._source.name],
            env=os.environ | {"PGPASSWORD": server.password},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout


def _copied(copy: Worker) -> int:
    """The rows that the copy's newest line speaks of."""
    lines = copy.log.read_text().splitlines(keepends=True)
    said = [json.loads(x) for x in lines if x.startswith('{"source"') and x.endswith("\n")]
    return int(said[-1].get("rows") or 0) if said else 0


def _end(flow: Pipeline, copy: Worker, capture: Worker) -> None:
    copy.kill()
    capture.stop()
