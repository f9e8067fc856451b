"""The report for people: a table on the terminal, and a page of Markdown to read and hand on."""

from collections.abc import Iterator, Sequence
from typing import Any

from ops.enrol.findings import Found
from ops.enrol.run import Report

COLUMNS = (
    *("table", "source rows", "target rows", "matched", "ids given", "ambiguous", "only source"),
    *("only target", "different values"),
)


def line(found: Found) -> Sequence[object]:
    """One table's counts, in the order of COLUMNS; ambiguous: rows of the source / the target."""
    if found.source_rows is None:
        return (found.table, "", "is not there", *[""] * 6)
    ambiguous = f"{found.ambiguous_source:,} / {found.ambiguous_target:,}"
    counts = (found.source_rows, found.target_rows or 0, found.matched, found.assigned)
    rest = (found.only_source, found.only_target, found.differing)
    return (found.table, *(f"{n:,}" for n in counts), ambiguous, *(f"{n:,}" for n in rest))


def page(report: Report, limit: int) -> str:
    """The whole report; lists are cut at `limit`, counts are not."""
    return "\n".join(_page(report, limit)) + "\n"


def _page(report: Report, limit: int) -> Iterator[str]:
    yield f"# First matching of {report.source} and {report.target}"
    yield ""
    done = "Ids were given." if report.applied else "Nothing was written: this is a dry run."
    yield f"{done} Lists show at most {limit} entries; counts are of all rows."
    yield ""
    yield from _table(COLUMNS, map(line, report.tables))
    for found in report.tables:
        yield ""
        yield f"## {found.table}"
        yield ""
        yield from _of(found)
    for side, statements in report.steps.items():
        yield ""
        verb = "were run" if report.applied else "are to be run"
        yield f"## Statements that {verb} in the {side}: {len(statements)}"
        if statements:
            yield ""
            yield "```sql"
            yield from (f"{statement};" for statement in statements)
            yield "```"


def _of(found: Found) -> Iterator[str]:
    if found.source_rows is None:
        yield "The target does not have this table; the first copy makes it, with all rows."
        return
    rules = "; ".join(found.rules) or "none: add it to `match` to match rows that have no id yet"
    yield f"- rules: {rules}"
    for name, count in found.matched_by.items():
        yield f"- matched by {name}: {count:,}"
    for role, unkeyed in (("source", found.unkeyed_source), ("target", found.unkeyed_target)):
        if unkeyed:
            yield f"- only in the {role}, without any key (a null or an empty text): {unkeyed:,}"
    for role, columns in found.unreadable.items():
        for column, count in columns.items():
            yield f"- values of `{column}` in the {role} that its steps cannot read: {count:,}"
    for column, count in found.differing_by.items():
        yield f"- matched rows with different values of `{column}`: {count:,}"
    if found.likely:
        yield ""
        yield "Likely the same, and matched, the least probable first:"
        yield ""
        pairs = [
            (_keys([d["source_key"]]), _keys([d["target_key"]]), f"{d['score']:.4f}")
            for d in found.likely
        ]
        yield from _table(("source key", "target key", "probability"), pairs)
    if found.ambiguous:
        yield ""
        yield "Ambiguous, not assigned:"
        yield ""
        groups = [
            (g.rule, g.reason, _keys(g.source_keys), _keys(g.target_keys)) for g in found.ambiguous
        ]
        yield from _table(("rule", "why", "source keys", "target keys"), groups)
    for title, keys in (
        ("Only in the source", found.only_source_keys),
        ("Only in the target, never touched", found.only_target_keys),
    ):
        if keys:
            yield ""
            yield f"{title}: {_keys(keys)}"
    if found.differing_keys:
        yield ""
        yield "Matched rows that differ:"
        yield ""
        rows = [
            (_keys([d["source_key"]]), _keys([d["target_key"]]), ", ".join(d["columns"]))
            for d in found.differing_keys
        ]
        yield from _table(("source key", "target key", "columns"), rows)


def _keys(keys: Sequence[Any]) -> str:
    return ", ".join(map(str, keys))


def _table(columns: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        yield f"| {' | '.join(cells)} |"
