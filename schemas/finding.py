"""What preflight says about a database: one finding per problem, each with what to run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`where` is a setting, table or column; `refused`: starting would lose data (otherwise it is a
    warning).
    """

    where: str
    problem: str
    fix: str
    refused: bool = True
