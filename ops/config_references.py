"""What a column refers to where the source has no foreign key, as the configuration says it."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from apply.declared import ByType, Declaration, InDocument
from apply.documents import steps


class ReferenceConfig(BaseModel):
    """One column's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    to: str | Mapping[str, str] | None = Field(
        default=None,
        description='the "schema.table.column" that it refers to; with `by`: one for each value of '
        "that column",
    )
    by: str | None = Field(
        default=None, description="the column beside it that says which table a row refers to"
    )
    at: Mapping[str, str] = Field(
        default_factory=dict,
        description="of JSON documents: a path (`$.customer_id`, `$.items[*].product_id`) = the "
        '"schema.table.column" whose keys stand there',
    )

    @property
    def declaration(self) -> Declaration:
        """What apply takes."""
        if isinstance(self.to, str):
            return self.to
        if self.to is not None:
            return ByType(by=str(self.by), to=self.to)
        return InDocument(at=self.at)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"to": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if (self.to is None) == (not self.at):
            raise ValueError("says either `to` or `at`")
        if (self.by is not None) != isinstance(self.to, Mapping):
            raise ValueError(
                'by = "a column" and to = { "its value" = "schema.table.column" } go together'
            )
        for path in self.at:
            steps(path)
        named = [self.to] if isinstance(self.to, str) else [*(self.to or self.at).values()]
        for name in named:
            if name.count(".") < 2:
                raise ValueError(f'"{name}" is not like "schema.table.column"')
        return self
