"""`python -m bench.report`: the tables and the plot of docs/performance.md, from stored figures.

Only what stands between the two marks is written anew; the prose around them belongs to people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.goals import table
from bench.plot import svg

DOCS = Path(__file__).parents[1] / "docs"
STORED = DOCS / "performance.jsonl"
PAGE = DOCS / "performance.md"
PLOT = DOCS / "performance.svg"
BEGIN = "<!-- figures: written by python -m bench.report -->"
END = "<!-- end of figures -->"
HEAD = (
    "| what | ours | CPU µs/row | peak MB | beside | its | CPU µs/row | peak MB | ratio |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)

Line = Mapping[str, Any]


def store(lines: Iterable[Line], path: Path = STORED) -> None:
    """Keep figures, each instead of the last one of the same thing beside the same peer."""
    held = {_name(line): line for line in [*stored(path), *lines]}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in held.values())
    path.write_text(text, encoding="utf-8")


def stored(path: Path = STORED) -> list[Line]:
    """Every figure that is kept."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def page(text: str, lines: Iterable[Line]) -> str:
    """The page with the figures of these lines between its marks."""
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    held = list(lines)
    written = "".join([*table(held), *_sections(held)])
    return f"{before}{BEGIN}\n{written}\n{END}{after}"


def plot(lines: Iterable[Line]) -> str:
    """A bar for each figure of these lines that has a ratio."""
    return svg(
        (f"{line['bench']}, {label(line)}, {line['unit']} : {line['peer']}", line["ratio"])
        for line in lines
        if line["ratio"]
    )


def _sections(lines: Iterable[Line]) -> Iterator[str]:
    for bench, group in groupby(sorted(lines, key=lambda line: line["bench"]), _bench):
        found = list(group)
        about = found[-1]
        load = about["machine"]["load"][0]
        yield f"\n### {bench}\n\n`make bench B={bench}`, {about['on']}, {about['rows']:,} rows,"
        yield f" {about['machine']['cpus']} cores, load {load} at its end.\n\n{HEAD}"
        yield from map(_row, found)


def _row(line: Line) -> str:
    facts = ", ".join(f"{name} {value:,}" for name, value in line["facts"].items())
    cells = [
        f"{label(line)} ({facts})" if facts else label(line),
        f"{_number(line['value'])} {line['unit']} (± {_number(line['spread'] / 2)})",
        _number(line["cpu_us_per_row"]),
        _number(line["peak_mb"]),
        line["peer"] or "",
        _number(line["peer_value"]),
        _number(line["peer_cpu_us_per_row"]),
        _number(line["peer_peak_mb"]),
        "" if line["ratio"] is None else f"**{line['ratio']:.2f}**",
    ]
    return f"| {' | '.join(cells)} |\n"


def label(line: Line) -> str:
    """What was measured, and whether without the compiled part."""
    return f"{line['what']}{'' if line['compiled'] else ', pure Python'}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _bench(line: Line) -> str:
    return str(line["bench"])


def _name(line: Line) -> tuple[str, ...]:
    # Versions of the peer come and go; the figure is the same one.
    peer = (line["peer"] or "").split(",")
    return line["bench"], label(line), line["unit"], peer[0].split(" ")[0], *peer[1:]


def main() -> None:
    """Write the page and its plot."""
    lines = stored()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
    PLOT.write_text(plot(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
