"""`headwater demo`: a server, two databases, `headwater run` between them, and what arrives when.

Everything is as an operator would do it: a configuration file, the command as its own processes,
and at the end the full comparison. Nothing is left behind.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from ops import journal, show
from ops.compose import opened_source, opened_target
from ops.config import Config
from ops.config_file import load
from ops.demo_postgres import Server, server
from ops.demo_story import AUTHORITY, CHILD, CONFIGURATION, KEYS, START, STEPS, Step
from ops.process_group import command, environment
from ops.supervise import UNKNOWN
from ops.verify import verify
from ops.verify_report import Report
from schemas.errors import HeadwaterError

PASSWORD = "HEADWATER_DEMO_PASSWORD"
POLL_S = 0.001
PATIENCE_S = 60.0


def run_demo(*, json: bool, debug: bool) -> int:
    """Run it; prints as it goes. Gives 0 when the comparison found no difference."""
    journal.begin(debug=debug)
    begun = time.monotonic()
    out = Console(quiet=json, highlight=False)
    out.print(
        "Starting an embedded PostgreSQL with two databases, [b]authority[/b] and [b]child[/b]"
    )
    with server() as (postgres, folder):
        with _engine(postgres, "postgres") as admin, admin.connect() as session:
            for name in ("authority", "child"):
                session.exec_driver_sql(f"create database {name}")
        path = folder / "headwater.toml"
        path.write_text(_configuration(postgres))
        os.environ[PASSWORD] = postgres.password
        with (
            _engine(postgres, "authority") as authority,
            _engine(postgres, "child") as child,
            authority.connect() as writer,
            child.connect() as reader,
        ):
            writer.exec_driver_sql(AUTHORITY)
            reader.exec_driver_sql(CHILD)
            with _running(path, folder) as running:
                latencies = _tell(out, running, writer, reader)
                report = _compare(load(path).config)
            _keys(out, "and now", writer, reader)
    seconds = time.monotonic() - begun
    return _conclude(out, latencies, report, seconds, json=json)


def _tell(
    out: Console, running: "subprocess.Popen[bytes]", writer: Connection, reader: Connection
) -> dict[str, float]:
    """Make every step on the authority and see it arrive; the latencies in milliseconds."""
    _keys(out, "the same rows under different primary keys, before", writer, reader)
    out.print("\n[b]headwater run[/b] captures authority and applies to child\n")
    drawn = Table(
        "transaction on authority", "rows", "arrived after", "child shows",
        title="from commit in authority to commit in child", title_justify="left",
    )  # fmt: skip
    latencies = {}
    with Live(drawn, console=out):
        for step in (START, *STEPS):
            writer.exec_driver_sql(f"begin; {step.sql}; commit")
            committed = time.perf_counter()
            _arrival(running, reader, step, committed)
            latencies[step.title] = round((time.perf_counter() - committed) * 1e3, 1)
            drawn.add_row(
                escape(step.title), f"{step.rows:,}" if step.rows else "",
                f"{latencies[step.title]:,.1f} ms", escape(str(step.expected)),
            )  # fmt: skip
    out.print()
    return latencies


def _arrival(
    running: "subprocess.Popen[bytes]", reader: Connection, step: Step, since: float
) -> None:
    """Return when the child shows what the step expects."""
    while reader.exec_driver_sql(step.shows).scalar() != step.expected:
        if running.poll() is not None or time.perf_counter() - since > PATIENCE_S:
            raise HeadwaterError(
                f"did not see arrive: {step.title}", hint="its log lines are above"
            )
        time.sleep(POLL_S)


def _keys(out: Console, title: str, writer: Connection, reader: Connection) -> None:
    """Show how keys differ: who has which id where, and that the orders follow."""
    drawn = Table(
        "user", "id in authority", "id in child", "orders in child point at",
        title=title, title_justify="left",
    )  # fmt: skip
    there = {name: (id_, at) for name, id_, _, at in reader.exec_driver_sql(KEYS)}
    for name, id_, _, _ in writer.exec_driver_sql(KEYS):
        child_id, points_at = there.get(name, (None, None))
        drawn.add_row(name, str(id_), str(child_id), str(points_at or ""))
    out.print(drawn)


def _compare(config: Config) -> Report:
    with opened_source(config, "authority") as source, opened_target(config, "child") as target:
        return verify(source, target, config.targets["child"].placement)


def _conclude(
    out: Console, latencies: dict[str, float], report: Report, seconds: float, *, json: bool
) -> int:
    if json:
        show.as_json(
            {"latency_ms": latencies, "seconds": round(seconds, 1), "compared": report.to_json()}
        )
        return report.exit_code
    rows = sum(table.source_rows for table in report.tables)
    out.print(
        f"\nCompared every column of {rows:,} rows in {len(report.tables)} tables; the demo took "
        f"{seconds:.0f} s and leaves nothing behind."
    )
    out.print(f"[b]{report.count} differences[/b]")
    return report.exit_code


@contextmanager
def _running(path: Path, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`headwater run` as its own process, stopped as a service is; its lines shown if it failed."""
    lines = folder / "run.log"
    with lines.open("wb") as log:
        process = subprocess.Popen(
            command("run", "--config", str(path)),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    try:
        yield process
    except BaseException:
        Console(stderr=True, markup=False).print(lines.read_text())
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code:
        raise HeadwaterError(f"`headwater run` ended with {code or UNKNOWN}")


@contextmanager
def _engine(postgres: Server, database: str) -> Iterator[Engine]:
    engine = create_engine(postgres.url(database), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def _configuration(postgres: Server) -> str:
    variable = "${" + PASSWORD + "}"
    return CONFIGURATION.format(
        authority=postgres.url("authority", password=variable),
        child=postgres.url("child", password=variable),
    )
