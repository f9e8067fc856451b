"""First matching, from both databases to a report, and on request to the ids.

Order: tables parents first; of each, with --apply, columns on both sides, then both sides read, the
matching, the ids. Invariant: without --apply nothing is written anywhere but into a temporary
folder of this machine.
"""

import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from apply.opened import opened
from ops.compose import opened_source, source_config, target_config
from ops.config import Config
from ops.config_identity import DerivedConfig
from ops.enrol import columns, likely, paired
from ops.enrol.assign import Both, assign, undone
from ops.enrol.findings import Found, found
from ops.enrol.rules import step
from ops.enrol.scratch import Scratch
from ops.enrol.side import Side, entries
from ops.enrol.twin import Likely, Match, Twin, twins
from schemas.errors import Misconfigured
from schemas.table import Table

LIMIT = 100
Said = Callable[[str, int], None]
"""What is being done, and how many rows of it are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found and did. steps: statements, by side, that were run, or would be."""

    source: str
    target: str
    applied: bool
    steps: dict[str, list[str]] = field(default_factory=dict)
    tables: list[Found] = field(default_factory=list)


def _silent(what: str, rows: int) -> None:
    """Nobody watches."""


def enrol(
    config: Config,
    source: str,
    target: str,
    *,
    apply: bool = False,
    limit: int = LIMIT,
    said: Said = _silent,
) -> Report:
    """Match the rows of a source and of a target that both exist, and report; `apply`: give ids.

    Raises Misconfigured, SchemaConflict or Unsupported before anything is written.
    """
    if target_config(config, target).source != source:
        raise Misconfigured(
            f"found that {target} is no target of {source}", hint="see: headwater config"
        )
    report = Report(source=source, target=target, applied=apply)
    with both_sides(config, target) as both:
        made = both_twins(config, target, both)
        if any(rule.likely for twin in made for rule in twin.rules):
            likely.methods()
        _columns(both, made, report, apply, said)
        if apply:
            columns.make_records(both.target)
            made = both_twins(config, target, both)
        with tempfile.TemporaryDirectory(prefix="headwater-enrol-") as folder:
            scratch = Scratch(Path(folder), made)
            try:
                unreadable, written = {}, {}
                for twin in made:
                    unreadable[twin.number] = _read(both, twin, scratch, said)
                    if twin.target is None:
                        continue
                    said(f"matches {twin.name}", 0)
                    scratch.match(twin)
                    scratch.undone(twin, undone(both, twin))
                    if apply:
                        what = f"gives ids to {twin.name}"
                        done = assign(both, twin, scratch, partial(said, what))
                        written[twin.number] = done.assigned
                for twin in made:
                    assigned = written.get(twin.number, 0)
                    counts = unreadable[twin.number]
                    report.tables.append(
                        found(scratch, twin, assigned=assigned, unreadable=counts, limit=limit)
                    )
            finally:
                scratch.close()
    return report


@contextmanager
def both_sides(config: Config, target: str) -> Iterator[Both]:
    """Both databases of a target, closed at the end."""
    settings = target_config(config, target)
    origin = source_config(config, settings.source)
    here = Side("source", settings.source, opened(origin.url, origin.family))
    there = Side("target", target, opened(settings.url, settings.family))
    try:
        yield Both(source=here, target=there, source_name=settings.source)
    finally:
        here.server.engine.dispose()
        there.server.engine.dispose()


def both_twins(config: Config, target: str, both: Both) -> list[Twin]:
    """The tables of both sides as they are now, parents first."""
    settings = target_config(config, target)
    origin = source_config(config, settings.source)
    tables = described(config, settings.source)
    there = both.target.places(tables, settings.placement)
    here = {t.full_name: (t.schema, t.name) for t in tables}
    sources = {n: t for n, t in both.source.reflected(here).items() if t is not None}
    matches = {
        name: Match(
            keys=match.keys,
            steps={column: [step(s) for s in names] for column, names in match.normalise.items()},
            likely=None if match.likely is None else Likely(**match.likely.model_dump()),
        )
        for name, match in settings.match.items()
    }
    made = twins(
        tables,
        origin.selection,
        settings.placement,
        matches,
        sources,
        both.target.reflected(there),
        settings.source,
        has_pairs=paired.has_pairs(both.target),
    )
    paired.refuse_unfit(both.target, made, settings.placement)
    return made


def described(config: Config, source: str) -> list[Table]:
    """The captured tables, also those that have no id yet: each by its primary key, or with the
    identity that is derived.
    """
    settings = source_config(config, source)
    identity = {
        pattern: what if isinstance(what, DerivedConfig) else "primary_key"
        for pattern, what in [*settings.identity.items(), ("*", "primary_key")]
    }
    settings = settings.model_copy(update={"identity": identity})
    anyhow = config.model_copy(update={"sources": {**config.sources, source: settings}})
    with opened_source(anyhow, source) as opened_:
        return list(opened_.describe())


def _columns(both: Both, made: list[Twin], report: Report, apply: bool, said: Said) -> None:
    """Columns, indexes, defaults and ids, on the source first: the target's follow its types."""
    steps_by_side = (both.source, columns.source_steps), (both.target, columns.target_steps)
    for side, steps_of in steps_by_side:
        listed = report.steps.setdefault(side.role, [])
        for twin in made:
            if twin.paired is not None or (side.role == "target" and twin.target is None):
                continue
            steps = steps_of(side, twin)
            listed += [s.sql.replace("%%", "%") for s in steps]
            if apply:
                columns.run(side, twin, steps, lambda sql: said(sql, 0))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Blocks of rows are many objects and hold no cycles: to look for some took 37% of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(both: Both, twin: Twin, scratch: Scratch, said: Said) -> dict[str, Counter[str]]:
    """Both sides' rows into the working file; values that no step could read, by side and
    column.
    """
    unreadable = {}
    for side in (both.source, both.target) if twin.target is not None else ():
        counts = unreadable[side.role] = Counter[str]()
        rows = 0
        with _uncollected():
            for block in side.blocks(twin):
                scratch.add(twin, side.role, entries(twin, block, counts))
                rows += len(block.keys)
                said(f"reads {twin.name} of {side.name}", rows)
    return unreadable
