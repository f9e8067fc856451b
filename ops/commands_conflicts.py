"""Commands about rows that both sides had changed: list, show, replay under another policy."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import typer

from apply.placement import wanted
from apply.recorded import Recorded, outcome
from ops import show
from ops.compose import opened_target, target_config
from ops.options import DEFAULT, ConfigPath, Debug, Json, OfTable, Target, begin
from schemas.conflict import ROW_POLICIES, ConflictRules, decide
from schemas.errors import Misconfigured

app = typer.Typer(
    name="conflicts",
    help="Rows that were changed on both sides, and what was decided.",
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
    """Show every recorded conflict, oldest first; no values."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        found = [c for c in opened.conflicts() if table in (None, c.table_name)]
    if json:
        show.as_json({"conflicts": [_summary(c) for c in found]})
        return
    show.table(
        ("number", "table", "row", "rule", "outcome", "batch", "ordinal", "decided"),
        [
            (c.number, c.table_name, c.row_key, c.rule, c.outcome, c.batch, c.ordinal,
             show.instant(c.decided_at))
            for c in found
        ],
    )  # fmt: skip
    if not found:
        print("no conflicts are recorded")


def _summary(recorded: Recorded) -> dict[str, Any]:
    hidden = ("images", "written")
    found = {k: v for k, v in recorded._asdict().items() if k not in hidden}
    return found | {"row_key": orjson.loads(recorded.row_key)}


@app.command("show")
def show_(
    target: Target,
    number: Annotated[int, typer.Argument(help="the conflict, as `conflicts list` numbers it")],
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one conflict with its values: before, after, mine, and what was written."""
    loaded = begin(config, debug)
    with opened_target(loaded.config, target) as opened:
        found = next((c for c in opened.conflicts() if c.number == number), None)
    if found is None:
        raise Misconfigured(
            f"found no conflict {number}", hint=f"headwater conflicts list {target}"
        )
    images = orjson.loads(found.images)
    written = None if found.written is None else orjson.loads(found.written)
    if json:
        show.as_json(_summary(found) | images | {"written": written})
        return
    print(f"{found.table_name} {found.row_key}: {found.rule} -> {found.outcome}")
    names = list(dict.fromkeys([*(images["after"] or {}), *(images["mine"] or {})]))
    sides = [images[side] or {} for side in ("before", "after", "mine")] + [written or {}]
    show.table(
        ("column", "before", "after", "mine", "written"),
        [(name, *(side.get(name) for side in sides)) for name in names],
    )


@app.command("replay-under")
def replay_under(
    target: Target,
    policy: Annotated[str, typer.Argument(help=", ".join(ROW_POLICIES))],
    by: Annotated[str | None, typer.Option(help="newest_wins: the column")] = None,
    handler: Annotated[str | None, typer.Option(help="handler: module:function")] = None,
    table: OfTable = None,
    config: ConfigPath = DEFAULT,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what another policy would have done with the recorded conflicts; changes no data."""
    loaded = begin(config, debug)
    if policy not in ROW_POLICIES or (policy == "newest_wins") != (by is not None):
        raise Misconfigured(
            f"cannot replay under {policy}",
            hint="policies: " + ", ".join(ROW_POLICIES) + "; --by goes with newest_wins",
        )
    rules = ConflictRules(policy=policy, by=by, handler=handler)  # type: ignore[arg-type]
    placement = target_config(loaded.config, target).placement
    with opened_target(loaded.config, target) as opened:
        recorded = [c for c in opened.conflicts() if table in (None, c.table_name)]
        tables = {t.full_name: t for t in opened.tables()}
    found = []
    for one in recorded:
        kinds = {c.name: c.kind for c in wanted(tables[one.table_name], placement)}
        if by is not None and by not in kinds:
            raise Misconfigured(
                f"found no column {by} in {one.table_name}", hint="name it, or say --table"
            )
        found.append(outcome(one.conflict, decide(one.conflict, rules, kinds)))
    _print_replay(recorded, found, json=json)


def _print_replay(recorded: Sequence[Recorded], found: Sequence[str], *, json: bool) -> None:
    pairs = [(one, new) for one, new in zip(recorded, found, strict=True) if one.outcome != new]
    if json:
        changed = [_summary(one) | {"would_be": new} for one, new in pairs]
        show.as_json({"outcomes": Counter(found), "changed": changed})
        return
    show.table(
        ("outcome", "was", "would be"),
        [
            (name, sum(c.outcome == name for c in recorded), found.count(name))
            for name in sorted({*found, *(c.outcome for c in recorded)})
        ],
    )
    show.table(
        ("number", "table", "row", "was", "would be"),
        [(one.number, one.table_name, one.row_key, one.outcome, new) for one, new in pairs],
    )
    print(f"{len(pairs)} of {len(recorded)} conflicts would have ended otherwise")
