"""Commands around a dump that a person takes and imports: position, import-check, catch-up."""

from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from ops import catch_up as level
from ops import import_check as imports
from ops import journal, show
from ops.beginning import note
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from ops.supervise import listening


def position(
    source: Annotated[str, typer.Argument(help="a source of the configuration")],
    no_hold: Annotated[
        bool, typer.Option("--no-hold", help="hold no snapshot: print and return")
    ] = False,
    no_beat: Annotated[
        bool, typer.Option("--no-beat", help="write nothing into the source's schemas")
    ] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Note a position before a dump is taken, for: headwater capture SOURCE --from POSITION.

    On PostgreSQL it makes the slot, and holds a snapshot for pg_dump --snapshot until it is
    stopped (Ctrl-C or SIGTERM). Without a snapshot it leaves a numbered row (a beat) in the source,
    by which headwater import-check knows the dump again.
    """
    loaded = begin(config, debug)
    noting = note(loaded.config, source, hold=not no_hold, beat=not no_beat)
    with listening() as signals, closing(noting) as notes:
        said = None
        for noted in notes:
            if noted is None and said is None:
                said = "waiting"
                journal.get(source=source).info("waits_for_running_transactions")
            elif noted is not None and said != "position":
                said = "position"
                show.noted(source, noted, json=json)
            signals.heed()


def import_check(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    from_position: Annotated[
        str | None,
        typer.Option("--from", metavar="POSITION", help="not the log's beginning: this position"),
    ] = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say whether an imported dump is as new as the position at which its changes begin.

    Exit code 0: it is; 78: it is older, so that changes are missing; 3: the import does not tell.
    """
    loaded = begin(config, debug)
    found = imports.import_check(loaded.config, target, from_position)
    if json:
        show.as_json(asdict(found) | {"as_new": not found.unknown})
    elif found.unknown:
        print(f"{target}: unknown: {found.unknown}")
        print(f"  -> headwater verify {target} --once lists what a dump that was too old lacks,")
        print("     once the target is level (headwater catch-up)")
    else:
        for schema, beat in found.beats.items():
            number = beat.number if beat else ""
            print(f"{target}: the import of {schema} is as new as {found.begins} (beat {number})")
    raise typer.Exit(found.exit_code)


def catch_up(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    watch: Annotated[
        bool, typer.Option("--watch", help="another process applies: only say how far it is")
    ] = False,
    within: Annotated[
        float,
        typer.Option(
            "--within", metavar="SECONDS", min=0.1, help="how old what is applied may be then"
        ),
    ] = 5.0,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Apply until the target is level with its source, say how far it is, and exit 0 then.

    Level: it has applied all that the source had committed at a moment at most --within seconds
    ago, by the source's clock. The capture must run.
    """
    loaded = begin(config, debug)

    def seen(found: level.Progress) -> None:
        if json:
            show.as_json({"target": target, **asdict(found)})
        else:
            advance(found.rows, described(found), found.rows + found.rows_left)

    with listening() as signals, show.progress(total=0, shown=not json) as advance:
        level.catch_up(loaded.config, target, signals, watch=watch, within_s=within, seen=seen)
    if not json:
        print(f"{target} is level with its source (within {within:g} s)")


def described(found: level.Progress) -> str:
    """One line for people."""
    left = f"{found.rows_left:,} rows left in {found.batches_left:,} batches"
    if found.copying:
        left = f"the first copy of {', '.join(found.copying)} is not finished"
    elif not found.rows_left and not found.level:
        left = "nothing left in the log: waiting for the capture"
    eta = "" if found.eta_s is None else f", {timedelta(seconds=round(found.eta_s))} to go"
    behind = "" if found.lag_s is None else f", {found.lag_s:.1f} s behind the source"
    return f"{left}, {found.rows_per_s:,.0f} rows/s{eta}{behind}"
