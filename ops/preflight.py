"""Checks before anything is touched: every finding of every database at once.

Invariant: nothing is written here; what is refused ends the start as one error that lists all.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from ops import retention
from ops.compose import opened_source, opened_target, source_config, target_config
from ops.config import Config
from schemas.errors import HeadwaterError, Misconfigured, Operator, SchemaConflict
from schemas.finding import Finding
from schemas.table import Table


def check_source(config: Config, name: str) -> tuple[list[Finding], list[Table]]:
    """What the source says against being captured, and its tables (none if that failed)."""
    with opened_source(config, name) as source:
        findings = source.check()
        try:
            tables = list(source.describe())
            return findings + _idle_patterns(config.sources[name].include, tables), tables
        except Operator as error:
            # Most sources' own checks say the same in more detail.
            return findings or [_finding(name, error)], []


def check_target(config: Config, name: str, tables: Sequence[Table]) -> list[Finding]:
    """What the target says against receiving these tables."""
    with opened_target(config, name) as target:
        try:
            return target.check(tables)
        except SchemaConflict as error:
            return [_finding(name, error)]


def check_all(
    config: Config, sources: Iterable[str], targets: Iterable[str]
) -> dict[str, list[Finding]]:
    """Findings by name; a target is checked for its source's tables where it is configured."""
    findings: dict[str, list[Finding]] = {}
    tables: dict[str, list[Table]] = {}
    for name in sources:
        source_config(config, name)
        findings[name], tables[name] = check_source(config, name)
    for name in targets:
        its_source = target_config(config, name).source
        if its_source not in tables and its_source in config.sources:
            _, tables[its_source] = check_source(config, its_source)
        findings[name] = check_target(config, name, tables.get(its_source, []))
    for name, found in retention.findings(config, list(sources), list(targets)).items():
        known = {f.where for f in findings[name]}
        findings[name] += [f for f in found if f.where not in known]
    return findings


def refuse(findings: Mapping[str, Sequence[Finding]]) -> None:
    """Raise one Misconfigured that lists every refused finding; warnings pass."""
    refused = [(name, f) for name, found in findings.items() for f in found if f.refused]
    if not refused:
        return
    listed = "; ".join(f"{name}: {f.where} {f.problem}" for name, f in refused)
    fixes = "; ".join(dict.fromkeys(f.fix for _, f in refused))
    raise Misconfigured(f"refused to start: {listed}", hint=fixes)


def _idle_patterns(include: Sequence[str], tables: Sequence[Table]) -> list[Finding]:
    """A warning for each pattern by which no table is captured: often a misspelt name."""
    names = [t.full_name for t in tables]
    return [
        Finding(
            where=f'include "{pattern}"',
            problem="matches no table that is captured",
            fix="write it as schema.table (MySQL: database.table), or make the table",
            refused=False,
        )
        for pattern in include
        if not any(fnmatchcase(n, pattern) for n in names)
    ]


def _finding(name: str, error: HeadwaterError) -> Finding:
    return Finding(where=name, problem=str(error), fix=error.hint)
