"""What preflight says about a database: one finding per problem, each with what to run."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import SchemaConflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`where` is a setting, table or column; `refused`: starting would lose data (otherwise it is a
    warning).
    """

    where: str
    problem: str
    fix: str
    refused: bool = True


def refusal(target: str, refused: Sequence[Finding]) -> SchemaConflict:
    """One error for all that prepare refuses."""
    lines = "; ".join(f"{f.where} {f.problem}" for f in refused)
    fixes = "; ".join(dict.fromkeys(f.fix for f in refused))
    return SchemaConflict(f"cannot prepare target {target}: {lines}", hint=fixes)
