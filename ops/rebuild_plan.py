"""Which way a target is rebuilt, decided from the log's commit records and the target as it is.

Nothing is changed here. Invariant: a plan exists only where the log still holds every row of every
table that is wanted; else an error names those that it does not hold, and what to run.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from apply.target import Target
from schemas.change import Offset
from schemas.errors import Misconfigured, Operator
from schemas.table import Table
from transport.history import History
from transport.log import Log

Way = Literal["ordered", "latest", "on top"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the operator wants. tables, without: full names; at: a batch's number."""

    tables: Sequence[str] = ()
    without: Sequence[str] = ()
    at: int | None = None
    latest: bool = False
    on_top: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """tables: descriptions by full name, the newest last. first: the batch from which on each
    table's rows are read; start: the place from which an ordered replay goes, None where it goes on
    after an earlier one. until: the batch after which it ends. rows: how many are read, at least (0
    where it goes on after an earlier one).
    """

    way: Way
    history: History
    tables: Mapping[str, Sequence[Table]]
    first: Mapping[str, int]
    until: int
    rows: int
    start: Offset | None = None


def plan(log: Log, target: Target, asked: Asked, *, source: str, name: str) -> Plan:
    """Decide; raises Operator, with what to run, where it cannot be done as asked."""
    _refuse_contradictions(asked)
    stands_at = target.applied()
    until = asked.at
    if asked.tables:
        if stands_at is None:
            raise Operator(
                f"found no checkpoint in target {name}, as of which its other tables are",
                hint=f"rebuild all tables: headwater rebuild {name} --on-top",
            )
        until = stands_at.batch
    history = log.history(target.name, until)
    record = history.record
    if asked.tables and stands_at is not None and history.end != stands_at.offset:
        record = None
    if record is None or (until is not None and record.batch != until):
        raise Operator(
            f"found no batch {until} in the log of {source}" if until else
            f"found no batch in the log of {source}",
            hint=f"its newest: headwater peek {source}"
            if asked.at
            else f"rebuild all tables: headwater rebuild {name} --on-top"
            if asked.tables
            else f"start its capture: headwater capture {source}",
        )  # fmt: skip
    tables = _chosen(log.described(), asked)
    if stands_at is not None and target.is_rebuilding() and not asked.on_top:
        if asked.at is not None and stands_at.batch > asked.at:
            raise Operator(
                f"found the rebuild of {name} at batch {stands_at.batch} already, past {asked.at}",
                hint="name a later batch, or none",
            )
        return Plan(
            way="ordered",
            history=history,
            tables=tables,
            first={},
            until=record.batch,
            rows=0,
        )
    _refuse_lost(history, tables, source)
    common = set.intersection(*({*history.starts(n)} for n in tables)) if tables else set()
    first = {n: max(history.starts(n)) for n in tables}
    compacted = history.compacted.intersection(tables)
    if asked.at is not None and compacted:
        raise Misconfigured(
            f"cannot rebuild {name} at batch {asked.at}: the log is compacted, and keeps only the "
            f"newest rows of {', '.join(sorted(compacted))}",
            hint="leave --at away",
        )
    if asked.on_top:
        way: Way = "on top"
        if stands_at is not None and stands_at.batch > record.batch:
            raise Operator(
                f"found {name} at batch {stands_at.batch}, and the log's end at {record.batch}",
                hint=f"put the log back; or, if it was made anew: headwater drop {name} --yes, "
                "then rebuild --on-top",
            )
    else:
        _refuse_filled(target, [t[-1] for t in tables.values()], stands_at is not None, name)
        way = "latest" if asked.latest or compacted or not common else "ordered"
    if way == "ordered":
        first = dict.fromkeys(tables, max(common))
    begin = min(first.values(), default=0)
    return Plan(
        way=way,
        history=history,
        tables=tables,
        first=first,
        until=record.batch,
        rows=history.rows_from(begin) if begin else 0,
        start=history.place(begin) if way == "ordered" else None,
    )


def _refuse_contradictions(asked: Asked) -> None:
    pairs = [
        (asked.tables and not asked.on_top, "--table without --on-top",
         "an empty target is rebuilt whole; to mend tables of one that is not: --on-top"),
        (asked.on_top and asked.at is not None, "--on-top and --at",
         "a target that stands somewhere is not moved back"),
        (asked.on_top and asked.latest, "--on-top and --latest",
         "--on-top takes the newest rows by itself"),
        (asked.tables and asked.without, "--table and --without", "name the tables in one way"),
    ]  # fmt: skip
    for is_wrong, what, why in pairs:
        if is_wrong:
            raise Misconfigured(f"was told {what}", hint=why)


def _chosen(described: Sequence[Table], asked: Asked) -> dict[str, list[Table]]:
    """The tables' descriptions by name; with the tables that refer to those asked for, which would
    otherwise point at rows that were there before.
    """
    tables: dict[str, list[Table]] = {}
    for table in described:
        tables.setdefault(table.full_name, []).append(table)
    for name in (*asked.tables, *asked.without):
        if name not in tables:
            raise Misconfigured(
                f"found no table {name} in the log", hint=f"it has: {', '.join(sorted(tables))}"
            )
    if not asked.tables:
        return {n: t for n, t in tables.items() if n not in asked.without}
    wanted = set(asked.tables)
    while more := {n for n, t in tables.items() if wanted.intersection(t[-1].parents)} - wanted:
        wanted |= more
    return {n: t for n, t in tables.items() if n in wanted}


def _refuse_lost(history: History, tables: Collection[str], source: str) -> None:
    lost = sorted(n for n in tables if not history.starts(n))
    if lost:
        raise Operator(
            f"found that the log no longer holds, or never held, every row of {', '.join(lost)}",
            hint=f"bring their rows into the log, then run this again: headwater snapshot {source} "
            f"{' '.join(lost)}; leave out by --without what the source no longer has",
        )


def _refuse_filled(target: Target, tables: Sequence[Table], stands: bool, name: str) -> None:
    filled = target.filled(tables)
    if not stands and not filled:
        return
    what = f"rows in {', '.join(filled)}" if filled else "a checkpoint, and no rows"
    raise Operator(
        f"found that target {name} is not empty: it has {what}",
        hint=f"to set right what is there: headwater rebuild {name} --on-top; to begin from "
        f"nothing: headwater drop {name} --yes, and drop or empty those tables there",
    )
