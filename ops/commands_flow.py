"""Commands that move changes: run, capture, apply, pause, resume."""

from dataclasses import asdict
from typing import Annotated

import typer

from ops import show
from ops.applying import TRIES, Done, run_apply
from ops.compose import opened_target, source_config, target_config
from ops.config import Config
from ops.flow import run_capture
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from ops.prepare import make_ready
from ops.process_group import command, run_together
from ops.prompted import run_on_prompt
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
    on_prompt: Annotated[
        bool, typer.Option("--on-prompt", help="again and again, whenever POST /poll comes")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="with --on-prompt: seconds until it polls unprompted")
    ] = 300.0,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Apply the log to a target until stopped. Needs no way to the source."""
    loaded = begin(config, debug)
    if once and on_prompt:
        raise Misconfigured(
            "cannot apply both once and on prompt", hint="leave out --once or --on-prompt"
        )
    with listening() as signals:
        if on_prompt:
            run_on_prompt(loaded.config, target, signals, every_s=every)
        done = run_apply(loaded.config, target, signals, once=once, tries=TRIES if once else None)
    if json:
        show.as_json(asdict(done) | {"paused": done.paused and done.paused._asdict()})
    else:
        print(said(done))


def pause(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    reason: Annotated[str, typer.Option(help="why; status shows it")] = "",
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Let nothing more be applied to a target, until it is resumed; others go on.

    Its applier goes on running and waits. A batch that is being written is written to its end.
    """
    loaded = begin(config, debug)
    target_config(loaded.config, target)
    with opened_target(loaded.config, target) as opened:
        opened.pause(reason)
    if json:
        show.as_json({"target": target, "paused": True})
    else:
        print(f"{target} is paused (to end it: headwater resume {target})")


def resume(
    target: Annotated[str, typer.Argument(help="a target of the configuration")],
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """End a target's pause: its applier goes on where it was."""
    loaded = begin(config, debug)
    target_config(loaded.config, target)
    with opened_target(loaded.config, target) as opened:
        was = opened.resume()
    if json:
        show.as_json({"target": target, "paused": False, "was_paused": was})
    else:
        print(f"{target} is resumed" if was else f"{target} was not paused")


def said(done: Done) -> str:
    """One line for people."""
    if done.paused is not None:
        reason = f" ({done.paused.reason})" if done.paused.reason else ""
        return (
            f"{done.target}: applied nothing: paused since "
            f"{show.instant(done.paused.paused_at)}{reason}; headwater resume {done.target}"
        )
    place = f"stands at batch {done.batch}, {done.position}"
    if not done.missed.rows and not done.rows:
        return f"{done.target}: nothing new; {place}"
    between = ""
    if done.missed.since is not None:
        since, until = show.instant(done.missed.since), show.instant(done.committed_at)
        between = f", committed from {since} to {until}"
    return (
        f"{done.target}: applied {done.batches} batches, {done.rows} rows written{between}; {place}"
    )


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
