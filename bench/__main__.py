"""`python -m bench [NAME…] [--rows N] [--store]`: run measurements.

Each ends with one JSON object for each figure on stdout; the same for people is on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from time import perf_counter
from types import FrameType
from typing import Any

from bench import (
    applies,
    apply_exceptions,
    apply_translated,
    captures,
    end_to_end,
    enrol,
    giant,
    latency,
    logs,
    rebuild,
    snapshot_resume,
    snapshots,
    source_impact,
    sources,
    verify,
)
from bench.measure import Figure
from bench.report import store
from schemas import native
from tests.services import Unavailable

Bench = Callable[[int], Iterator[Figure]]

BENCHES: dict[str, tuple[Bench, int]] = {
    "capture-mysql": (captures.mysql, captures.ROWS),
    "capture-mariadb": (captures.mariadb, captures.ROWS),
    "capture-postgres": (captures.postgres, captures.ROWS),
    "capture-wide": (captures.wide, captures.WIDE_ROWS),
    "capture-narrow": (captures.narrow, captures.ROWS),
    "capture-tables": (captures.tables, captures.ROWS),
    "snapshot-mysql": (snapshots.mysql, snapshots.ROWS),
    "snapshot-postgres": (snapshots.postgres, snapshots.ROWS),
    "snapshot-resume": (snapshot_resume.snapshot_resume, snapshot_resume.ROWS),
    "source-impact": (source_impact.source_impact, source_impact.ROWS),
    "source-mysql": (sources.mysql, sources.ROWS),
    "source-mariadb": (sources.mariadb, sources.ROWS),
    "source-postgres": (sources.postgres, sources.ROWS),
    "log-sqlite": (logs.sqlite, logs.ROWS),
    "log-kafka": (logs.kafka, logs.ROWS),
    "apply-postgres": (applies.postgres, applies.ROWS),
    "apply-mysql": (applies.mysql, applies.ROWS),
    "apply-exceptions": (apply_exceptions.apply_exceptions, apply_exceptions.ROWS),
    "apply-translated": (apply_translated.apply_translated, apply_translated.ROWS),
    "enrol": (enrol.enrol, enrol.ROWS),
    "rebuild": (rebuild.rebuilds, rebuild.ROWS),
    "end-to-end": (end_to_end.end_to_end, end_to_end.ROWS),
    "latency": (latency.latency, latency.ROWS),
    "giant-transaction": (giant.giant, giant.ROWS),
    "verify": (verify.verify, verify.ROWS),
}
"""Each with its number of rows."""

VERSIONS = ("headwater", "confluent-kafka", "mysql-replication", "psycopg2-binary", "PyMySQL")


def main(arguments: list[str]) -> int:
    """Run what was named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--rows", type=int, help="rows in each repetition")
    parser.add_argument(
        "--store", action="store_true", help="keep the figures in docs/performance.jsonl too"
    )
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {unknown[0]}: choose from {', '.join(BENCHES)}")
    # Python's default for SIGTERM skips every `finally`, and would leave servers behind.
    signal.signal(signal.SIGTERM, _interrupt)
    for name in asked.names or BENCHES:
        bench, rows = BENCHES[name]
        began = perf_counter()
        try:
            figures = list(bench(asked.rows or rows))
        except Unavailable as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            return 1
        for figure in figures:
            print(figure.line(), file=sys.stderr)
        took = f"{name}: {perf_counter() - began:.0f} s"
        print(took, file=sys.stderr, flush=True)
        lines = [record(figure, asked.rows or rows) for figure in figures]
        for line in lines:
            print(json.dumps(line), flush=True)
        if asked.store:
            store(lines)
    return 0


def record(figure: Figure, rows: int) -> dict[str, Any]:
    """A figure with what it was measured on; spread is what lies between the repetitions.

    ratio: how many times as good as the peer, above 1 where ours is better.
    """
    return {
        "bench": figure.bench,
        "what": figure.what,
        "unit": figure.unit,
        "value": rounded(figure.value),
        "spread": rounded(max(figure.values) - min(figure.values)),
        "peer": figure.peer,
        "peer_value": rounded(figure.peer_value),
        "ratio": rounded(figure.ratio),
        "runs": [rounded(value) for value in figure.values],
        "peer_runs": [rounded(value) for value in figure.peer_values],
        "cpu_us_per_row": rounded(figure.cpu_us),
        "peak_mb": rounded(figure.peak_mb),
        "peer_cpu_us_per_row": rounded(figure.peer_cpu_us),
        "peer_peak_mb": rounded(figure.peer_peak_mb),
        "rows": rows,
        "compiled": native.load() is not None,
        "facts": dict(figure.facts),
        "on": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "cpus": os.cpu_count(),
            "arch": platform.machine(),
            "load": [round(load, 1) for load in os.getloadavg()],
        },
        "versions": {"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
    }


def rounded(value: float | None) -> float | None:
    """To four digits, which is more than a repetition repeats."""
    return None if value is None else float(f"{value:.4g}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
