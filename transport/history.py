"""What a log still holds, told from its commit records alone: from which batch on each table's rows
are all there.

A table is whole from a batch at which a copy of all its rows begins, if everything since is held:
rows from before, which the copy has read, need no older record. Pure; the logs walk through it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas.change import Offset, Progress
from schemas.progress import asked_copies, first_copies
from transport.record import Record


@dataclass(slots=True)
class _Copy:
    """A copy of a table's rows that begins with a batch."""

    batch: int
    of: "_Of"
    is_done: bool = False


class _Of(NamedTuple):
    """A table, and the request that asked for its copy; None: its first copy."""

    table: str
    number: str | None


@dataclass(slots=True)
class History:
    """Accepted records of a log, from the oldest that can be read to `record`, the newest taken.

    target: for whom. begin: the place before the oldest. truncates: (table, batch, ordinal).
    compacted: full names of tables of which the log keeps only each key's newest row.
    """

    target: str
    begin: Offset | None = None
    compacted: frozenset[str] = frozenset()
    record: Record | None = None
    end: Offset | None = None
    truncates: list[tuple[str, int, int]] = field(default_factory=list)
    _rows: int = 0
    _places: dict[int, tuple[Offset, int]] = field(default_factory=dict)
    _copies: dict[str, list[_Copy]] = field(default_factory=dict)
    _states: dict[_Of, dict[str, Any]] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)

    def take(self, record: Record, offset: Offset, lost: Iterable[str] = ()) -> None:
        """The next accepted record, and the place after it; lost: tables of which it lacks rows."""
        self._lost |= dict.fromkeys(lost, record.batch)
        place = self.end or self.begin
        states = dict(_whole(record.progress, self.target))
        for of, state in states.items():
            copies = self._copies.setdefault(of.table, [])
            if self._begins(of, state, record) and place is not None:
                copies.append(_Copy(record.batch, of))
                self._places[record.batch] = place, self._rows
            if state["done"]:
                for copy in [c for c in copies if c.of == of][-1:]:
                    copy.is_done = True
        self._states = states
        self.truncates += [(t.table, record.batch, t.ordinal) for t in record.truncates]
        self._rows += record.row_count
        self.record, self.end = record, offset

    def _begins(self, of: "_Of", state: dict[str, Any], record: Record) -> bool:
        """Whether the copy begins with this record: nothing of it stands in an older one."""
        before = self._states.get(of)
        if self.record is None:
            return record.batch == 1 or (not state["done"] and _is_unread(state))
        if before is None:
            return True
        if state.get("turn", 0) != before.get("turn", 0):
            return True
        if state["done"]:
            return False
        return before["done"] or (_is_unread(state) and not _is_unread(before))

    def starts(self, table: str) -> list[int]:
        """The batches from which on the log has every row of the table, ascending. Copies that are
        not done by now count only where no other is: they go on later.
        """
        held = [c for c in self._copies.get(table, []) if c.batch > self._lost.get(table, 0)]
        return [c.batch for c in held if c.is_done] or [c.batch for c in held[-1:]]

    def place(self, batch: int) -> Offset:
        """The place just before a batch that `starts` named."""
        return self._places[batch][0]

    def rows_from(self, batch: int) -> int:
        """How many rows come from a batch that `starts` named on."""
        return self._rows - self._places[batch][1]


def _whole(progress: Progress, target: str) -> Iterator[tuple[_Of, dict[str, Any]]]:
    """The copies of whole tables that this target reads, and their states."""
    for name, state in first_copies(progress):
        if state["what"] == "rows":
            yield _Of(name, None), state
    for number, copy in asked_copies(progress).items():
        if (
            copy.get("check")
            or copy["for"] not in (None, target)
            or copy["state"] not in ("copying", "done")
        ):
            continue
        for name, state in copy["tables"].items():
            if "keys" not in state and state.get("until") is None and name not in copy["from"]:
                yield _Of(name, number), state


def _is_unread(state: Mapping[str, Any]) -> bool:
    """Whether no range of a copy was placed in the log."""
    return state["after"] is None and all(after is None for after, _ in state.get("open", ()))
