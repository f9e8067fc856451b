"""The command that updates all children now."""

from dataclasses import asdict
from typing import Annotated

import typer

from ops import show
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from ops.push import Pushed, Report
from ops.push import push as push_all
from ops.supervise import listening


def push(
    source: Annotated[str, typer.Argument(help="a source of the configuration")],
    wait: Annotated[
        float, typer.Option(min=0, help="seconds to wait for children that can be reached")
    ] = 60.0,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Update all children now: prompt them, and wait until they have what the source has.

    Exit code 0: every child has applied it. 3: every one that can be reached and is not paused.
    1: not even those.
    """
    loaded = begin(config, debug)
    with listening() as signals, show.progress(total=0, shown=not json) as advance:
        report = push_all(
            loaded.config,
            source,
            signals,
            wait_s=wait,
            seen=lambda applied, of: advance(applied, f"of {of} children", of),
        )
    if json:
        show.as_json(asdict(report) | {"exit_code": report.exit_code})
    else:
        _print(report)
    raise typer.Exit(report.exit_code)


def _print(report: Report) -> None:
    print(f"{report.source} stands at {report.position}")
    if not report.is_captured:
        print("  the log does not hold that yet")
        print(f"  -> headwater capture {report.source} must run")
    show.table(
        ("target", "state", "batch", "stands at", "not applied", "since", "why"),
        [_row(pushed) for pushed in report.targets],
    )


def _row(pushed: Pushed) -> tuple[object, ...]:
    missed = pushed.missed
    return (
        pushed.target,
        pushed.state,
        pushed.batch,
        pushed.position,
        f"{missed.rows} rows" if missed else None,
        show.instant(missed.since) if missed else None,
        pushed.why,
    )
