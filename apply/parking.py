"""What one batch parks and releases: changes that the target refuses, and later ones of their rows.

A batch is tried as a whole; what it refuses is left out of the next try, and parked in the
transaction that wrote the rest. Invariants: changes of one row are applied in their order or wait
together, so nothing older ever follows a newer one; a parked change is removed only in the
transaction that applied it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any, NamedTuple, Protocol

import orjson
import sqlalchemy as sa
import structlog

from apply import parked
from apply.parked import Parked
from apply.refused import Reason, Refusal, Refused
from schemas.change import Position, Rows
from schemas.errors import Operator

log = structlog.get_logger()


class Standing(Protocol):
    """What writing asks of the batch that it writes, or stands at; see schemas.change.Batch."""

    @property
    def batch(self) -> int: ...
    @property
    def position(self) -> Position: ...
    @property
    def committed_at(self) -> int | None: ...
    @property
    def seeds(self) -> bool: ...
    @property
    def pending(self) -> frozenset[str]: ...

    def place(self, ordinal: int) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRest:
    """A checkpoint as a Standing: nothing new comes."""

    batch: int
    position: Position
    committed_at: int | None
    seeds: bool = False
    pending: frozenset[str] = frozenset()

    def place(self, ordinal: int) -> tuple[int, int]:
        """The batch, and the ordinal itself."""
        return self.batch, ordinal


Row = tuple[str, bytes]
"""A table's full name and a row's wire key."""


class Retried(NamedTuple):
    """Numbers of the changes that were applied, and of those that still wait."""

    applied: Sequence[int]
    parked: Sequence[int]


class Parking:
    """One batch's, over all its tries. limit: so many changes may be parked; 0: none, and a refused
    row is an error.
    """

    def __init__(
        self, source: str, limit: int, at: Standing, *, asked: Collection[int] | None = ()
    ) -> None:
        """asked: numbers of parked changes whose rows are to be tried; None: all."""
        self._source, self._limit, self._at, self._asked = source, limit, at, asked
        self._refused: dict[str, dict[int, Refusal]] = {}
        self._stay: dict[Row, Refusal] = {}
        self._stuck: set[Row] = set()
        self.checks_at_once = False
        """Whether the next try is to find the row that the commit of this one refused."""
        self.begin([])

    # A try of the batch.

    def begin(self, changes: Sequence[Parked]) -> None:
        """A new try; changes: what is parked now."""
        self._changes = list(changes)
        self._queues: dict[Row, list[Parked]] = {}
        for change in changes:
            self._queues.setdefault(change.row, []).append(change)
        self._had = {change.number for change in changes}
        self._blocked: dict[str, set[bytes]] = {}
        for table, key in self._queues:
            self._blocked.setdefault(table, set()).add(key)
        asked = self._had if self._asked is None else self._asked
        self._wanted = {c.row for c in changes if c.number in asked}
        self._touched: set[str] = set()
        self._released: set[Row] = set()
        self._were_ready: set[Row] = set()
        self._emptied: list[Parked] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is parked."""
        return not self._queues

    @property
    def descriptions(self) -> set[str]:
        """The descriptions of the tables of what is parked."""
        return {change.description for change in self._changes}

    def keys(self, table: str) -> Collection[bytes]:
        """The keys of the table's rows of which a change waits."""
        return self._blocked.get(table, ())

    def unparked(self, rows: Rows) -> Rows:
        """The rows of which no change waits."""
        blocked = self._blocked.get(rows.table.full_name)
        if not blocked:
            return rows
        return rows.at([i for i, key in enumerate(rows.keys) if key not in blocked])

    def sift(self, rows: Rows) -> Rows:
        """Park the rows that were refused, and those behind a parked one; the others."""
        name = rows.table.full_name
        refused = self._refused.get(name, {})
        self._touched.add(name)
        if not refused and name not in self._blocked:
            return rows
        blocked = self._blocked.setdefault(name, set())
        keep = []
        for i, (ordinal, key) in enumerate(zip(rows.ordinals, rows.keys, strict=True)):
            if key in blocked or ordinal in refused:
                blocked.add(key)
                self._park(rows, i, refused.get(ordinal))
            else:
                keep.append(i)
        return rows if len(keep) == len(rows) else rows.at(keep)

    def _park(self, rows: Rows, i: int, why: Refusal | None) -> None:
        row = (rows.table.full_name, rows.keys[i])
        batch, ordinal = self._at.place(rows.ordinals[i])
        if why is None and rows.ops[i] in "rd":
            self._wanted.add(row)  # a copy was asked for; a deleted row mostly waits for nothing
        change = Parked(
            number=-len(self._changes),  # one of its own when it is kept
            state="parked",
            table_name=row[0],
            row_key=row[1].decode(),
            op=rows.ops[i],
            value=rows.values[i].decode(),
            is_partial=int(rows.partial),
            description=rows.table.dumps(),
            **_told(why),
            batch=batch,
            ordinal=ordinal,
            at_batch=self._at.batch,
            at_ordinal=rows.ordinals[i],
            position=self._at.position,
            committed_at=self._at.committed_at,
            parked_at=time_ns() // 1000,
            tries=1 if why else 0,
            note=None,
        )
        self._changes.append(change)
        self._queues.setdefault(row, []).append(change)
        if len(self._changes) > self._limit:
            raise Operator(
                f"found more than {self._limit} changes that the target refuses, as parked_limit "
                f"allows ({change.problem} in batch {batch}, ordinal {ordinal})",
                hint="headwater parked list shows them and what to do; then mend the target or "
                "raise parked_limit",
            )

    def touch(self, table: str) -> None:
        """Rows of the table were written: changes that wait for that may be tried."""
        self._touched.add(table)

    def forget(self, table: str) -> None:
        """The table was emptied at the source: what waits for it has no row any more."""
        for row in [row for row in self._queues if row[0] == table]:
            del self._queues[row]
        self._blocked.pop(table, None)
        self._changes = [c for c in self._changes if c.table_name != table]

    def drop(self, row: Row) -> None:
        """The source no longer has the row."""
        del self._queues[row]
        self._blocked[row[0]].discard(row[1])
        self._changes = [c for c in self._changes if c.row != row]

    def empty(self, row: Row, columns: Iterable[str]) -> None:
        """These references of the row lead nowhere any more: it is to be tried without."""
        last = self._queues[row][-1]
        document = orjson.loads(last.value)
        document["after"] |= dict.fromkeys(columns)
        changed = last._replace(value=orjson.dumps(document).decode())
        self._queues[row][-1] = changed
        self._changes = [changed if c is last else c for c in self._changes]
        self._emptied.append(changed)
        self._wanted.add(row)

    @property
    def rows(self) -> list[Row]:
        """The rows of which changes wait."""
        return [row for row in self._queues if self.waits(row)]

    @property
    def deletes(self) -> list[Parked]:
        """The deletes that wait, of rows of which changes wait."""
        return [c for row in self.rows for c in self._queues[row] if c.op == "d"]

    def waits(self, row: Row) -> bool:
        """Whether changes of the row wait, and are not being released."""
        return row in self._queues and row not in self._released

    # Releasing.

    def candidates(self, reason: Reason) -> list[Parked]:
        """The first changes of rows that wait for something which this batch may have brought; of
        "referenced", which any table may, those that are left.
        """
        if self.is_empty or not self._touched:
            return []
        firsts = [queue[0] for row, queue in self._queues.items() if self._may_try(row)]
        return [
            c
            for c in firsts
            if c.reason == reason
            and (reason == "referenced" or {c.waits_table, c.table_name} & self._touched)
        ]

    def awaited(self, parent: str, children: Collection[str]) -> set[str]:
        """The source keys of this table's rows for which rows of those tables wait."""
        return {
            str(c.waits_key)
            for c in self._changes
            if c.waits_table == parent and c.table_name in children and c.row not in self._released
        }

    def _may_try(self, row: Row) -> bool:
        return row in self._queues and row not in self._released and row not in self._stuck

    def queue(self, row: Row) -> Sequence[Parked]:
        """The row's changes that wait, in order."""
        return self._queues[row]

    def due(self, ready: Iterable[Parked]) -> list[Sequence[Parked]]:
        """The queues to apply now: those asked for, and those of the changes that are `ready`."""
        now = {change.row for change in ready}
        # One that failed may be tried once more when it is known to be ready.
        rows = now | (self._wanted - self._stay.keys())
        found = sorted(row for row in rows if self._may_try(row))
        self._were_ready |= now
        self._released.update(found)
        self._touched.update(table for table, _ in found)
        return [self._queues[row] for row in found]

    def place(self, at_batch: int, at_ordinal: int) -> tuple[int, int]:
        """The place in the log of a row that is written by this batch, or released in it."""
        for c in self._changes:
            if (c.at_batch, c.at_ordinal) == (at_batch, at_ordinal):
                return c.batch, c.ordinal
        return self._at.place(at_ordinal)

    # The end of a try.

    def refuse(self, error: Refused) -> None:
        """Leave out of the next try what this one met; raises the error where nothing may be
        parked.
        """
        is_new = False
        for row in error.rows:
            of = (row.table, row.key)
            if of in self._released:
                is_new |= of not in self._stay or (of in self._were_ready - self._stuck)
                self._stay[of] = row
                self._stuck |= {of} & self._were_ready
            elif self._limit:
                refused = self._refused.setdefault(row.table, {})
                is_new |= row.ordinal not in refused
                refused[row.ordinal] = row
        if not is_new:
            raise error

    def save(self, connection: sa.Connection) -> bool:
        """Keep what is parked, and remove what was released, in the batch's transaction; whether
        something is parked now.
        """
        left = [c for c in self._changes if c.row not in self._released]
        new = [c for c in left if c.number not in self._had]
        gone = self._had - {c.number for c in left}
        parked.add(connection, self._source, new)
        parked.remove(connection, self._source, gone)
        for change in self._emptied:
            if change.number in self._had - gone:
                parked.change(connection, self._source, change.number, {"value": change.value})
        for row, why in self._stay.items():
            if row in self._queues:
                first = self._queues[row][0]
                told = _told(why) | {"tries": first.tries + 1}
                parked.change(connection, self._source, first.number, told)
        self._result = len(new), Retried(sorted(gone), sorted(c.number for c in left))
        return bool(left)

    @property
    def retried(self) -> Retried:
        """What `save` did."""
        return self._result[1]

    def tell(self, target: str) -> None:
        """Say in the journal what was parked and released."""
        new, (gone, left) = self._result
        if new:
            log.warning("changes_parked", target=target, changes=new, parked=len(left))
        if gone:
            log.info("parked_changes_applied", target=target, changes=len(gone), parked=len(left))


def _told(why: Refusal | None) -> dict[str, Any]:
    if why is None:
        return {
            "reason": "behind",
            "problem": "waits behind an earlier change of the same row",
            "hint": "it is applied with that one",
            "waits_table": None,
            "waits_key": None,
        }
    waits = why.waits or (None, None)
    return {
        "reason": why.reason,
        "problem": why.problem,
        "hint": why.hint,
        "waits_table": waits[0],
        "waits_key": waits[1],
    }
