"""`headwater verify`: whether a target holds what its source holds, row by row, column by column.

Both sides move while we look. Rows that differ are suspects; they are looked at again, the source
first, and the target once it has applied all that the source had at that look. Different is what
two such looks in a row saw the same and unequal. What settles is equal; what an applier has not
reached within the time given, or what changes at every look, is behind: never counted as different.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from apply.references import translated_keys
from apply.target import Placement, Target
from capture.snapshot import parents_first
from capture.source import Source
from ops import show
from ops.compose import opened_log, opened_source, opened_target, target_config
from ops.config import Config
from ops.verify_looks import Looks, Suspect
from ops.verify_report import Difference, Report, TableReport, Verdict, print_report
from ops.verify_sides import Compared, note_parents, note_source, note_target, read_kinds
from schemas.change import Offset, Position
from schemas.errors import Misconfigured
from schemas.table import Table
from transport.log import Log

CHUNK_ROWS = 10_000
MAX_LOOKS = 6
LISTED = 1_000
"""Differences listed for each table; all of them are counted."""
POLL_S = 0.1

Seen = Callable[[str, int], None]


def verify(
    source: Source,
    target: Target,
    placement: Placement,
    *,
    tables: Sequence[str] = (),
    timeout_s: float = 60.0,
    values: bool = False,
    copying: Callable[[Offset], frozenset[str]] = lambda at: frozenset(),
    pause: Callable[[float], None] = time.sleep,
    seen: Seen = lambda table, rows: None,
) -> Report:
    """Compare all selected tables, or `tables` (full names), and say what differs.

    timeout_s: how long the applier may take to pass one look. copying: the tables whose first copy
    is not finished where the target stands (see Copies): it is waited for. pause: waits so many
    seconds, or does what moves the target. seen: told of rows as they are read. Writes no row on
    either side; raises what the source and the target raise.
    """
    target.checkpoint()  # raises Operator for a database that is no target yet
    compared = _compared(source.describe(), placement, tables)
    with closing(Looks()) as looks:
        run = _Run(source, target, looks, compared, copying, pause, seen)
        run.look()
        while not run.is_settled and run.count < MAX_LOOKS and run.look(wait_s=timeout_s):
            pass
        found = [_judged(looks, c, run.suspects, values=values) for c in compared]
        return Report(position=run.high, looks=run.count, tables=tuple(found))


def run_verify(
    config: Config,
    name: str,
    *,
    tables: Sequence[str] = (),
    timeout_s: float = 60.0,
    values: bool = False,
    json: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """The command: compare the target of that name with its source, print, give the exit code."""
    settings = target_config(config, name)
    with (
        opened_source(config, settings.source) as source,
        opened_target(config, name) as target,
        opened_log(config, settings.source) as log,
        show.progress(total=0, shown=not json) as advance,
    ):
        rows = 0

        def seen(table: str, more: int) -> None:
            nonlocal rows
            rows += more
            advance(rows, f"rows of {table}")

        report = verify(
            source,
            target,
            settings.placement,
            tables=tables,
            timeout_s=timeout_s,
            values=values,
            copying=Copies(log),
            pause=pause,
            seen=seen,
        )
    print_report(report, json=json)
    return report.exit_code


def _compared(
    described: Sequence[Table], placement: Placement, names: Iterable[str]
) -> list[Compared]:
    """The tables to compare, parents first, with the references that the target translates."""
    by_name = {t.full_name: t for t in described}
    for name in names:
        if name not in by_name:
            raise Misconfigured(
                f"found no captured table {name}", hint=f"captured: {', '.join(by_name)}"
            )
    wanted = [t for t in parents_first(described) if not names or t.full_name in names]
    return [
        Compared(table=t, number=i, parents=_translated(t, by_name, placement))
        for i, t in enumerate(wanted)
    ]


def _translated(table: Table, by_name: dict[str, Table], placement: Placement) -> dict[str, Table]:
    """By column: the parents whose keys differ from side to side (design.md §7)."""
    keys = translated_keys(table, by_name, placement)
    return {name: by_name[key.parent] for name, key in keys.items()}


class Copies:
    """Which tables' first copies are not finished at an offset; reads the log's records."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._at: Offset | None = None
        self._pending: frozenset[str] = frozenset()

    def __call__(self, at: Offset) -> frozenset[str]:
        """Names of tables at this offset; not before one that was asked for earlier."""
        if at != self._at:
            for batch in self._log.read(self._at, follow=False):
                if batch is None:
                    continue
                self._at, self._pending = batch.offset, batch.pending
                if batch.offset == at:
                    break
        return self._pending


class _Run:
    """Looks at both sides, one after the other."""

    def __init__(
        self,
        source: Source,
        target: Target,
        looks: Looks,
        compared: Sequence[Compared],
        copying: Callable[[Offset], frozenset[str]],
        pause: Callable[[float], None],
        seen: Seen,
    ) -> None:
        self._source, self._target, self._looks = source, target, looks
        self._compared, self._copying, self._pause, self._seen = compared, copying, pause, seen
        self.count = 0
        self.high = Position("")
        self.suspects: dict[int, tuple[int, int]] = {}

    @property
    def is_settled(self) -> bool:
        """Whether another look could not tell more."""
        return all(count == steady for count, steady in self.suspects.values())

    def look(self, *, wait_s: float | None = None) -> bool:
        """Look at every table, later at those with suspects; False when the applier did not pass.

        Without `wait_s` the target is read as it is: equal is equal, whoever is behind.
        """
        due = [c for c in self._compared if not self.count or c.number in self.suspects]
        self._looks.begin()
        for c in due:
            read_kinds(self._target, c)
        parents = {p.full_name: (p, c.parent_kinds[n]) for c in due for n, p in c.parents.items()}
        for parent, identity in parents.values():
            note_parents(self._source, self._looks, parent, identity, CHUNK_ROWS)
        for c in due:
            note_source(self._source, self._looks, c, CHUNK_ROWS, self._tell(c))
        self.high = self._source.now()[0]
        passed = wait_s is None or self._passes({c.table.full_name for c in due}, wait_s)
        if passed:
            for c in due:
                note_target(self._target, self._looks, c, self._tell(c))
        self._looks.end(judge=passed)
        self.suspects = self._looks.suspects_by_table()
        self.count += 1
        return passed

    def _passes(self, tables: set[str], wait_s: float) -> bool:
        """Whether the target passes `high`, and the first copies of `tables`, in time."""
        deadline = time.monotonic() + wait_s
        while True:
            applied = self._target.applied()
            if (
                applied is not None
                and self._source.reached(self.high, Position(applied.position))
                and tables.isdisjoint(self._copying(applied.offset))
            ):
                return True
            if time.monotonic() >= deadline:
                return False
            self._pause(POLL_S)

    def _tell(self, compared: Compared) -> Callable[[int], None]:
        return lambda rows: self._seen(compared.table.full_name, rows)


def _judged(
    looks: Looks, c: Compared, suspects: dict[int, tuple[int, int]], *, values: bool
) -> TableReport:
    count, steady = suspects.get(c.number, (0, 0))
    verdict: Verdict = "different" if steady else "behind" if count else "equal"
    return TableReport(
        table=c.table.full_name,
        verdict=verdict,
        source_rows=c.source_rows,
        target_rows=c.target_rows,
        count=steady,
        unsettled=count - steady,
        left_out=c.left_out,
        differences=tuple(_difference(c, s, values) for s in looks.steady(c.number, LISTED)),
    )


def _difference(c: Compared, suspect: Suspect, values: bool) -> Difference:
    table, key = c.table.full_name, suspect.key
    if suspect.source is None:
        return Difference(table=table, key=key, kind="extra")
    if suspect.target is None:
        return Difference(table=table, key=key, kind="missing")
    pairs = dict(zip(c.names, zip(suspect.source, suspect.target, strict=True), strict=True))
    unequal = {n: (a, b) for n, (a, b) in pairs.items() if a != b}
    return Difference(
        table=table,
        key=key,
        kind="different",
        # Twice the same row: what is wrong is the identity itself.
        columns=tuple(unequal) or c.table.identity,
        values=unequal if values else None,
    )
