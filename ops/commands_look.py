"""Commands that read and change nothing: status, peek, verify; and the demo."""

from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer

from ops import show
from ops.compose import is_source, opened_log, opened_target
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from ops.peek import documents, newest_batches, next_batches
from ops.status import SourceStatus, TargetStatus, statuses
from schemas.errors import Misconfigured


def status(config: ConfigPath = DEFAULT, json: Json = False, debug: Debug = False) -> None:
    """Show where every source and target stands, and its lag in seconds of source commit time."""
    loaded = begin(config, debug)
    sources, targets = statuses(loaded.config)
    if json:
        show.as_json(
            {"sources": [asdict(s) for s in sources], "targets": [_document(t) for t in targets]}
        )
    else:
        _print_status(sources, targets)
    codes = [s.exit_code for s in sources] + [t.exit_code for t in targets]
    raise typer.Exit(next(filter(None, codes), 0))


def _print_status(sources: list[SourceStatus], targets: list[TargetStatus]) -> None:
    show.table(
        (
            "source",
            "log stands at",
            "source stands at",
            "newest commit",
            "lag s",
            "log since",
            "error",
        ),
        [
            (
                s.source,
                s.position,
                s.source_position,
                show.instant(s.committed_at),
                s.lag_s,
                show.instant(s.retention.log_since),
                s.error,
            )
            for s in sources
        ],
    )
    show.table(
        ("target", "source", "stands at", "batch", "behind", "newest commit", "applied", "rows",
         "lag s", "parked", "parked since", "placeholders", "forgotten in s", "verified", "held at",
         "error"),
        [
            (t.target, t.source, t.position, t.batch, t.batches_behind,
             show.instant(t.committed_at), show.instant(t.applied_at), t.rows, t.lag_s,
             t.parked, show.instant(t.parked_since), t.placeholders, t.retention.forgotten_in_s,
             t.verdicts, show.instant(t.held_at), t.error)
            for t in targets
        ],
    )  # fmt: skip
    for name, found in [
        *((s.source, s.retention.findings) for s in sources),
        *((t.target, t.retention.findings) for t in targets),
    ]:
        show.listed(name, found)
    for t in targets:
        _print_target(t)


def _print_target(t: TargetStatus) -> None:
    """What one target's row has no room for."""
    if t.paused_at is not None:
        print(f"{t.target}: paused since {show.instant(t.paused_at)} {t.paused_for}".rstrip())
        print(f"  -> to end it: headwater resume {t.target}")
    if t.rows_behind:
        since = show.instant(t.behind_since)
        print(f"{t.target}: has not applied {t.rows_behind} rows, committed since {since}")
    if t.hint:
        print(f"{t.target}: {t.error}\n  -> {t.hint}")


def _document(found: TargetStatus) -> dict[str, Any]:
    return asdict(found) | {"verified": [v._asdict() for v in found.verified]}


def peek(
    name: Annotated[
        str, typer.Argument(help="a source: its newest batches; a target: its next ones")
    ],
    table: Annotated[str | None, typer.Option(help="only rows of schema.table")] = None,
    limit: Annotated[int, typer.Option(min=1, help="batches, and rows of each")] = 10,
    values: Annotated[bool, typer.Option("--values", help="show the rows' values too")] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at batches in the log, one JSON document a line; values stay hidden without --values."""
    loaded = begin(config, debug)
    if is_source(loaded.config, name):
        with opened_log(loaded.config, name) as log:
            found = list(
                documents(newest_batches(log, limit), table=table, limit=limit, values=values)
            )
    else:
        with opened_target(loaded.config, name) as target:
            at = target.checkpoint()
        with opened_log(loaded.config, loaded.config.targets[name].source) as log:
            found = list(
                documents(next_batches(log, at, limit), table=table, limit=limit, values=values)
            )
    for document in found:
        if json:
            show.as_json(document)
        else:
            rows = document.pop("rows")
            print(f"batch {document['batch']}: {orjson.dumps(document).decode()}")
            for row in rows:
                print(f"  {orjson.dumps(row).decode()}")
    if not found and not json:
        print("nothing there")


def verify(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    once: Annotated[bool, typer.Option("--once", help="one pass, then exit: the default")] = False,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="pass after pass, a line for each, until stopped")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0, help="with --continuous: seconds from one pass to the next")
    ] = 60.0,
    repair: Annotated[
        bool, typer.Option("--repair", help="send what differs through the pipeline again")
    ] = False,
    barrier: Annotated[
        bool,
        typer.Option("--barrier", help="a check in the stream, compared at its very place"),
    ] = False,
    table: Annotated[
        list[str] | None, typer.Option(help="only schema.table of the source; may be repeated")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="seconds to wait for a target that is behind")
    ] = 60.0,
    values: Annotated[bool, typer.Option("--values", help="show the differing values too")] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare every row and column of a target with its source, while both move.

    Exit code 0: valid. 1: invalid, also where it was repaired. 3: unknown, and nothing is known to
    differ. A pass that was stopped goes on where it was.
    """
    loaded = begin(config, debug)
    if once and continuous:
        raise Misconfigured(
            "cannot verify both once and continuously", hint="leave out --once or --continuous"
        )
    if barrier:
        if continuous or repair or values:
            raise Misconfigured(
                "cannot combine --barrier with --continuous, --repair or --values",
                hint="a check in the stream is one pass, and lists identities",
            )
        from ops.verify_barrier import run_barrier

        code = run_barrier(loaded.config, target, tables=table or (), timeout_s=timeout, json=json)
        raise typer.Exit(code)
    from ops.verify_command import run_verify, run_verify_continuously

    common: dict[str, Any] = {
        "tables": table or (),
        "timeout_s": timeout,
        "values": values,
        "json": json,
        "repair": repair,
    }
    if continuous:
        run_verify_continuously(loaded.config, target, every_s=every, **common)
    else:
        raise typer.Exit(run_verify(loaded.config, target, **common))


def demo(json: Json = False, debug: Debug = False) -> None:
    """Two embedded PostgreSQL databases, changes flowing between them, and a full comparison."""
    from ops.demo import run_demo

    raise typer.Exit(run_demo(json=json, debug=debug))
