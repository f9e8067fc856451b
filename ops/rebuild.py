"""A target made from the log alone: the source is not asked.

Ordered is the apply's own loop from where the log is whole. The other two ways read every row
first, keep each key's newest, and write those in ONE target transaction, with the place in the log
that was noted before: so a crash leaves the target as it was, and an apply goes on without a gap.
"""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from apply.latest import LatestBatch
from apply.loop import apply
from apply.newest import Newest
from apply.references import leads_to
from apply.target import Placement, Target
from ops.compose import opened_log, opened_target, target_config
from ops.config import Config
from ops.readers import adopt
from ops.rebuild_plan import Asked, Plan, plan
from ops.supervise import Signals, supervise
from schemas.change import Batch
from transport.batch import PLACE_BITS, StoredBatch
from transport.log import Log

Told = Callable[[str, int, int], None]
"""What is done now, the rows done, and how many in all."""
Heed = Callable[[bool], None]


def rebuild(
    config: Config,
    name: str,
    asked: Asked,
    signals: Signals,
    *,
    dry_run: bool = False,
    told: Told = lambda doing, done, total: None,
) -> tuple[Plan, int]:
    """Rebuild; what was planned, and how many rows were written. `dry_run`: only plan.

    Raises Operator where the log does not suffice or the target is not empty, Fenced when somebody
    else applies to it meanwhile.
    """
    source = target_config(config, name).source
    with opened_target(config, name) as target, opened_log(config, source) as log:
        if not dry_run:
            target.prepare([])
        planned = plan(log, target, asked, source=source, name=name)
        if dry_run:
            return planned, 0
        if planned.way == "ordered":
            _make_tables(target, planned)
            target.rebuild(planned.start)
    written = 0

    def attempt(heed: Heed) -> None:
        nonlocal written
        with opened_log(config, source) as log, opened_target(config, name) as target:
            # A person says that this is the target now.
            adopt(log, target)
            if planned.way == "ordered":
                target.rebuild(planned.start)
                last = planned.until if asked.at is not None else None
                written += _replay(log, target, planned, last, heed, told)
            else:
                placement = target_config(config, name).placement
                written = _write_latest(log, target, planned, placement, heed, told)

    supervise(attempt, signals, target=name)
    return planned, written


def _replay(
    log: Log, target: Target, planned: Plan, last: int | None, heed: Heed, told: Told
) -> int:
    total = written = 0

    def seen(batch: Batch | None, rows: int) -> None:
        nonlocal total, written
        written += rows
        total += batch.row_count if batch else 0
        told("applied", total, planned.rows)
        heed(batch is not None)

    apply(log, target, follow=False, seen=seen, last=last)
    target.rebuilt()
    return written


def _write_latest(
    log: Log, target: Target, planned: Plan, placement: Placement, heed: Heed, told: Told
) -> int:
    stands_at = target.applied()
    expect = stands_at.offset if stands_at else None
    known = {name: tables[-1] for name, tables in planned.tables.items()}
    parents = {name: leads_to(table, known, placement) for name, table in known.items()}
    batch = replace(_newest(log, planned, heed, told), parents=parents)
    _make_tables(target, planned)
    if planned.way == "on top":
        written = target.merge(batch, list(planned.tables), expect=expect)
    else:
        target.rebuild(None)
        written = target.apply(batch, expect=expect)
    target.rebuilt()
    return written


def _newest(log: Log, planned: Plan, heed: Heed, told: Told) -> LatestBatch:
    """Read every row; the newest of each key as one batch at the place noted in the plan."""
    floors: dict[str, int] = {}
    for table, number, ordinal in planned.history.truncates:
        if number >= planned.first.get(table, number + 1):
            floors[table] = max(floors.get(table, 0), (number << PLACE_BITS) + ordinal)
    newest, read = Newest(floors, planned.rows), 0
    for rows in log.scan(planned.first, planned.until):
        newest.add(rows)
        read += len(rows)
        told("read", read, planned.rows)
        heed(True)
    newest.finish()
    record, offset = planned.history.record, planned.history.end
    assert record is not None, "a plan has an end"
    assert offset is not None, "a plan has an end"
    end = StoredBatch(
        records=(record,), offset=offset, fetch=lambda: iter(()), target=planned.history.target
    )

    def wrote(rows: int) -> None:
        told("written", rows, planned.rows)
        heed(True)

    return LatestBatch(end=end, newest=newest, row_count=read, seen=wrote)


def _make_tables(target: Target, planned: Plan) -> None:
    """Make the missing tables, so that rows under every description that the log has fit in them:
    a column that some lack may be NULL.
    """
    newest = [tables[-1] for tables in planned.tables.values()]
    loose = []
    for table in newest:
        older = planned.tables[table.full_name][:-1]
        columns = tuple(
            replace(c, nullable=c.nullable or any(c.name not in old.by_name for old in older))
            for c in table.columns
        )
        loose.append(replace(table, columns=columns))
    if loose != newest:
        target.prepare(loose)
    target.prepare(newest)


class Rate:
    """Rows a second, and how long what is left takes, of a work that goes on steadily."""

    def __init__(self) -> None:
        self._doing, self._began_at = "", monotonic()

    def line(self, doing: str, done: int, total: int) -> str:
        """For a progress bar; rates are counted anew when something else is done."""
        if doing != self._doing:
            self._doing, self._began_at = doing, monotonic()
        rate = done / max(monotonic() - self._began_at, 0.001)
        left_s = max(total - done, 0) / rate if rate else 0
        return f"rows {doing}, {rate:,.0f}/s, {left_s:,.0f} s left"
