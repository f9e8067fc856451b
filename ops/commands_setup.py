"""Commands that check, set up and take down: preflight, prepare, drop, config."""

from typing import Annotated, Any

import tomlkit
import typer
from sqlalchemy.engine import make_url

from ops import show
from ops.compose import is_source, opened_log, opened_source, opened_target
from ops.config import Config
from ops.config_reference import example
from ops.options import DEFAULT, ConfigPath, Debug, DryRun, Json, Yes, begin
from ops.preflight import check_all
from ops.prepare import prepare_all
from ops.readers import forget
from schemas.errors import Misconfigured


def preflight(
    name: Annotated[str | None, typer.Argument(help="a source or target; without: all")] = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what would lose data or stop a run, and what to do about it; changes nothing."""
    loaded = begin(config, debug)
    sources, targets = _named(loaded.config, name)
    found = check_all(loaded.config, sources, targets)
    if loaded.warnings:
        found["configuration"] = list(loaded.warnings)
    show.findings(found, json=json)
    if any(f.refused for those in found.values() for f in those):
        raise typer.Exit(Misconfigured.exit_code)


def prepare(
    name: Annotated[str | None, typer.Argument(help="a source or target; without: all")] = None,
    dry_run: DryRun = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Set up a source (PostgreSQL: publication, replica identity, slot) or a target's tables."""
    loaded = begin(config, debug)
    sources, targets = _named(loaded.config, name)
    done = prepare_all(loaded.config, sources, targets, dry_run=dry_run)
    show.statements(done, json=json, dry_run=dry_run)


def drop(
    name: Annotated[str | None, typer.Argument(help="a source or target")] = None,
    log: Annotated[
        bool, typer.Option("--log", help="the source's log (without a name: every source's)")
    ] = False,
    yes: Yes = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove what Headwater made: slot and publication, own tables, the log. Never replicated rows.

    Shows what it would do; does it with --yes.
    """
    loaded = begin(config, debug)
    if name is None and not log:
        raise Misconfigured(
            "was not told what to drop", hint="name a source or target, or say --log"
        )
    done: dict[str, list[str]] = {}
    sources, targets = _named(loaded.config, name)
    if log:
        if targets and name is not None:
            raise Misconfigured(
                f"cannot drop the log of a target: {name}",
                hint=f"name its source: headwater drop {loaded.config.targets[name].source} --log",
            )
        done |= {f"log of {source}": _drop_log(loaded.config, source, yes) for source in sources}
    elif sources:
        with opened_source(loaded.config, sources[0]) as source:
            done[sources[0]] = source.drop(dry_run=not yes)
    else:
        with opened_target(loaded.config, targets[0]) as target:
            done[targets[0]] = target.drop(dry_run=not yes)
        if yes:
            forget(loaded.config, targets[0])
    show.statements(done, json=json, dry_run=not yes)


def config(
    show_example: Annotated[
        bool, typer.Option("--example", help="print a commented example instead")
    ] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the effective configuration, passwords hidden."""
    if show_example:
        print(example(), end="")
        return
    shown = hidden(begin(config, debug).config)
    if json:
        show.as_json(shown)
    else:
        print(tomlkit.dumps(shown), end="")


def hidden(config: Config) -> dict[str, object]:
    """The configuration as plain values, with passwords (and secret Kafka options) as ***."""
    useless: dict[str, Any] = {
        "log": config.log.useless,
        "sources": {name: source.useless for name, source in config.sources.items()},
    }
    plain = config.model_dump(mode="json", exclude_none=True, exclude=useless)
    for section in (plain["sources"], plain["targets"]):
        for settings in section.values():
            url = make_url(settings["url"])
            settings["url"] = url.set(query={}).render_as_string(hide_password=True)
            if url.query:
                settings["url"] += "?***"
            if "prompt_token" in settings:
                settings["prompt_token"] = "***"
    for name, value in plain["log"].get("options", {}).items():
        plain["log"]["options"][name] = _hide(name, value)
    return dict(plain)


def _hide(key: str, value: object) -> object:
    secret = any(word in key for word in ("password", "secret", "key", "token", "jaas", "oauth"))
    return "***" if secret else value


def _named(config: Config, name: str | None) -> tuple[list[str], list[str]]:
    """Sources and targets that a name stands for; all of them without a name."""
    if name is None:
        return list(config.sources), list(config.targets)
    return ([name], []) if is_source(config, name) else ([], [name])


def _drop_log(config: Config, source: str, yes: bool) -> list[str]:
    with opened_log(config, source) as log:
        if yes:
            return [f"-- deleted {what}" for what in log.drop()]
        held = log.span()
        return [f"-- delete every change of {source} that the log holds"] if held else []
