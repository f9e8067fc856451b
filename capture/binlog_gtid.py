"""GTID sets of MySQL and GTID lists of MariaDB, as values that a stream advances; pure.

MySQL: `uuid:1-7:9-10,uuid:1-3` is a set that may have holes: a transaction that commits late fills
one, so a set is never reduced to its last number. MariaDB: `0-1-100,1-2-7` is the last transaction
of each replication domain; domains advance independently.
"""

from bisect import bisect_right
from collections.abc import Iterator
from uuid import UUID

Interval = tuple[int, int]
"""First and last number, both in the set."""


class GtidSet:
    """A MySQL GTID set; `add` is cheap where numbers come in order."""

    __slots__ = ("_intervals",)

    def __init__(self, text: str = "") -> None:
        """Parse the server's text; raises ValueError for anything else, tagged GTIDs included."""
        self._intervals: dict[str, list[Interval]] = {}
        for part in "".join(text.split()).split(","):
            if not part:
                continue
            uuid, *intervals = part.split(":")
            if not intervals:
                raise ValueError(f"no interval in {part!r}")
            held = self._intervals.setdefault(str(UUID(uuid)), [])
            held.extend(_interval(one) for one in intervals)
        self._intervals = {u: _merged(i) for u, i in sorted(self._intervals.items())}

    def add(self, uuid: str, number: int) -> None:
        """Put one transaction into the set."""
        held = self._intervals.get(uuid)
        if held is None:
            self._intervals[uuid] = [(number, number)]
            self._intervals = dict(sorted(self._intervals.items()))
        elif held[-1][1] + 1 == number:
            held[-1] = (held[-1][0], number)
        elif not self.holds(uuid, number, number):
            self._intervals[uuid] = _merged([*held, (number, number)])

    def holds(self, uuid: str, first: int, last: int) -> bool:
        """Whether all of first..last of `uuid` are in the set."""
        held = self._intervals.get(uuid, [])
        at = bisect_right(held, first, key=lambda i: i[0]) - 1
        return at >= 0 and last <= held[at][1]

    def __le__(self, other: "GtidSet") -> bool:
        """Whether every transaction of this set is in `other`."""
        return all(other.holds(uuid, *interval) for uuid, interval in self)

    def __iter__(self) -> Iterator[tuple[str, Interval]]:
        for uuid, intervals in self._intervals.items():
            for interval in intervals:
                yield uuid, interval

    def __str__(self) -> str:
        """The canonical text: equal sets have equal texts."""
        return ",".join(
            f"{uuid}:" + ":".join(f"{a}-{b}" if a != b else f"{a}" for a, b in intervals)
            for uuid, intervals in self._intervals.items()
        )


def _interval(text: str) -> Interval:
    first, _, last = text.partition("-")
    a, b = int(first), int(last or first)
    if not 0 < a <= b:
        raise ValueError(f"not an interval: {text!r}")
    return a, b


def _merged(intervals: list[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


class GtidList:
    """MariaDB's place in its binlog: the last GTID of each domain."""

    __slots__ = ("_last",)

    def __init__(self, text: str = "") -> None:
        """Parse the server's text; raises ValueError for anything else.

        Where the text has several servers in one domain (`gtid_binlog_state`), the highest counts.
        """
        self._last: dict[int, tuple[int, int]] = {}
        for part in "".join(text.split()).split(","):
            if part:
                domain, server, number = map(int, part.split("-"))
                if number >= self._last.get(domain, (0, 0))[1]:
                    self.add(domain, server, number)

    def add(self, domain: int, server: int, number: int) -> None:
        """Advance one domain; the log's order counts, even where numbers go back."""
        if domain in self._last:
            self._last[domain] = (server, number)
        else:
            self._last = dict(sorted([*self._last.items(), (domain, (server, number))]))

    def __le__(self, other: "GtidList") -> bool:
        """Whether `other` is at or past this place in every domain."""
        return all(
            domain in other._last and number <= other._last[domain][1]
            for domain, (_, number) in self._last.items()
        )

    def is_within(self, state: str) -> bool:
        """Whether a server with this `gtid_binlog_state` has had each of these transactions."""
        newest: dict[tuple[int, int], int] = {}
        for part in filter(None, "".join(state.split()).split(",")):
            domain, server, number = map(int, part.split("-"))
            newest[domain, server] = number
        return all(n <= newest.get((d, s), 0) for d, (s, n) in self._last.items())

    def __str__(self) -> str:
        return ",".join(f"{d}-{s}-{n}" for d, (s, n) in self._last.items())
