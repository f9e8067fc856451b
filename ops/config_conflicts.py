"""The part of the configuration that says what happens to rows which both sides changed."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.conflict import ColumnPolicy, ConflictRules, RowPolicy


class ConflictConfig(BaseModel):
    """One table's policies, or a pattern's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    policy: RowPolicy = Field(
        default="source_wins",
        description='of the row: "source_wins", "target_wins", "newest_wins" (by `by`), '
        '"merge_columns" (each side\'s changed columns; both changed: the source\'s), "park", '
        '"handler"',
    )
    by: str | None = Field(
        default=None, description="newest_wins: the column whose greater value is newer"
    )
    handler: str | None = Field(
        default=None,
        description='handler: "module:function", given before, after and mine as the wire has '
        "them (None: no row); gives the columns to write, or None: the target keeps its row",
    )
    columns: Mapping[str, ColumnPolicy] = Field(
        default_factory=dict,
        description='columns with a policy of their own: "source_wins", "target_wins", "max", '
        '"min", "additive"',
    )

    same_by: Sequence[str] = Field(
        default=(),
        description="a unique key of the target: where a row that comes has the values of another "
        "row there, the two are one, and the policies decide its columns; without it, or where the "
        "policy is to park, the row that comes is parked",
    )

    @property
    def rules(self) -> ConflictRules:
        """The same for apply/."""
        return ConflictRules(
            policy=self.policy,
            by=self.by,
            handler=self.handler,
            columns=dict(self.columns),
            same_by=tuple(self.same_by),
        )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for policy, key, value in (
            ("newest_wins", "by", self.by),
            ("handler", "handler", self.handler),
        ):
            if (self.policy == policy) != (value is not None):
                raise ValueError(f'policy = "{policy}" and {key} go together')
        return self
