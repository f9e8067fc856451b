"""`headwater verify`: whether a target holds what its source holds, row by row, column by column.

Both sides move while we look, and nothing stops them. Ranges' checksums are computed in both
servers at once; a range whose checksums differ is compared again after the applier has passed what
the source had by then, and what still differs is looked at row by row (ops/verify_rows.py).
"""

import time
from collections.abc import Callable, Iterable, Sequence

from apply.references import translated_keys
from apply.target import Placement, Target
from capture.source import Source
from ops.verify_fence import Fence, NoRecords, Records
from ops.verify_incomplete import Incomplete
from ops.verify_progress import Progress, begun
from ops.verify_ranges import RANGE_ROWS, Range, Seen, SideRows, opened
from ops.verify_report import Report
from ops.verify_rows import Found, judged
from ops.verify_view import SeenBy
from schemas.checksum import key_text
from schemas.errors import Misconfigured
from schemas.ranges import ALONE, Compared, Key, Parent
from schemas.table import Table, parents_first

AGAIN = (1, 16, 16)
"""How often unequal ranges are compared again before their rows are, and into how many they are cut
each time: a server adds up a range in the time in which we read a few of its rows.
"""
LISTED = 1_000
"""Differences listed for each table; all of them are counted."""

Tell = Callable[[str, int], None]
Repair = Callable[[dict[str, list[str]]], int]
"""Sends rows, by table and identity; the batch at whose end the log holds them."""


def verify(
    source: Source,
    target: Target,
    placement: Placement,
    *,
    tables: Sequence[str] = (),
    timeout_s: float = 60.0,
    values: bool = False,
    records: Records | NoRecords | None = None,
    pause: Callable[[float], None] = time.sleep,
    seen: Tell = lambda table, rows: None,
    range_rows: int = RANGE_ROWS,
    repair: Repair | None = None,
) -> Report:
    """Compare all selected tables, or `tables` (full names), and say what differs.

    timeout_s: how long the applier may take to pass one look. records: of the log, for first
    copies that are not finished where the target stands: they are waited for. pause: waits so many
    seconds, or does what moves the target. seen: told of rows as they are compared. repair: sends
    the rows of these identities through the pipeline, by table. Keeps its progress and its verdicts
    in the target and writes nothing else; raises what the source and the target raise.
    """
    target.checkpoint()  # raises Operator for a database that is no target yet
    began_s = time.monotonic()
    compared = _compared(source.describe(), target, placement, tables)
    fence = Fence(source, target, records or NoRecords(), pause, timeout_s)
    seen_source = SeenBy(source, target, placement)
    run = _Run(seen_source, target, fence, seen, range_rows, values)
    found = begun(compared, target, fence.clock)
    for progress in found:
        if not progress.done:
            run.scan(progress)
    run.settle(found)
    if repair is not None and run.wrong:
        run.repair(found, repair)
    fence.note()
    clock = fence.clock
    target.keep([p.concluded(clock, fence.position) for p in found], only=not tables)
    return Report(
        position=fence.position,
        checked_at=clock,
        seconds=time.monotonic() - began_s,
        tables=tuple(p.report() for p in found),
    )


class _Run:
    """One pass over all tables: scan them, then settle what was unequal."""

    def __init__(
        self,
        source: SeenBy,
        target: Target,
        fence: Fence,
        seen: Tell,
        range_rows: int,
        values: bool,
    ) -> None:
        self._source, self._target, self._fence = source, target, fence
        self._seen, self._range_rows, self._values = seen, range_rows, values
        self.wrong: dict[str, list[Key]] = {}

    def scan(self, progress: Progress) -> None:
        """Compare a table's checksums, range by range, from where its progress stands."""
        name = progress.compared.table.full_name
        with opened(self._source, self._target, progress.compared) as pair:
            for cut, ours, theirs in pair.totals(pair.cut(progress.low, self._range_rows)):
                progress.note(cut, ours, theirs)
                progress.save(self._target, self._fence.clock)
                self._seen(name, ours.rows)

    def settle(self, found: Sequence[Progress]) -> None:
        """Compare unequal ranges again, and then their rows, each time behind the fence."""
        rows = self._range_rows
        for parts in AGAIN:
            due = [p for p in found if p.unequal]
            if not due or not self._fence.passes(p.compared.table.full_name for p in due):
                break
            rows = max(1, rows // parts)
            for progress in due:
                self._again(progress, rows)
        for progress in found:
            self._rows(progress)
        placeholders = self._target.placeholders()
        for progress in found:
            progress.incomplete += Incomplete(progress.compared, placeholders).rows

    def _again(self, progress: Progress, rows: int) -> None:
        with opened(self._source, self._target, progress.compared) as pair:
            pieces = (piece for cut, _ in progress.unequal for piece in pair.split(cut, rows))
            totals = pair.totals(pieces)
            progress.unequal = [
                (cut, max(ours.rows, theirs.rows)) for cut, ours, theirs in totals if ours != theirs
            ]

    def _rows(self, progress: Progress) -> None:
        """Look at the rows of all unequal ranges together."""
        if not progress.unequal:
            return
        if not self._fence.passes([progress.compared.table.full_name]):
            progress.unsettled += sum(rows for _, rows in progress.unequal)
            return
        cuts = [cut for cut, _ in progress.unequal]
        with opened(self._source, self._target, progress.compared) as pair:
            of = self._incomplete(progress)
            found = judged(pair, self._fence, _of(cuts), of, values=self._values)
        self._note(progress, self._without_left(progress.compared, found))

    def _incomplete(self, progress: Progress) -> Callable[[], Incomplete]:
        return lambda: Incomplete(progress.compared, self._target.placeholders())

    def _without_left(self, compared: Compared, found: Found) -> Found:
        """Rows that left the target's part of the source, and are kept there, are not extra."""
        extra = [key for d, key in found.differences if d.kind == "extra"]
        left = self._source.left(compared) if extra else None
        if left is None:
            return found
        with opened(left, self._target, compared) as pair:
            blocks = _these(extra)(pair.source)
            there = {row.key for block in blocks for row in block}
        kept = [(d, k) for d, k in found.differences if d.kind != "extra" or d.key not in there]
        return found._replace(differences=kept)

    def _note(self, progress: Progress, found: Found) -> None:
        progress.count += len(found.differences)
        progress.unsettled += found.unsettled
        progress.incomplete += found.incomplete
        listed = [d for d, _ in found.differences][: LISTED - len(progress.differences)]
        progress.differences += listed
        wrong = self.wrong.setdefault(progress.compared.table.full_name, [])
        wrong += [key for _, key in found.differences]

    def repair(self, found: Sequence[Progress], send: Repair) -> None:
        """Have what differs sent again, and look at it again; the pass stays an unclean one."""
        wrong = {name: keys for name, keys in self.wrong.items() if keys}
        tables = {p.compared.table.full_name: p for p in found}
        identity = {name: tables[name].compared.table.identity for name in wrong}
        batch = send({n: [key_text(identity[n], k) for k in keys] for n, keys in wrong.items()})
        if not self._fence.applies(batch):
            return
        for name, keys in wrong.items():
            progress = tables[name]
            with opened(self._source, self._target, progress.compared) as pair:
                of = self._incomplete(progress)
                left = judged(pair, self._fence, _these(keys), of, values=False)
            progress.repaired = len(keys) - len(left.differences) - left.unsettled


def _of(cuts: Sequence[Range]) -> Callable[[SideRows], Iterable[list[Seen]]]:
    return lambda side: (block for cut in cuts for block in side.rows(cut))


def _these(keys: Sequence[Key]) -> Callable[[SideRows], Iterable[list[Seen]]]:
    return lambda side: (side.rows_of(keys[at : at + ALONE]) for at in range(0, len(keys), ALONE))


def _compared(
    described: Sequence[Table], target: Target, placement: Placement, names: Iterable[str]
) -> list[Compared]:
    """The tables to compare, parents first: the columns that the target has, each with the kind
    that values compare by, and the references that it translates.
    """
    by_name = {t.full_name: t for t in described}
    for name in names:
        if name not in by_name:
            raise Misconfigured(
                f"found no captured table {name}", hint=f"captured: {', '.join(by_name)}"
            )
    wanted = [t for t in parents_first(described) if not names or t.full_name in names]
    return [_one(t, by_name, target, placement) for t in wanted]


def _one(table: Table, by_name: dict[str, Table], target: Target, placement: Placement) -> Compared:
    kinds = target.kinds(table)
    parents = {}
    for name, key in translated_keys(table, by_name, placement).items():
        if name in kinds:
            parent = by_name[key.parent]
            kind = target.kinds(parent)[parent.identity[0]]
            parents[name] = Parent(parent, key.parent_column, kind)
    return Compared(table=table, kinds=kinds, parents=parents)
