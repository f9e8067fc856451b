"""What commands print: for people or as one JSON document on stdout; errors on stderr."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Protocol

import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from capture.source import Noted
from schemas.finding import Finding


def as_json(document: object) -> None:
    """One JSON document on one line, at once also where stdout is a pipe."""
    sys.stdout.write(orjson.dumps(document).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """A table as wide as it needs, or as the terminal is; nothing where there are no rows."""
    drawn = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        drawn.add_row(*("" if value is None else str(value) for value in row))
    if drawn.row_count:
        console().print(drawn)


def console() -> Console:
    """Standard output; wide where it is no terminal, so that no word is cut in a file."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def error(message: str, hint: str) -> None:
    """One sentence, and what to do about it."""
    sys.stderr.write(f"headwater: {message}\n" + (f"  -> {hint}\n" if hint else ""))
    sys.stderr.flush()


def findings(found: Mapping[str, Sequence[Finding]], *, json: bool) -> None:
    """Preflight's report."""
    if json:
        as_json({name: [asdict(f) for f in those] for name, those in found.items()})
        return
    for name, those in found.items():
        if not those:
            print(f"{name}: ok")
        listed(name, those)


def noted(source: str, found: Noted, *, json: bool) -> None:
    """A position, at once also where stdout is a pipe: the caller may go on holding it."""
    if json:
        as_json({"source": source, **asdict(found)})
    else:
        listed(source, found.findings)
        print(f"{source} stands at {found.position}")
        if found.beat is not None:
            print(f"  a dump that is begun now holds beat {found.beat} (headwater import-check)")
        if found.snapshot is not None:
            print("  dump it while this command runs:")
            print(f"  pg_dump --snapshot={found.snapshot} …")
        print("  and capture what comes after it:")
        print(f"  headwater capture {source} --from '{found.position}'")
    sys.stdout.flush()


def listed(name: str, those: Sequence[Finding]) -> None:
    """One database's findings, for people."""
    for f in those:
        print(f"{name}: {'refused' if f.refused else 'warning'}: {f.where} {f.problem}")
        print(f"  -> {f.fix}")


def statements(done: Mapping[str, Sequence[str]], *, json: bool, dry_run: bool) -> None:
    """What `prepare` and `drop` did or would do, as statements that can be run by hand."""
    if json:
        as_json({"dry_run": dry_run, "statements": done})
        return
    for name, those in done.items():
        print(f"-- {name}: {'nothing to do' if not those else 'would run' if dry_run else 'ran'}")
        for statement in those:
            ends = statement.startswith("--") or statement.endswith(";")
            print(statement if ends else f"{statement};")


def instant(microseconds: int | None) -> str | None:
    """An instant of the wire as ISO text."""
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds")


class Advance(Protocol):
    """Moves a bar: so much is done, of so much (0: as before)."""

    def __call__(self, done: int, text: str, of: int = 0) -> None: ...


@contextmanager
def progress(*, total: int, shown: bool) -> Iterator[Advance]:
    """A bar on stderr, on a terminal only. total 0: unknown, until `advance` says it."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not (shown and sys.stderr.isatty()),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total or None)

        def advance(done: int, text: str, of: int = 0) -> None:
            bar.update(task, completed=done, description=text, total=of or total or None)

        yield advance
