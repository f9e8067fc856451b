"""Commands about which row of a target is which row of its source, where a table maps them."""

import csv
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from apply.target import Mapped, Pair
from ops import show
from ops.compose import opened_target
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from schemas.errors import Misconfigured

app = typer.Typer(
    name="referee",
    help='Which row of a target is which row of its source (identity = "referee"): look, correct.',
    no_args_is_help=True,
)

Target = Annotated[str, typer.Argument(help="a target of the configuration")]
OfTable = Annotated[str, typer.Argument(help="schema.table of the source")]
SourceKeys = Annotated[
    list[int] | None,
    typer.Option("--source-key", help="the row's primary key at the source; may be repeated"),
]
Ended = Annotated[bool, typer.Option("--ended", help="pairs that ended, too")]


@app.command("list")
def list_(
    target: Target,
    table: OfTable,
    source_keys: SourceKeys = None,
    ended: Ended = False,
    limit: Annotated[int, typer.Option(help="at most so many")] = 100,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a table's pairs, by the source's key."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        every = opened.pairs(table, ended=ended)
        found = [p for p in every if not source_keys or p.source_key in source_keys]
    if json:
        show.as_json({"pairs": [p._asdict() for p in found[:limit]], "of": len(found)})
        return
    show.table(Pair._fields, found[:limit])
    print(f"{min(limit, len(found))} of {len(found)} pairs")


@app.command()
def export(
    target: Target,
    table: OfTable,
    ended: Ended = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a table's pairs as CSV, which `assign --file` reads, or one JSON object a line."""
    loaded = begin(config, debug)
    out = csv.writer(sys.stdout, lineterminator="\n")
    with opened_target(loaded.config, target) as opened:
        if not json:
            out.writerow(Pair._fields)
        for pair in opened.pairs(table, ended=ended):
            show.as_json(pair._asdict()) if json else out.writerow(pair)


@app.command()
def assign(
    target: Target,
    table: OfTable,
    source_keys: SourceKeys = None,
    local_keys: Annotated[
        list[int] | None,
        typer.Option("--local-key", help="the row's primary key in the target; as many as those"),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns source_key and local_key, as export writes it"),
    ] = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which row of the target is which row of the source: all of it, or nothing.

    Also while the target is applied to. No row is written: the next change of the row, or
    `headwater verify --repair`, writes the target's row that is named here.
    """
    loaded = begin(config, debug)
    sources, locals_ = source_keys or [], local_keys or []
    if len(sources) != len(locals_) or bool(sources) == (file is not None):
        raise Misconfigured(
            "was not told which keys are pairs",
            hint="say --source-key and --local-key, as many of one as of the other; or --file",
        )
    wanted = list(_pairs_in(file)) if file is not None else list(zip(sources, locals_, strict=True))
    with opened_target(loaded.config, target) as opened:
        ended = opened.assign(table, wanted)
    if json:
        show.as_json({"assigned": len(wanted), "ended": _as_dicts(ended)})
        return
    print(f"assigned {len(wanted)} pairs")
    _tell_ended(ended)


@app.command("end")
def end_(
    target: Target,
    table: OfTable,
    source_keys: SourceKeys = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """End pairs: their rows stay, as the target's own; the source's next change of such a row
    makes another one.
    """
    loaded = begin(config, debug)
    if not source_keys:
        raise Misconfigured("was not told which pairs to end", hint="say --source-key")
    with opened_target(loaded.config, target) as opened:
        ended = opened.end_pairs(table, source_keys)
    if json:
        show.as_json({"ended": _as_dicts(ended)})
    else:
        _tell_ended(ended) if ended else print("no such pair is live")


@app.command()
def shared(
    target: Target,
    table: OfTable,
    source_keys: SourceKeys = None,
    ended: Ended = False,
    csv_: Annotated[bool, typer.Option("--csv", help="write all of it as CSV")] = False,
    limit: Annotated[int, typer.Option(help="at most so many")] = 100,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show which rows of which environments are the same, by the shared referee."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        found = opened.mappings(table, source_keys or (), ended=ended)
        if csv_:
            out = csv.writer(sys.stdout, lineterminator="\n")
            out.writerow(Mapped._fields)
            out.writerows(found)
            return
        some = list(islice(found, limit))
        rest = sum(1 for _ in found)
    if json:
        show.as_json({"mappings": [m._asdict() for m in some], "of": len(some) + rest})
        return
    show.table(Mapped._fields, some)
    print(f"{len(some)} of {len(some) + rest} mappings")


def _as_dicts(pairs: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"source_key": source, "local_key": local} for source, local in pairs]


def _tell_ended(ended: Sequence[tuple[int, int]]) -> None:
    for source, local in ended:
        print(f"ended: source key {source}; row {local} is the target's own now")


def _pairs_in(file: Path) -> Iterator[tuple[int, int]]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                if row.get("state", "live") == "live":
                    yield int(row["source_key"]), int(row["local_key"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise Misconfigured(
            f"cannot read pairs from {file}: {error}",
            hint="a CSV file with the columns source_key and local_key, whole numbers",
        ) from error
