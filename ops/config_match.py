"""The part of the configuration that says by what two databases' rows are matched."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ops.enrol import rules

Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""TOML has arrays, which strict models would not take for tuples."""


class LikelyConfig(BaseModel):
    """How rows are compared that no key decides; needs the extra `headwater[linking]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    block: Texts = Field(
        min_length=1,
        description="columns that have to be equal, after their steps: only such rows are compared",
    )
    compare: Mapping[str, Literal["exact", "jaro_winkler", "levenshtein"]] = Field(
        min_length=1,
        description='column = by what its texts are compared: "jaro_winkler" (names), '
        '"levenshtein" (numbers of edits) or "exact"',
    )
    at_least: float = Field(
        0.95,
        ge=0.5,
        le=1,
        description="two rows are partners from this probability on",
    )
    margin: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="by how much any other pair of the two rows has to be less probable; else both "
        "are ambiguous",
    )


class MatchConfig(BaseModel):
    """By what rows of one table are matched where both databases have them already."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keys: Annotated[tuple[Texts, ...], Field(strict=False)] = Field(
        (),
        description="lists of columns, tried in order: rows are the same where all columns of a "
        "list are, on one row of each side; references are compared by their parents' matches",
    )
    normalise: Mapping[str, Texts] = Field(
        default_factory=dict,
        description="steps by column, before values are compared: "
        + ", ".join(f'"{name}"' for name in rules.STEPS)
        + ', "date:%d.%m.%Y"',
    )
    likely: LikelyConfig | None = Field(
        None,
        description="after all keys, rows are matched that are probably the same: `block`, "
        "`compare`, `at_least`, `margin`",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if not self.keys and self.likely is None:
            raise ValueError("has neither keys nor likely")
        if not all(self.keys):
            raise ValueError("has a key without columns")
        named = {column for key in self.keys for column in key}
        if self.likely is not None:
            named |= {*self.likely.block, *self.likely.compare}
        for column, steps in self.normalise.items():
            if column not in named:
                raise ValueError(f"normalises {column}, which no key names")
            for name in steps:
                rules.step(name)
        return self
