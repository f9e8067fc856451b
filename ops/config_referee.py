"""The part of the configuration that says where a target's rows are mapped together with those of
other environments.
"""

from collections.abc import Collection, Mapping
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from apply.target import SharedAt
from ops.database_urls import TARGET_FAMILIES, Place, family_of, place_of


class RefereeConfig(BaseModel):
    """A referee in a third database, shared by several environments."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: str = Field(
        description="a third database, in which environments map their rows: "
        "`(environment, table, key) <-> sync_id`; a password belongs in the environment: `${NAME}`"
    )
    environment: str = Field(
        min_length=1,
        max_length=64,
        description="what that referee calls this target's database: a name of its own there",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        family_of(self.url, TARGET_FAMILIES)
        return self

    @property
    def at(self) -> SharedAt:
        """The same, for the target."""
        return SharedAt(self.url, family_of(self.url, TARGET_FAMILIES), self.environment)


class Refereed(Protocol):
    """A target, as far as it is looked at here."""

    @property
    def url(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, str]: ...
    @property
    def referee(self) -> RefereeConfig | None: ...


def refuse_unfit(targets: Mapping[str, Refereed], sources: Collection[str]) -> None:
    """A shared referee knows databases by their environments' names, and sources by their
    sections'. Raises ValueError.
    """
    names: dict[tuple[Place, str], str] = {}
    for name, target in targets.items():
        referee = target.referee
        if referee is None:
            continue
        if not target.identity:
            raise ValueError(f'targets.{name}.referee is of no use without identity = "referee"')
        if place_of(referee.url) == place_of(target.url):
            raise ValueError(
                f"targets.{name}.referee.url is the target itself: leave it out, the pairs are "
                "there in any case"
            )
        if referee.environment in sources:
            raise ValueError(f"targets.{name}.referee.environment is the name of a source")
        other = names.setdefault((place_of(referee.url), referee.environment), name)
        if other != name:
            raise ValueError(
                f"targets.{other} and targets.{name} are one environment of one shared referee: "
                "give each its own"
            )
