"""Sets up sources and targets: on request, and at a start that has nothing to lose yet.

Invariant: a source whose log holds something is never set up again behind the operator's back: a
slot made anew would hide that changes are missing.
"""

from collections.abc import Mapping, Sequence

from ops import journal
from ops.compose import opened_log, opened_source, opened_target, target_config
from ops.config import Config
from ops.preflight import check_source, check_target, refuse
from schemas.finding import Finding
from schemas.table import Table

PREPARE = "headwater prepare"
"""The fix of findings that `Source.prepare` mends."""


def prepare_all(
    config: Config, sources: Sequence[str], targets: Sequence[str], *, dry_run: bool = False
) -> dict[str, list[str]]:
    """Prepare these sources, then these targets for their source's tables; the statements, by name.

    A target whose source is not configured here gets its own tables now, and the source's as their
    first rows arrive.
    """
    done: dict[str, list[str]] = {}
    tables: dict[str, Sequence[Table]] = {}
    for name in sources:
        with opened_source(config, name) as source:
            done[name] = source.prepare(dry_run=dry_run)
            tables[name] = source.describe()
    for name in targets:
        its_source = target_config(config, name).source
        if its_source not in tables and its_source in config.sources:
            with opened_source(config, its_source) as source:
                tables[its_source] = source.describe()
        with opened_target(config, name) as target:
            done[name] = target.prepare(tables.get(its_source, ()), dry_run=dry_run)
    return done


def make_ready(
    config: Config, sources: Sequence[str], targets: Sequence[str]
) -> Mapping[str, Sequence[Table]]:
    """Check everything, then set up what may be; the sources' tables by source name.

    Raises Misconfigured with all refusals before anything is changed anywhere; warnings are said.
    """
    findings: dict[str, list[Finding]] = {}
    tables: dict[str, list[Table]] = {}
    fresh = []
    for name in sources:
        found, tables[name] = check_source(config, name)
        with opened_log(config, name) as log:
            if log.span() is None:
                fresh.append(name)
                found = [f for f in found if f.fix != PREPARE]
            else:
                # The stream's own start says this better: it knows where the log ends.
                found = [f for f in found if not f.where.startswith("slot ")]
        findings[name] = found
    for name in targets:
        its_source = target_config(config, name).source
        findings[name] = check_target(config, name, tables.get(its_source, []))
    refuse(findings)
    for name, found in findings.items():
        for finding in found:
            journal.get().warning(
                "preflight",
                name=name,
                where=finding.where,
                problem=finding.problem,
                fix=finding.fix,
            )
    prepare_all(config, fresh, ())
    for name in targets:
        with opened_target(config, name) as target:
            target.prepare(tables.get(target_config(config, name).source, ()))
    return tables
