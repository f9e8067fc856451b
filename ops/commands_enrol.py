"""The command for two databases that already exist: enrol."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import show
from ops.compose import target_config
from ops.config import Config
from ops.enrol import assign as assignments
from ops.enrol import page
from ops.enrol.run import LIMIT, both_sides, both_twins
from ops.enrol.run import enrol as match
from ops.enrol.side import keys_of
from ops.enrol.twin import Twin
from ops.options import DEFAULT, ConfigPath, Debug, Json, begin
from schemas.errors import Misconfigured

USAGE = (
    "say: headwater enrol SOURCE TARGET, headwater enrol undo TARGET TABLE ID…, or headwater enrol "
    "assign TARGET TABLE --source-key KEY --target-key KEY"
)


def enrol(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE TARGET | undo TARGET TABLE ID… | assign TARGET TABLE",
            help="two databases to match, or what is to be corrected",
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="make the columns and give the ids; without: report")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="a page of Markdown, too")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="at most so many entries in each list")
    ] = LIMIT,
    source_key: Annotated[
        list[str] | None,
        typer.Option("--source-key", help="assign: the source row's primary key, column by column"),
    ] = None,
    target_key: Annotated[
        list[str] | None, typer.Option("--target-key", help="assign: the target row's")
    ] = None,
    mint: Annotated[
        bool, typer.Option("--mint", help="undo: give the rows new ids, instead of none")
    ] = False,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Match the rows of two databases that both exist, and give partners the same id.

    Reports first and writes nothing; --apply adds what is missing to the tables and gives ids to
    rows that have exactly one partner. undo takes an assignment back, assign makes one by hand.
    """
    loaded = begin(config, debug).config
    if what[0] == "undo" and len(what) >= 4:
        target, table, *ids = what[1:]
        _undo(loaded, target, table, ids, mint=mint, json=json)
    elif what[0] == "assign" and len(what) == 3 and source_key and target_key:
        _assign(loaded, what[1], what[2], source_key, target_key, json=json)
    elif len(what) == 2 and what[0] not in ("undo", "assign"):
        _match(loaded, what[0], what[1], apply=apply, report=report, limit=limit, json=json)
    else:
        raise Misconfigured("was not told what to enrol", hint=USAGE)


def _match(
    config: Config,
    source: str,
    target: str,
    *,
    apply: bool,
    report: Path | None,
    limit: int,
    json: bool,
) -> None:
    with show.progress(total=0, shown=not json) as advance:
        found = match(
            config,
            source,
            target,
            apply=apply,
            limit=limit,
            said=lambda what, rows: advance(rows, what),
        )
    if report is not None:
        try:
            report.write_text(page.page(found, limit), encoding="utf-8")
        except OSError as error:
            raise Misconfigured(
                f"cannot write {report}: {error.strerror}", hint="name another file with --report"
            ) from error
    if json:
        show.as_json(asdict(found))
        return
    show.table(page.COLUMNS, map(page.line, found.tables))
    statements = sum(map(len, found.steps.values()))
    if apply:
        print(f"ran {statements} statements; see what is left ambiguous with --report FILE")
    else:
        print(f"nothing was written; --apply runs {statements} statements and gives the ids")


def _undo(
    config: Config, target: str, table: str, ids: list[str], *, mint: bool, json: bool
) -> None:
    with both_sides(config, target) as both:
        twin, children = _twin(config, target, table, both)
        done = assignments.undo(both, twin, ids, mint=mint)
    source = target_config(config, target).source
    if json:
        rows = [{"target_key": key, "sync_id": now} for key, now in done]
        show.as_json({"target": target, "table": table, "undone": rows})
        return
    for (key, now), identity in zip(done, ids, strict=True):
        print(f"{table} {key} of {target} no longer is {identity}" + (f": {now}" if now else ""))
    named = " ".join(f"--id {identity}" for identity in ids)
    print("the source's rows have no partner now; to bring them, and what refers to them:")
    print(f"  headwater snapshot {source} {table} --for {target} {named}")
    if children:
        print(f"  headwater snapshot {source} {' '.join(children)} --for {target}")


def _assign(
    config: Config,
    target: str,
    table: str,
    source_key: list[str],
    target_key: list[str],
    *,
    json: bool,
) -> None:
    with both_sides(config, target) as both:
        twin, _ = _twin(config, target, table, both)
        here, there = keys_of(twin, "source", source_key), keys_of(twin, "target", target_key)
        identity = assignments.resolve(both, twin, here, there)
    if json:
        show.as_json({"target": target, "table": table, "target_key": there, "sync_id": identity})
    else:
        print(f"{table} {there} of {target} is {here} of the source: {identity}")


def _twin(config: Config, target: str, table: str, both: Any) -> tuple[Twin, list[str]]:
    """The table's twin, and the names of the tables that refer to it."""
    made = both_twins(config, target, both)
    twin = next((t for t in made if t.name == table), None)
    if twin is None or not twin.is_ready:
        raise Misconfigured(
            f"found no enrolled table {table} in {target}",
            hint=f"tables: {', '.join(t.name for t in made)}; run first: headwater enrol "
            f"{both.source_name} {target} --apply",
        )
    return twin, [t.name for t in made if any(p.number == twin.number for p in t.parents.values())]
