"""Commands that move changes: run, capture, apply."""

from typing import Annotated

import typer

from ops import show
from ops.compose import source_config, target_config
from ops.config import Config
from ops.flow import run_apply, run_capture
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from ops.prepare import make_ready
from ops.process_group import command, run_together
from ops.supervise import listening
from schemas.errors import Misconfigured


def run(
    source: Annotated[
        list[str] | None, typer.Option(help="only this source; may be repeated")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="only this target; may be repeated")
    ] = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Capture and apply: one process for each source and target, all supervised together.

    Checks and prepares everything first. SIGTERM stops between batches with exit code 0, Ctrl-C
    with 130.
    """
    loaded = begin(config, debug)
    sources, targets = _chosen(loaded.config, source, target)
    common = ["--config", str(config), *(["--debug"] if debug else [])]
    commands = {name: command("capture", name, *common) for name in sources}
    commands |= {name: command("apply", name, *common) for name in targets}
    with listening() as signals:
        make_ready(loaded.config, sources, targets)
        signals.heed()
        code = run_together(commands, signals)
    if json:
        show.as_json({"sources": sources, "targets": targets, "exit_code": code})
    raise typer.Exit(code)


def capture(
    source: Annotated[str, typer.Argument(help="a source of the configuration")],
    from_position: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="POSITION",
            help="begin a log that holds nothing yet there, not now (see headwater position)",
        ),
    ] = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a source's changes into its log until stopped; first copies too, where asked for."""
    loaded = begin(config, debug)
    with listening() as signals:
        run_capture(loaded.config, source, signals, begin=from_position)
    if json:
        show.as_json({"source": source})


def apply(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    once: Annotated[bool, typer.Option("--once", help="up to the log's end, then exit")] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Apply the log to a target until stopped. Needs no way to the source."""
    loaded = begin(config, debug)
    with listening() as signals:
        rows = run_apply(loaded.config, target, signals, once=once)
    if json:
        show.as_json({"target": target, "rows": rows})


def _chosen(
    config: Config, sources: list[str] | None, targets: list[str] | None
) -> tuple[list[str], list[str]]:
    """What to run: those named; a named target brings its source, a source its targets."""
    for name in targets or ():
        target_config(config, name)
    for name in sources or ():
        source_config(config, name)
    chosen = sources or list(
        dict.fromkeys(config.targets[t].source for t in targets) if targets else config.sources
    )
    if not chosen:
        raise Misconfigured(
            "found no source in the configuration", hint="add a table [sources.NAME] with its url"
        )
    for name in chosen:
        source_config(config, name)
    return chosen, targets or [t for name in chosen for t in config.targets_of(name)]
