"""What a comparison found, as values, as a document and as a table for people.

Invariant: `behind` is never counted as a difference; no value of a row is here unless asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ops import show
from schemas.codec import Wire

Verdict = Literal["equal", "different", "behind"]
DIFFERENT, BEHIND = 1, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row that is not the same on both sides; `key` is its identity as JSON text.

    kind: "missing" in the target, "extra" there, or "different" in `columns`. values: by column,
    the source's and the target's canonical value; only where they were asked for.
    """

    table: str
    key: str
    kind: Literal["missing", "extra", "different"]
    columns: tuple[str, ...] = ()
    values: dict[str, tuple[Wire, Wire]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """One table: `count` differences in all, of which the first are in `differences`.

    unsettled: rows that kept changing, or that an applier has yet to reach: nothing is known of
    them. left_out: source columns that the target does not have or keeps for itself.
    """

    table: str
    verdict: Verdict
    source_rows: int
    target_rows: int
    count: int
    unsettled: int
    left_out: tuple[str, ...]
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All tables. `position`: where in the source the last look at it was taken."""

    position: str
    looks: int
    tables: tuple[TableReport, ...]

    @property
    def verdict(self) -> Verdict:
        """Different where anything is; else behind where anything is; else equal."""
        verdicts = {t.verdict for t in self.tables}
        return (
            "different"
            if "different" in verdicts
            else "behind"
            if "behind" in verdicts
            else "equal"
        )

    @property
    def count(self) -> int:
        """Differences over all tables."""
        return sum(t.count for t in self.tables)

    @property
    def differences(self) -> list[Difference]:
        """Those that are listed, over all tables."""
        return [d for t in self.tables for d in t.differences]

    @property
    def exit_code(self) -> int:
        """0 equal, 1 different, 3 behind: not known to be different."""
        return {"equal": 0, "different": DIFFERENT, "behind": BEHIND}[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "verdict": self.verdict,
            "differences": self.count,
            "position": self.position,
            "looks": self.looks,
            "tables": [{n: getattr(t, n) for n in TableReport.__slots__} for t in self.tables],
        }


def print_report(report: Report, *, json: bool) -> None:
    """Tables with their verdicts, every listed difference, and the sum as the last line."""
    if json:
        show.as_json(report.to_json())
        return
    show.table(
        ["table", "verdict", "source rows", "target rows", "differences", "unsettled", "left out"],
        [
            (
                t.table,
                t.verdict,
                t.source_rows,
                t.target_rows,
                t.count,
                t.unsettled,
                ", ".join(t.left_out),
            )
            for t in report.tables
        ],
    )
    if report.differences:
        show.table(["table", "identity", "found", "columns"], map(_line, report.differences))
    unsettled = sum(t.unsettled for t in report.tables)
    behind = f"; behind: {unsettled} rows are not known to be equal" if unsettled else ""
    print(f"{report.count} differences{behind}")


def _line(found: Difference) -> Sequence[object]:
    columns = ", ".join(found.columns)
    if found.values:
        columns = ", ".join(f"{n}: {a!r} -> {b!r}" for n, (a, b) in found.values.items())
    return found.table, found.key, found.kind, columns
