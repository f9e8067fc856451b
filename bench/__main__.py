"""`python -m bench [NAME…] [--rows N] [--json]`: run measurements, one line for each figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from types import FrameType
from typing import Any

from bench import end_to_end, logs, sources, targets
from bench.measure import Figure
from tests.services import Unavailable

Bench = Callable[[int], Iterator[Figure]]

BENCHES: dict[str, tuple[Bench, int]] = {
    "source-mysql": (sources.mysql, sources.ROWS),
    "source-mariadb": (sources.mariadb, sources.ROWS),
    "source-postgres": (sources.postgres, sources.ROWS),
    "log-sqlite": (logs.sqlite, logs.ROWS),
    "log-kafka": (logs.kafka, logs.ROWS),
    "target-postgres": (targets.postgres, targets.ROWS),
    "target-mysql": (targets.mysql, targets.ROWS),
    "end-to-end": (end_to_end.end_to_end, end_to_end.ROWS),
}
"""Each with its number of rows."""

VERSIONS = ("headwater", "confluent-kafka", "mysql-replication", "psycopg2-binary", "PyMySQL")


def main(arguments: list[str]) -> int:
    """Run what was named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--rows", type=int, help="rows in each repetition")
    parser.add_argument("--json", action="store_true", help="one JSON object a figure")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {unknown[0]}: choose from {', '.join(BENCHES)}")
    # Python's default for SIGTERM skips every `finally`, and would leave servers behind.
    signal.signal(signal.SIGTERM, _interrupt)
    for name in asked.names or BENCHES:
        bench, rows = BENCHES[name]
        try:
            for figure in bench(asked.rows or rows):
                said = json.dumps(record(figure)) if asked.json else figure.line()
                print(said, flush=True)
        except Unavailable as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            return 1
    return 0


def record(figure: Figure) -> dict[str, Any]:
    """A figure with what it was measured on; spread is what lies between the repetitions."""
    return {
        "bench": figure.bench,
        "what": figure.what,
        "unit": figure.unit,
        "value": figure.value,
        "min": min(figure.values),
        "spread": max(figure.values) - min(figure.values),
        "cpu_us_per_row": figure.cpu_us,
        "peak_mb": figure.peak_mb,
        "peer": figure.peer,
        "peer_value": figure.peer_value,
        "peer_cpu_us_per_row": figure.peer_cpu_us,
        "peer_peak_mb": figure.peer_peak_mb,
        "ratio": figure.ratio,
        "runs": list(figure.values),
        "machine": {"cpus": os.cpu_count(), "arch": platform.machine(), "load": os.getloadavg()},
        "versions": {"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
    }


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
