"""Where a source that is polled stands: when it was polled last, and each table's last version.

A position is the JSON text of that. `at` orders positions; `of` says where the next poll goes on,
less the window in which commits may become visible late.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson

from schemas.change import Position
from schemas.errors import Misconfigured, Operator
from schemas.kinds import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """at: the server's clock when the last poll began (microseconds since 1970 UTC). of: by full
    name, the greatest version that was read, as the server prints it; None: there was no row.
    """

    at: int
    of: dict[str, str | None] = field(default_factory=dict)

    def dumps(self) -> Position:
        """The position."""
        return Position(orjson.dumps({"at": self.at, "of": self.of}).decode())

    @classmethod
    def loads(cls, position: Position) -> "Place":
        """The inverse; raises Misconfigured for a text that is none."""
        try:
            found = orjson.loads(position)
            at, of = int(found["at"]), dict(found["of"])
        except (ValueError, TypeError, KeyError) as error:
            raise Misconfigured(
                "cannot read the position of a source that is polled",
                hint="headwater position prints one; a source whose kind was changed starts over: "
                "headwater drop SOURCE --log --yes",
            ) from error
        return cls(at=at, of=of)


def before(kind: Kind, value: str, *, window: float, clock: int, where: str) -> str:
    """The version from which on rows are read again, exclusive.

    window: seconds, or numbers where versions are numbers. clock: a version from the future is
    taken for one of now, or everything up to it would be passed over. Raises Operator for a version
    that is no instant.
    """
    if kind.name == "int":
        return str(int(value) - max(1, int(window)))
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise Operator(
            f"found a version in {where} that is no instant",
            hint="give every row a version of between the years 1 and 9999",
        ) from error
    now = datetime.fromtimestamp(clock / 1e6, UTC).replace(tzinfo=None)
    earliest = min(found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found, now)
    return (earliest - timedelta(seconds=max(window, 1))).isoformat(sep=" ")
