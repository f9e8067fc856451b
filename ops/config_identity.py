"""What the configuration says of a source's identities (docs/identity.md)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.selection import Derived

NaturalKey = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class DerivedConfig(BaseModel):
    """An identity that the source does not hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    derived: str | NaturalKey = Field(
        description='of what the identity is computed: "primary_key", a column, or several'
    )


Identity = str | NaturalKey | DerivedConfig


def as_selected(identity: Mapping[str, Identity]) -> dict[str, str | Sequence[str] | Derived]:
    """The same for Selection."""
    return {
        pattern: Derived(what.derived) if isinstance(what, DerivedConfig) else what
        for pattern, what in identity.items()
    }
