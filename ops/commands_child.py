"""Commands for child servers: bring one up, and let single rows of one be exempt."""

from dataclasses import asdict
from typing import Annotated

import typer

from apply.target import Exemption
from ops import catch_up, show
from ops import child as children
from ops.child_drop import drop as drop_child
from ops.commands_import import described
from ops.commands_snapshot import key_of
from ops.compose import target_config
from ops.options import DEFAULT, ConfigPath, Debug, Json, Yes, begin
from ops.supervise import listening
from schemas.errors import Misconfigured

app = typer.Typer(
    name="child",
    help="Child servers: bring up a new one, and let single rows of one be exempt.",
    no_args_is_help=True,
)

Target = Annotated[str, typer.Argument(help="a target of the configuration")]
OfTable = Annotated[str, typer.Argument(help="schema.table of the source")]
Identities = Annotated[
    list[str], typer.Argument(help="sync_ids of rows; of an identity of several columns as JSON")
]
Timeout = Annotated[float, typer.Option(help="seconds for the capture to copy the rows")]


@app.command()
def add(
    target: Target, config: ConfigPath = DEFAULT, json: Json = False, debug: Debug = False
) -> None:
    """Bring up a new target: check, prepare, have its tables copied, apply until it is level.

    The capture must run. Stopped and run again, it goes on.
    """
    loaded = begin(config, debug).config
    target_config(loaded, target)
    step = ""

    def told(now: str) -> None:
        nonlocal step
        step = now
        if json:
            show.as_json({"target": target, "step": step})
        else:
            advance(0, step, 0)

    def seen(found: catch_up.Progress) -> None:
        if json:
            show.as_json({"target": target, "step": step, **asdict(found)})
        else:
            advance(found.rows, described(found), found.rows + found.rows_left)

    with listening() as signals, show.progress(total=0, shown=not json) as advance:
        children.add(loaded, target, signals, told=told, seen=seen)
    if json:
        show.as_json({"target": target, "step": "level"})
    else:
        print(f"{target} is level with its source; from now on: headwater apply {target}")


@app.command()
def exclude(
    target: Target,
    table: OfTable,
    identities: Identities,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Leave these rows of the target as they are, whatever comes."""
    _change(target, table, identities, "excluded", 0.0, config, json, debug)


@app.command()
def pin(
    target: Target,
    table: OfTable,
    identities: Identities,
    timeout: Timeout = 60.0,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Have these rows in the target, whatever its condition says; they are copied now."""
    _change(target, table, identities, "pinned", timeout, config, json, debug)


@app.command()
def include(
    target: Target,
    table: OfTable,
    identities: Identities,
    timeout: Timeout = 60.0,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Let these rows be excluded or pinned no more; they are copied now."""
    _change(target, table, identities, "none", timeout, config, json, debug)


@app.command()
def adopt(
    target: Target, config: ConfigPath = DEFAULT, json: Json = False, debug: Debug = False
) -> None:
    """Let this target's database be the one that reads the log by its name; another is refused."""
    loaded = begin(config, debug).config
    children.adopt_name(loaded, target)
    if json:
        show.as_json({"target": target, "adopted": True})
        return
    print(f"{target}: this database reads the log by that name from now on")


@app.command()
def drop(
    target: Target,
    own_tables: Annotated[
        bool, typer.Option("--own-tables", help="remove Headwater's tables in its database, too")
    ] = False,
    gone: Annotated[bool, typer.Option("--gone", help="its database is there no more")] = False,
    yes: Yes = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Forget a child; its rows stay. Nobody may apply to it.

    Shows what it would do; does it with --yes.
    """
    loaded = begin(config, debug).config
    target_config(loaded, target)
    if gone and own_tables:
        raise Misconfigured(
            "cannot remove tables in a database that is gone", hint="leave out --own-tables"
        )
    done = drop_child(loaded, target, own_tables=own_tables, is_gone=gone, yes=yes)
    if json:
        show.as_json(asdict(done) | {"done": yes})
        return
    lines = [f"-- cancel the copy {number} for {target}" for number in done.cancelled]
    lines += [f"-- forget in the log who reads as {target}"] if done.was_noted else []
    show.statements({target: [*lines, *done.statements]}, json=False, dry_run=not yes)
    if yes:
        print(f"now take [targets.{target}] out of the configuration")


@app.command("list")
def list_(
    target: Target, config: ConfigPath = DEFAULT, json: Json = False, debug: Debug = False
) -> None:
    """Show the rows that are excluded or pinned."""
    rows = list(children.exempt_rows(begin(config, debug).config, target))
    if json:
        show.as_json([{"table": t, "identity": key, "is": what} for t, key, what in rows])
    else:
        show.table(["table", "identity", "is"], rows)


def _change(
    target: str,
    table: str,
    identities: list[str],
    what: Exemption,
    timeout_s: float,
    config: ConfigPath,
    json: bool,
    debug: bool,
) -> None:
    loaded = begin(config, debug).config
    of = children.described(loaded, target, table)
    keys = [key_of(of, text) for text in identities]
    batch = children.make_exempt(loaded, target, table, what, keys, timeout_s=timeout_s)
    if json:
        document = {"target": target, "table": table, "rows": len(keys), "is": what}
        show.as_json({**document, "batch": batch})
        return
    now = "neither excluded nor pinned" if what == "none" else what
    copied = "" if batch is None else f"; batch {batch} of the log brings them"
    print(f"{target}: {len(keys)} rows of {table} are {now}{copied}")
