"""Commands about rows that stand for parents which have not come: list, remove."""

import typer

from ops import show
from ops.compose import opened_target
from ops.options import DEFAULT, ConfigPath, Debug, Json, OfTable, Target, begin

app = typer.Typer(
    name="placeholders",
    help="Rows of a target that stand for parents which have not come: look, take away.",
    no_args_is_help=True,
)


@app.command("list")
def list_(
    target: Target,
    table: OfTable = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show every placeholder, oldest first. Exit code 1 where there are any."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        found = [p for p in opened.placeholders() if table in (None, p.table_name)]
    if json:
        show.as_json({"placeholders": [p._asdict() | {"is_named": p.is_named == 1} for p in found]})
    elif found:
        show.table(
            ("table", "source key", "identity", "wanted by", "batch", "made at"),
            [
                (p.table_name, p.source_key, p.identity if p.is_named else None, p.wanted_by,
                 p.batch, show.instant(p.made_at))
                for p in found
            ],
        )  # fmt: skip
    else:
        print("there are no placeholders")
    raise typer.Exit(1 if found else 0)


@app.command()
def remove(
    target: Target,
    table: OfTable = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Delete the placeholders that no row references any more; those that are referenced stay.

    Also while the target is applied to. A parent that comes after all is a new row.
    """
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        gone = opened.remove_placeholders(None if table is None else [table])
        left = [p for p in opened.placeholders() if table in (None, p.table_name)]
    if json:
        show.as_json({"removed": len(gone), "left": len(left)})
    else:
        print(f"removed {len(gone)} placeholders, {len(left)} are referenced and stay")
