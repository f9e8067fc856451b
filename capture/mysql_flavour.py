"""What each kind of MySQL or MariaDB server's log has in common: groups of events, and places
between them.

One flavour per server: it knows how to ask for the log's end, whether a position can be continued
from, how to request a dump there, and how groups of events advance it. A position moves only at the
end of a group, so that a GTID set has no holes but the server's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from capture.binlog import Event
from schemas.change import Position
from schemas.finding import Finding


class Group(NamedTuple):
    """The begin of one group of events. gtid: its name ("" without GTIDs); committed_at: µs."""

    gtid: str
    committed_at: int
    is_standalone: bool


class Tracker(ABC):
    """A place in the log that events advance."""

    file = ""
    _pos = 0

    @abstractmethod
    def begin(self, event: Event) -> Group:
        """A group of events begins."""

    def end(self, event: Event) -> None:
        """The group is whole: its last event."""
        self._pos = event.end_pos

    @property
    @abstractmethod
    def position(self) -> Position:
        """After the last whole group."""

    @property
    def mark(self) -> str:
        """What a read must have seen to include the last whole group."""
        return str(self.position)


class Flavour(ABC):
    """How one kind of server names places in its log."""

    family: str

    @abstractmethod
    def now(self, cursor: Any) -> Position:
        """The log's end."""

    def noted(self, cursor: Any) -> Position:
        """A place of about now: whoever reads from now on sees every commit up to it."""
        return self.now(cursor)

    def cautions(self) -> Iterator[Finding]:
        """What a person should know who takes a dump after `noted`."""
        yield from ()

    @abstractmethod
    def given(self, cursor: Any, text: str) -> Position:
        """The place that a person names, as this server's positions are written; raises as
        `verify` does, and Misconfigured for a text that is none.
        """

    @abstractmethod
    def verify(self, cursor: Any, after: Position) -> None:
        """Raise SourceLost or Misconfigured unless the log can be continued exactly there."""

    @abstractmethod
    def request(self, after: Position) -> dict[str, Any]:
        """Arguments of python-mysql-replication for a dump from there."""

    @abstractmethod
    def tracker(self, after: Position) -> Tracker:
        """A place to advance from."""

    @abstractmethod
    def sees(self, seen: str, marks: Sequence[str]) -> bool:
        """Whether a read that saw `seen` includes what has these marks."""

    @abstractmethod
    def reached(self, high: Position, position: Position) -> bool:
        """Whether `position` is at or past `high`."""

    def shown(self, cursor: Any, position: Position) -> Callable[[Any], bool]:
        """Asks a cursor whether reads see all up to `position`; without GTIDs nothing tells."""
        return lambda cursor: True
