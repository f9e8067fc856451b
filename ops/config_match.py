"""The part of the configuration that says by what two databases' rows are matched."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ops.enrol import rules

Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""TOML has arrays, which strict models would not take for tuples."""


class MatchConfig(BaseModel):
    """By what rows of one table are matched where both databases have them already."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keys: Annotated[tuple[Texts, ...], Field(strict=False)] = Field(
        min_length=1,
        description="lists of columns, tried in order: rows are the same where all columns of a "
        "list are, on one row of each side; references are compared by their parents' matches",
    )
    normalise: Mapping[str, Texts] = Field(
        default_factory=dict,
        description="steps by column, before values are compared: "
        + ", ".join(f'"{name}"' for name in rules.STEPS)
        + ', "date:%d.%m.%Y"',
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if not all(self.keys):
            raise ValueError("has a key without columns")
        named = {column for key in self.keys for column in key}
        for column, steps in self.normalise.items():
            if column not in named:
                raise ValueError(f"normalises {column}, which no key names")
            for name in steps:
                rules.step(name)
        return self
