"""Sets up sources and targets, in the order in which each can be checked against the one before."""

from ops.compose import opened_source, opened_target
from ops.config import Config
from schemas.table import Table


def prepare_all(
    config: Config, sources: list[str], targets: list[str], *, dry_run: bool = False
) -> dict[str, list[str]]:
    """Prepare these sources, then these targets for their source's tables; the statements, by name.

    A target whose source is not configured here gets its own tables now, and the source's as their
    first rows arrive.
    """
    done: dict[str, list[str]] = {}
    tables: dict[str, list[Table]] = {}
    for name in sources:
        with opened_source(config, name) as source:
            done[name] = source.prepare(dry_run=dry_run)
            tables[name] = list(source.describe())
    for name in targets:
        its_source = config.targets[name].source
        if its_source not in tables and its_source in config.sources:
            with opened_source(config, its_source) as source:
                tables[its_source] = list(source.describe())
        with opened_target(config, name) as target:
            done[name] = target.prepare(tables.get(its_source, []), dry_run=dry_run)
    return done
