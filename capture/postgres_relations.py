"""Which table each oid is, as far as the log has been read: a name that stands for another oid than
it did (a table renamed, or dropped and made anew) is another table, of which the log shows no row.

The log says it with the next row's Relation; the catalog, which may be ahead, says it of a table
that is not written to, or not published any more: its word counts once the stream has passed the
place where the catalog was read. Invariant: `progress` holds, with each commit, the oids that were
known there, so that a change made while nothing was captured is found too.
"""

from collections.abc import Callable, Mapping

import structlog

from capture.resync import Resync
from schemas.change import Progress
from schemas.errors import Operator, Unsupported
from schemas.selection import Selection
from schemas.table import Table

log = structlog.get_logger()

_NOT_COPIED = {"what": "none", "after": None, "done": True}
_TAKEN = ""
"""The name of an oid whose own name another one took: whatever it is called next is news."""

Catalog = Mapping[int, tuple[str, str]]
"""Schema and name of every table by oid."""


class Relations:
    """The oids of one source's tables; `progress` is shared with the first copies."""

    def __init__(self, selection: Selection, resync: Resync, progress: Progress) -> None:
        """Tables whose oid `progress` does not hold are taken as the catalog is first seen."""
        self._selection, self._resync, self._progress = selection, resync, progress
        self._oids: dict[str, int] = {n: s["oid"] for n, s in progress.items() if "oid" in s}
        self._names = {oid: name for name, oid in self._oids.items()}
        self._ahead: tuple[int, Catalog] | None = None
        self._gone: set[str] = set()

    def look(self, catalog: Catalog, end: Callable[[], int]) -> None:
        """Take in what the catalog says. end: gives a place in the log after the catalog was read,
        and sees to it that the stream gets there.
        """
        for oid, (schema, name) in catalog.items():
            full_name = f"{schema}.{name}"
            if oid not in self._names and full_name not in self._oids:
                self._learn(oid, schema, name)
        gone = {n for n, oid in self._oids.items() if oid not in catalog} - self._gone
        for name in sorted(n for n in gone if self._selection.wants(*n.split(".", 1))):
            log.warning("captured_table_gone", table=name, meaning="its rows stay in the targets")
        self._gone |= gone
        if self._ahead is None and any(self._is_news(oid, n) for oid, n in catalog.items()):
            self._ahead = end(), catalog

    def passed(self, lsn: int) -> list[str]:
        """The tables that lost their rows by what the catalog said below `lsn`."""
        if self._ahead is None or lsn < self._ahead[0]:
            return []
        _, catalog = self._ahead
        self._ahead = None
        lost = [n for oid, name in catalog.items() for n in self.called(oid, *name)]
        return list(dict.fromkeys(lost))

    def called(self, oid: int, schema: str, name: str) -> list[str]:
        """Note that `oid` has this name; the tables that have lost all their rows by that.

        Raises Unsupported where they are not being copied anew.
        """
        if not self._is_news(oid, (schema, name)):
            self._learn(oid, schema, name)
            return []
        full_name = f"{schema}.{name}"
        before = self._names.get(oid)
        lost = [n.split(".", 1) for n in dict.fromkeys((before or full_name, full_name))]
        wanted = [(s, n) for s, n in lost if self._selection.wants(s, n)]
        emptied = self._resync.emptied(wanted, _problem(before, full_name)) if wanted else []
        if before:
            self._forget(before, oid)
        if full_name in self._oids:
            self._names[self._oids.pop(full_name)] = _TAKEN
        self._names.pop(oid, None)
        self._learn(oid, schema, name)
        return emptied

    def unreadable(self, table: Table, problem: Operator) -> list[str]:
        """The tables that lost their rows because this one's could not be read; raises `problem`
        where they are not being copied anew.
        """
        return self._resync.emptied([(table.schema, table.name)], problem)

    def _is_news(self, oid: int, name: tuple[str, str]) -> bool:
        full_name = ".".join(name)
        known = self._names.get(oid)
        return known != full_name and (known is not None or full_name in self._oids)

    def _learn(self, oid: int, schema: str, name: str) -> None:
        full_name = f"{schema}.{name}"
        if self._names.get(oid) == full_name or not self._selection.wants(schema, name):
            return
        self._names[oid], self._oids[full_name] = full_name, oid
        # A state of its own: those who were given the old one keep it.
        self._progress[full_name] = {**self._progress.get(full_name, _NOT_COPIED), "oid": oid}

    def _forget(self, name: str, oid: int) -> None:
        if self._oids.get(name) == oid:
            del self._oids[name]
            state = self._progress.get(name, {})
            self._progress[name] = {k: v for k, v in state.items() if k != "oid"}


def _problem(before: str | None, name: str) -> Unsupported:
    if before:
        return Unsupported(
            f"found that somebody renamed {before} to {name}, which the rows in the log do not show"
        )
    return Unsupported(
        f"found that {name} is another table than it was: somebody dropped it and made it anew, or "
        "renamed another to this name, which the rows in the log do not show",
        hint="headwater prepare publishes it, if it is not published any more",
    )
