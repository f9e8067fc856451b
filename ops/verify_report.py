"""What a comparison found, as values, as a document and as a table for people.

Invariant: what is unknown is never counted as a difference; no value of a row is here unless asked
for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ops import show
from schemas.codec import Wire

Verdict = Literal["valid", "invalid", "unknown", "incomplete"]
VERDICTS: tuple[Verdict, ...] = Verdict.__args__  # type: ignore[attr-defined]
INVALID, UNKNOWN = 1, 3


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

    unsettled: rows that kept changing, and all rows of ranges that an applier has yet to reach:
    they are not known to be equal. incomplete: rows that stand for parents which have not come, and
    rows that differ in references to them alone: neither equal nor different. repaired: of the
    differences, those that were sent again and are equal now. left_out: source columns that the
    target does not have or keeps for itself.
    """

    table: str
    verdict: Verdict
    source_rows: int
    target_rows: int
    count: int
    unsettled: int
    incomplete: int
    repaired: int
    left_out: tuple[str, ...]
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All tables. position, checked_at (microseconds since 1970 UTC, the source's clock): where
    the source stood at the end; seconds: how long the pass took.
    """

    position: str
    checked_at: int
    seconds: float
    tables: tuple[TableReport, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of any table: invalid, unknown, incomplete, valid."""
        verdicts = {t.verdict for t in self.tables}
        worst: tuple[Verdict, ...] = ("invalid", "unknown", "incomplete")
        return next((v for v in worst if v in verdicts), "valid")

    @property
    def count(self) -> int:
        """Differences over all tables."""
        return sum(t.count for t in self.tables)

    @property
    def unsettled(self) -> int:
        """Rows that are not known to be equal, over all tables."""
        return sum(t.unsettled for t in self.tables)

    @property
    def incomplete(self) -> int:
        """Placeholders and what leads to them, over all tables."""
        return sum(t.incomplete for t in self.tables)

    @property
    def repaired(self) -> int:
        """Differences that are none any more, over all tables."""
        return sum(t.repaired for t in self.tables)

    @property
    def differences(self) -> list[Difference]:
        """Those that are listed, over all tables."""
        return [d for t in self.tables for d in t.differences]

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid (also where it was repaired), 3 unknown or incomplete."""
        codes = {"valid": 0, "invalid": INVALID, "unknown": UNKNOWN, "incomplete": UNKNOWN}
        return codes[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """For --json; every number is fit for a metric."""
        verdicts = [t.verdict for t in self.tables]
        return {
            "verdict": self.verdict,
            "position": self.position,
            "checked_at": self.checked_at,
            "seconds": round(self.seconds, 3),
            "rows": sum(t.source_rows for t in self.tables),
            "differences": self.count,
            "unsettled": self.unsettled,
            "incomplete": self.incomplete,
            "repaired": self.repaired,
            **{f"tables_{v}": verdicts.count(v) for v in VERDICTS},
            "tables": [{n: getattr(t, n) for n in TableReport.__slots__} for t in self.tables],
        }


def print_report(report: Report, *, json: bool) -> None:
    """Tables with their verdicts, every listed difference, and the sum as the last line."""
    if json:
        show.as_json(report.to_json())
        return
    show.table(
        [
            "table",
            "verdict",
            "source rows",
            "target rows",
            "differences",
            "unsettled",
            "incomplete",
            "left out",
        ],
        [
            (
                t.table,
                t.verdict,
                t.source_rows,
                t.target_rows,
                t.count,
                t.unsettled,
                t.incomplete,
                ", ".join(t.left_out),
            )
            for t in report.tables
        ],
    )
    if report.differences:
        show.table(["table", "identity", "found", "columns"], map(_line, report.differences))
    print(summary(report))


def summary(report: Report) -> str:
    """One line of a pass."""
    repaired = f", {report.repaired} of them repaired" if report.repaired else ""
    unknown = f"; {report.unsettled} rows are not known to be equal" if report.unsettled else ""
    placeholders = (
        f"; {report.incomplete} rows are incomplete (headwater placeholders list)"
        if report.incomplete
        else ""
    )
    return f"{report.verdict}: {report.count} differences{repaired}{unknown}{placeholders}"


def _line(found: Difference) -> Sequence[object]:
    columns = ", ".join(found.columns)
    if found.values:
        columns = ", ".join(f"{n}: {a!r} -> {b!r}" for n, (a, b) in found.values.items())
    return found.table, found.key, found.kind, columns
