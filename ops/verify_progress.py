"""How far a pass has come with a table, kept in the target: a killed pass goes on where it died."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from apply.target import Target, Verified
from ops.verify_ranges import Range
from ops.verify_report import Difference, TableReport, Verdict
from schemas.ranges import Compared, Key, Total

SAVE_S = 1.0
"""At most so much work is repeated."""
FRESH_S = 6 * 3600
"""A pass that was left longer ago begins anew."""


@dataclass(slots=True)
class Progress:
    """One table in one pass. low: every row up to it was compared (with `done`, all rows were);
    unequal: the ranges whose checksums differed, each with its rows on the larger side.
    """

    compared: Compared
    before: Verified
    began_at: int = 0
    low: Key | None = None
    done: bool = False
    source_rows: int = 0
    target_rows: int = 0
    unequal: list[tuple[Range, int]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    count: int = 0
    unsettled: int = 0
    incomplete: int = 0
    repaired: int = 0
    _saved_s: float = 0.0

    def note(self, cut: Range, source: Total, target: Total) -> None:
        """A range was compared, the next one after the last."""
        self.low, self.done = cut.high, cut.high is None
        self.source_rows += source.rows
        self.target_rows += target.rows
        if source != target:
            self.unequal.append((cut, max(source.rows, target.rows)))

    def report(self) -> TableReport:
        """What the pass found."""
        return TableReport(
            table=self.compared.table.full_name,
            verdict=self._verdict,
            source_rows=self.source_rows,
            target_rows=self.target_rows,
            count=self.count,
            unsettled=self.unsettled,
            incomplete=self.incomplete,
            repaired=self.repaired,
            left_out=self.compared.left_out,
            differences=tuple(self.differences),
        )

    @property
    def _verdict(self) -> Verdict:
        if self.count:
            return "invalid"
        return "unknown" if self.unsettled else "incomplete" if self.incomplete else "valid"

    def save(self, target: Target, clock: int) -> None:
        """Keep it, at most every SAVE_S, and when the table is through."""
        if self.done or time.monotonic() - self._saved_s >= SAVE_S:
            kept = {n: getattr(self, n) for n in _KEPT} | self._shape()
            kept |= {"saved_at": clock, "unequal": [(list(cut), n) for cut, n in self.unequal]}
            target.keep([self.before._replace(progress=orjson.dumps(kept).decode())])
            self._saved_s = time.monotonic()

    def resume(self, clock: int) -> bool:
        """Take up what an earlier pass has kept, if it still fits; whether it did."""
        kept: dict[str, Any] = orjson.loads(self.before.progress or "{}")
        fits = kept.items() >= self._shape().items()
        if not fits or clock - kept["saved_at"] > FRESH_S * 1_000_000:
            return False
        for name in _KEPT:
            setattr(self, name, kept[name])
        self.unequal = [(Range(*cut), rows) for cut, rows in kept["unequal"]]
        return True

    def concluded(self, clock: int, position: str) -> Verified:
        """What is kept of the whole pass; `position`: where the source stood at its end."""
        found = self.report()
        kept = self.before._replace(
            verdict=found.verdict, checked_at=clock, differences=found.count, progress=None
        )
        if found.verdict != "valid":
            return kept
        return kept._replace(held_from=self.began_at, held_at=clock, position=position)

    def _shape(self) -> dict[str, Any]:
        return {
            "fingerprint": self.compared.table.fingerprint,
            "columns": list(self.compared.names),
        }


_KEPT = ("began_at", "low", "done", "source_rows", "target_rows", "unequal")


def begun(compared: Sequence[Compared], target: Target, clock: int) -> list[Progress]:
    """The tables' progress: an earlier pass's where that was killed, else none yet."""
    before = {v.table_name: v for v in target.verified()}
    found = [
        Progress(
            compared=c,
            before=before.get(c.table.full_name) or Verified(c.table.full_name),
            began_at=clock,
        )
        for c in compared
    ]
    for progress in found:
        progress.resume(clock)
    return found
