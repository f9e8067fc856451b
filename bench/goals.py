"""What the figures are held against: at least, and where they are going. Part of the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Line = Mapping[str, Any]

HEAD = "| what | at least | goal | measured |\n|---|---|---|---|\n"
RATE, CPU, MEMORY = "rows/s", "CPU s/million rows", "MB resident"
PER_CORE = "rows/s per core"
SINK, BEST, BARE = "one task", "two tasks", "staged"
CAPTURES = ("capture-mysql", "capture-mariadb", "capture-postgres")


class Wanted(NamedTuple):
    """A stored figure: its bench, the beginning of `what`, its unit, the end of its peer's name
    (None: its value counts, not its ratio).
    """

    bench: str
    what: str
    unit: str
    peer: str | None
    compiled: bool = True

    def of(self, lines: Iterable[Line]) -> str:
        """The figure, or a dash where it was never stored."""
        for line in lines:
            same = line["bench"] == self.bench and line["unit"] == self.unit
            if not same or line["compiled"] is not self.compiled:
                continue
            if not line["what"].startswith(self.what):
                continue
            if self.peer is None:
                return f"{line['value']:.1f}" if line["value"] < 100 else f"{line['value']:,.0f}"
            if self.peer in (line["peer"] or ""):
                return f"{line['ratio']:.2f}"
        return "-"


class Goal(NamedTuple):
    what: str
    at_least: str
    goal: str
    figures: list[Wanted]


def _captures(unit: str, *, compiled: bool = True) -> list[Wanted]:
    return [Wanted(bench, "ten columns", unit, "Debezium", compiled) for bench in CAPTURES]


def _snapshots(unit: str, peer: str | None) -> list[Wanted]:
    return [Wanted(f"snapshot-{kind}", "ten columns", unit, peer) for kind in ("mysql", "postgres")]


def _applies(bench: str, peer: str) -> list[Wanted]:
    return [Wanted(bench, what, RATE, peer) for what in ("insert", "update")]


def _translated(kind: str) -> list[Wanted]:
    of = (f"{kind}, {stage}" for stage in ("insert", "update"))
    return [Wanted("apply-translated", what, RATE, "copied") for what in of]


def _enrols(unit: str) -> list[Wanted]:
    return [Wanted("enrol", f"{source} to", unit, None) for source in ("PostgreSQL", "MySQL")]


def _latency(log: str) -> list[Wanted]:
    return [Wanted("latency", f"{log}, 1,000 rows/s, {p}", "ms", None) for p in ("p50", "p99")]


def _giant(log: str) -> list[Wanted]:
    return [Wanted("giant-transaction", f"{p}, {log}", "MB", None) for p in ("capture", "apply")]


SOURCES = "MySQL / MariaDB / PostgreSQL"
GOALS = [
    Goal(f"capture to Kafka : Debezium, rows/s: {SOURCES}", "3 / 2.5 / 3", "5 / 4 / 5",
         _captures(RATE)),
    Goal("… processor time", "5 / 4 / 5", "10", _captures(CPU)),
    Goal("… resident memory", "6", "12", _captures(MEMORY)),
    Goal("… rows/s in pure Python", "1", "", _captures(RATE, compiled=False)),
    Goal("snapshot to Kafka : Debezium's snapshot, rows/s: MySQL / PostgreSQL", "2", "4",
         _snapshots(RATE, "Debezium")),
    Goal("… rows/s per core", "100,000", "200,000", _snapshots(PER_CORE, None)),
    Goal("snapshot killed ten times: rows published again, %", "< 10", "< 2",
         [Wanted("snapshot-resume", "killed", "% published again", None)]),
    Goal("pgbench beside a throttled snapshot, % slower", "< 10", "< 3",
         [Wanted("source-impact", "pgbench", "% slower", None)]),
    Goal("apply to PostgreSQL : JDBC sink with schemas, one task: insert / update", "5 / 4",
         "8 / 6", _applies("apply-postgres", SINK)),
    Goal("… : the sink at its best", "2 / 1.5", "3 / 2.3", _applies("apply-postgres", BEST)),
    Goal("… : the bare staged statement", "0.7", "0.9", _applies("apply-postgres", BARE)),
    Goal("apply to MySQL : JDBC sink with schemas, one task: insert / update", "4 / 2.5",
         "6 / 3", _applies("apply-mysql", SINK)),
    Goal("… : the sink at its best", "1.5 / 1", "2.2 / 1.2", _applies("apply-mysql", BEST)),
    Goal("… : the bare staged statement", "0.7", "0.9", _applies("apply-mysql", BARE)),
    Goal("apply with two translated references a row : keys copied, PostgreSQL: insert / update",
         "0.6", "0.8", _translated("postgres")),
    Goal("… MySQL", "0.6", "0.8", _translated("mysql")),
    Goal("enrol 1 million rows against 1 million, s: PostgreSQL / MySQL to PostgreSQL", "60", "20",
         _enrols("s")),
    Goal("… peak MB", "500", "300", _enrols("MB")),
    Goal("end to end : native logical replication: embedded log / Kafka", "0.5 / 0.4", "1 / 0.8",
         [Wanted("end-to-end", log, RATE, "native") for log in ("embedded", "Kafka")]),
    Goal("… : Debezium and its sink as a chain", "3", "5",
         [Wanted("end-to-end", log, RATE, "Debezium") for log in ("embedded", "Kafka")]),
    Goal("latency at 1,000 rows/s, embedded log, ms: p50 / p99", "10 / 25", "4 / 12",
         _latency("embedded log")),
    Goal("… through Kafka", "10 / 25", "4 / 12", _latency("Kafka")),
    Goal("rebuild of a PostgreSQL target from Kafka, rows/s: ordered / latest", "100,000", "",
         [Wanted("rebuild", way, RATE, None) for way in ("ordered", "latest")]),
    Goal("… : the bare COPY", "", "0.7",
         [Wanted("rebuild", way, RATE, "COPY") for way in ("ordered", "latest")]),
    Goal("10 million rows in one transaction, embedded log, peak MB: capture / apply", "200",
         "120", _giant("embedded log")),
    Goal("… through Kafka", "200", "120", _giant("Kafka")),
    Goal("verify, 10 million equal rows, rows/s: PostgreSQL / MySQL to PostgreSQL", "200,000",
         "400,000", [Wanted("verify", of, RATE, None) for of in ("PostgreSQL", "MySQL")]),
    Goal("verify under 2,000 writes/s: false alarms in 10 passes / planted bytes found, %",
         "0 / 100", "0 / 100",
         [Wanted("verify", "false", "rows", None), Wanted("verify", "planted", "%", None)]),
]  # fmt: skip


def table(lines: Iterable[Line]) -> Iterator[str]:
    """The goals as a table, each with its stored figures; ratios above 1 are ours."""
    held = list(lines)
    yield HEAD
    for goal in GOALS:
        measured = " / ".join(figure.of(held) for figure in goal.figures)
        yield f"| {goal.what} | {goal.at_least} | {goal.goal} | **{measured}** |\n"
