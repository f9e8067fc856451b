"""One table's copy: which ranges of it are still to be read, and what the log needs to know of it.

The table is cut at keys that an index-only look ahead finds (`Source.boundary`), so that several
readers share one table whatever its key's type, and no split has to be guessed. Invariant: what is
neither in `open` nor beyond `after` of the state in the log has been placed there.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from capture.source import Chunk
from schemas.table import Table

CHUNK_S = 1.0
"""A chunk that took longer to read is made smaller: its transaction must stay short."""
FEWEST_ROWS, FIRST_ROWS = 100, 1_000

Find = Callable[[Table, Any, int, Any], "Future[Any]"]
"""Begins to look for the key of the n-th row: table, after, n, until."""


class Range(NamedTuple):
    """The rows after one key up to another; None: the table's start, or its end."""

    after: Any
    until: Any


def beside(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a table's state holds beside its copy's."""
    return {name: state[name] for name in ("what", "oid") if name in state}


def begun(
    *,
    after: Any = None,
    until: Any = None,
    keys: Sequence[str] | None = None,
    of: int | None = None,
) -> dict[str, Any]:
    """The state of a copy of which nothing was read; of: about how many rows it will have."""
    state: dict[str, Any] = {"after": after, "done": False, "rows": 0}
    if keys is not None:
        return {**state, "keys": list(keys), "of": len(keys)}
    bound = {} if until is None else {"until": until}
    return {**state, **bound, "open": [], "ended": False, "of": of}


def ended(state: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The state of a copy that is done: no more than is asked for later, as every commit record
    holds it.
    """
    kept = {name: state[name] for name in ("until", "turn") if name in state}
    listed: dict[str, Any] = {"keys": []} if "keys" in state else {}
    return {**kept, **listed, "after": None, "rows": rows, "done": True}


@dataclass(slots=True, eq=False)
class Copy:
    """What is left of a table's copy. number, target, check: of the request, where it was asked
    for.

    rows: about so many are read at once; at most `most_rows`, or `most_bytes`.
    """

    table: Table
    state: dict[str, Any]
    number: str | None
    target: str | None
    most_rows: int
    most_bytes: int
    check: bool = False
    rows: int = 0
    rereads: int = 0
    read: list[Range] = field(default_factory=list)
    left: deque[Range] = field(default_factory=deque)
    scout: "Future[Any] | None" = None
    _frontier: Any = None
    _ended: bool = False

    def __post_init__(self) -> None:
        self.rows = self.rows or min(self.most_rows, FIRST_ROWS)
        self.left = deque(Range(*found) for found in self.state.get("open", ()))
        self._frontier, self._ended = self.state["after"], self.state.get("ended", False)
        if self.keys is not None:
            self.left, self._ended = deque([Range(None, None)]), True

    @property
    def keys(self) -> list[bytes] | None:
        """The identities of the rows to copy, where they are listed."""
        listed = self.state.get("keys")
        return None if listed is None else [key.encode() for key in listed]

    @property
    def is_done(self) -> bool:
        """Whether every range was placed."""
        return self._ended and not self.left and not self.read

    def next(self, find: Find) -> Range | None:
        """Hand out a range to read; None while none is left, or where it ends is not found yet."""
        found = self.left.popleft() if self.left else self._beyond(find)
        if found is not None:
            self.read.append(found)
        return found

    def _beyond(self, find: Find) -> Range | None:
        if self._ended:
            return None
        until = self.state.get("until")
        if self.scout is None:
            self.scout = find(self.table, self._frontier, self.rows, until)
        if not self.scout.done():
            return None
        border, self.scout = self.scout.result(), None
        if border is None:
            self._ended = True
            return Range(self._frontier, until)
        found = Range(self._frontier, border)
        self._frontier = border
        self.scout = find(self.table, border, self.rows, until)
        return found

    def again(self, of: Range) -> None:
        """Take back a range that could not be used."""
        self.read.remove(of)
        self.left.appendleft(of)

    def place(self, of: Range, chunk: Chunk, rows: int, took_s: float) -> dict[str, Any]:
        """Note that a range is in the log, `rows` rows of it; the state that goes there with it."""
        self.read.remove(of)
        self.rereads = 0
        if chunk.next_key is not None:
            # Rows came into the range after its end was found.
            self.left.appendleft(Range(chunk.next_key, of.until))
        self._fit(chunk, took_s)
        copied = self.state.get("rows", 0) + rows
        if self.is_done:
            self.state = ended(self.state, copied)
        else:
            self.state = {
                **self.state,
                "rows": copied,
                "after": self._frontier,
                "ended": self._ended,
                "open": [list(r) for r in (*self.read, *self.left)],
            }
        return self.state

    def _fit(self, chunk: Chunk, took_s: float) -> None:
        if not chunk.keys:
            return
        count = len(chunk.keys)
        by_bytes = self.most_bytes * count // (chunk.size_bytes or 1)
        by_time = int(count * CHUNK_S / max(took_s, 0.001))
        self.rows = min(self.most_rows, max(FEWEST_ROWS, min(by_bytes, by_time)))
