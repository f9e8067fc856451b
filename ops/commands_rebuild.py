"""The command that makes a target anew from the log: rebuild."""

from typing import Annotated

import typer

from ops import show
from ops.options import DEFAULT, ConfigPath, Debug, DryRun, Json, begin
from ops.rebuild import Rate
from ops.rebuild import rebuild as rebuilt
from ops.rebuild_plan import Asked
from ops.supervise import listening


def rebuild(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    table: Annotated[
        list[str] | None,
        typer.Option(help="schema.table: only this one, and what refers to it; with --on-top"),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="schema.table that the source no longer has; may be repeated"),
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="BATCH", help="stop exactly after this batch")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="write only each key's newest row, in one transaction")
    ] = False,
    on_top: Annotated[
        bool,
        typer.Option(
            "--on-top",
            "--shadow",
            help="set a target right that is not empty: build beside it, change what differs",
        ),
    ] = False,
    dry_run: DryRun = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a target from the log alone; the source is not asked and may be away.

    Says beforehand when the log no longer suffices. `headwater apply` goes on after it.
    """
    loaded = begin(config, debug)
    asked = Asked(tables=table or (), without=without or (), at=at, latest=latest, on_top=on_top)
    rate = Rate()
    with listening() as signals, show.progress(total=0, shown=not json) as bar:

        def told(doing: str, done: int, total: int) -> None:
            bar(done, rate.line(doing, done, total))

        planned, written = rebuilt(
            loaded.config, target, asked, signals, dry_run=dry_run, told=told
        )
    said = {
        "target": target,
        "way": planned.way,
        "dry_run": dry_run,
        "tables": sorted(planned.tables),
        "until": planned.until,
        "read": planned.rows,
        "written": written,
    }
    if json:
        show.as_json(said)
    else:
        done = "would read" if dry_run else f"wrote {written:,} rows; read"
        print(
            f"{target}: {planned.way}: {done} {planned.rows:,} rows of {len(planned.tables)} "
            f"tables, up to batch {planned.until}"
        )
