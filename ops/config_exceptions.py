"""How one table of a target differs from its source, as the configuration says it."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from apply.exceptions import OnLeave, TableExceptions
from schemas.compare import Unfit
from schemas.expression import parse


class ExceptionsConfig(BaseModel):
    """One table's exceptions at one target."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    where: str | None = Field(
        default=None,
        description="a condition over the source's columns: only rows that meet it are here",
    )
    on_leave: OnLeave = Field(
        default="delete",
        description='what becomes of a row that no longer meets it: "delete"; "keep" as it is; '
        '"mark": the column `mark` is true from then on',
    )
    mark: str | None = Field(
        default=None, description='the column for on_leave = "mark", false in all other rows'
    )
    rename: Mapping[str, str] = Field(
        default_factory=dict, description="column of the source = what it is called here"
    )
    set: Mapping[str, str] = Field(
        default_factory=dict,
        description="column here = an expression over the source's columns: a constant, a copy, "
        "lower, upper, trim, concat, coalesce",
    )
    own: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(),
        description="columns that are this target's own: written when a row is inserted, then "
        "never again, and never compared",
    )
    ancestors: bool = Field(
        default=False,
        description="rows that this table's rows reference are here too, and those that they "
        "reference, whatever the conditions of those tables say",
    )

    @property
    def exceptions(self) -> TableExceptions:
        """What apply takes."""
        return TableExceptions(
            where=self.where,
            on_leave=self.on_leave,
            mark=self.mark,
            rename=self.rename,
            set=self.set,
            own=self.own,
            ancestors=self.ancestors,
        )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        texts = {f"set.{name}": text for name, text in self.set.items()}
        if self.where is not None:
            texts["where"] = self.where
        for key, text in texts.items():
            try:
                parse(text)
            except Unfit as error:
                raise ValueError(f"{key} {error}") from error
        return self

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if self.where is None and "on_leave" in self.model_fields_set:
            raise ValueError("on_leave has no effect without where")
        if (self.mark is not None) != (self.on_leave == "mark"):
            raise ValueError('on_leave = "mark" and mark = "a column" go together')
        both = sorted({*self.rename, *self.rename.values()} & self.set.keys())
        if both:
            raise ValueError(f"{both[0]} is in rename and in set")
        if self.mark is not None and self.mark in {*self.set, *self.rename.values()}:
            raise ValueError(f"mark {self.mark} is in rename or in set, too")
        return self
