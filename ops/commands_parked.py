"""Commands about changes that a target refused: list, show, retry, edit, skip."""

from collections.abc import Sequence
from time import time
from typing import Annotated, Any

import orjson
import typer

from apply.parked import Parked, numbered
from ops import show
from ops.compose import opened_target
from ops.options import DEFAULT, ConfigPath, Debug, Json, OfTable, Target, begin
from schemas.errors import Misconfigured, Poison
from schemas.table import Table

app = typer.Typer(
    name="parked",
    help="Changes that a target refused, and later ones of their rows: look, mend, apply, give up.",
    no_args_is_help=True,
)

Number = Annotated[int, typer.Argument(help="the change, as `parked list` numbers it")]


@app.command("list")
def list_(
    target: Target,
    table: OfTable = None,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="those that were given up, too")
    ] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show every parked change, oldest first; no values. Exit code 1 where changes are parked."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        found = [c for c in opened.parked(skipped=skipped) if table in (None, c.table_name)]
    if json:
        show.as_json({"parked": [_summary(c) for c in found]})
    else:
        _print(found)
    raise typer.Exit(1 if any(c.state == "parked" for c in found) else 0)


def _print(found: Sequence[Parked]) -> None:
    show.table(
        ("number", "table", "row", "op", "reason", "problem", "batch", "ordinal", "age s", "tries",
         "note"),
        [
            (c.number, c.table_name, c.row_key, c.op,
             c.reason if c.state == "parked" else c.state, c.problem, c.batch, c.ordinal,
             round(time() - c.parked_at / 1e6), c.tries, c.note)
            for c in found
        ],
    )  # fmt: skip
    if not found:
        print("nothing is parked")


def _summary(change: Parked) -> dict[str, Any]:
    """What may be shown without showing a row's values, but for its identity."""
    hidden = ("value", "description", "at_batch", "at_ordinal")
    found = {k: v for k, v in change._asdict().items() if k not in hidden}
    return found | {"row_key": orjson.loads(change.row_key)}


@app.command("show")
def show_(
    target: Target,
    number: Number,
    values: Annotated[bool, typer.Option("--values", help="show the row's values too")] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one parked change, what refused it and what to do; its values with --values."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        change = numbered(opened.parked(skipped=True), number)
    document = _summary(change)
    if values:
        document["change"] = orjson.loads(change.value)
    if json:
        show.as_json(document)
        return
    for name, value in document.items():
        if value is not None:
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            print(f"{name:13} {show.instant(value) if name.endswith('_at') else text}")


@app.command()
def retry(
    target: Target,
    numbers: Annotated[
        list[int] | None, typer.Argument(help="changes; without: all that are parked")
    ] = None,
    table: OfTable = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Apply parked changes, each row's in their order, and what waited for them.

    Also while the target is applied to. Never over a newer value: later changes of a parked row
    wait behind it. Exit code 65 where changes stay parked.
    """
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        there = opened.parked()
        for number in numbers or ():
            numbered(there, number)
        chosen = None
        if numbers or table is not None:
            mine = [c for c in there if table in (None, c.table_name)]
            chosen = [c.number for c in mine if not numbers or c.number in numbers]
        done = opened.retry(chosen)
        left = opened.parked()
    if json:
        show.as_json({"applied": done.applied, "parked": [_summary(c) for c in left]})
    else:
        print(f"{len(done.applied)} changes were applied, {len(left)} stay parked")
        _print(left) if left else None
    raise typer.Exit(Poison.exit_code if left else 0)


@app.command()
def edit(
    target: Target,
    number: Number,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="COLUMN=VALUE, as the wire has values; may be repeated"),
    ] = None,
    null: Annotated[
        list[str] | None, typer.Option("--null", help="a column to set to NULL; may be repeated")
    ] = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Change a parked change's row, for this target only; then apply it with `parked retry`."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        change = numbered(opened.parked(), number)
        columns = _columns(change, values or (), null or ())
        opened.edit(number, columns)
    if json:
        show.as_json({"edited": number, "columns": sorted(columns)})
    else:
        print(f"edited {', '.join(sorted(columns))}; run: headwater parked retry {target} {number}")


@app.command()
def skip(
    target: Target,
    numbers: Annotated[list[int], typer.Argument(help="changes, as `parked list` numbers them")],
    reason: Annotated[str, typer.Option(help="why; it is kept")],
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Give up parked changes: the target keeps what it has, and verify will say so."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        opened.skip(numbers, reason)
    if json:
        show.as_json({"skipped": numbers})
    else:
        print(f"skipped {len(numbers)} changes")


def _columns(change: Parked, values: Sequence[str], null: Sequence[str]) -> dict[str, Any]:
    """COLUMN=VALUE as wire values, by the columns' kinds."""
    columns: dict[str, Any] = dict.fromkeys(null)
    known = Table.loads(change.description).by_name
    for text in values:
        name, is_pair, value = text.partition("=")
        if not is_pair or name not in known:
            raise Misconfigured(
                f"cannot set {name}: it is no column of {change.table_name}"
                if is_pair
                else f"cannot read --set {name}",
                hint="write --set COLUMN=VALUE; columns: " + ", ".join(known),
            )
        columns[name] = _wire(name, known[name].kind.name, value)
    if not columns:
        raise Misconfigured("was told nothing to edit", hint="say --set COLUMN=VALUE or --null")
    return columns


def _wire(name: str, kind: str, value: str) -> Any:
    if kind not in ("int", "float", "bool"):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Misconfigured(
            f"cannot read the {kind} of --set {name}", hint="write a number, true or false"
        ) from error
