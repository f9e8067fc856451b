"""Parked changes as they are kept in the target: read, added, removed, edited, skipped.

Everything a change was in the log is kept, so that it can be applied without the log.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson
import sqlalchemy as sa

from apply.own import PARKED
from apply.refused import Reason
from schemas.errors import Misconfigured

State = Literal["parked", "skipped"]


class Parked(NamedTuple):
    """One change that waits, or was skipped. Instants: microseconds since 1970 UTC.

    number: names it. row_key, value: wire JSON. description: the table's, as the change was
    written. batch, ordinal: its place in the log. at_batch, at_ordinal: the same as
    headwater_identity counts (batches that were applied together have the newest one's number).
    waits_table, waits_key: the parent that it waits for, by its key in the source. note: why it was
    skipped, or that it was edited.
    """

    number: int
    state: State
    table_name: str
    row_key: str
    op: str
    value: str
    is_partial: int
    description: str
    reason: Reason
    problem: str
    hint: str
    waits_table: str | None
    waits_key: str | None
    batch: int
    ordinal: int
    at_batch: int
    at_ordinal: int
    position: str
    committed_at: int | None
    parked_at: int
    tries: int
    note: str | None

    @property
    def row(self) -> tuple[str, bytes]:
        """Whose change it is."""
        return self.table_name, self.row_key.encode()


def _of(source: str) -> sa.ColumnElement[bool]:
    return PARKED.c.source == source


def _numbered(source: str, numbers: Collection[int]) -> sa.ColumnElement[bool]:
    return _of(source) & PARKED.c.number.in_(list(numbers))


def read(connection: sa.Connection, source: str, *, skipped: bool = False) -> list[Parked]:
    """Every parked change in the order of the log; with `skipped`, those too. None where the
    target has no such table yet.
    """
    if not sa.inspect(connection).has_table(PARKED.name):
        return []
    found = sa.select(*(PARKED.c[name] for name in Parked._fields)).where(_of(source))
    if not skipped:
        found = found.where(PARKED.c.state == "parked")
    rows = connection.execute(found.order_by(PARKED.c.number))
    return [Parked(*row) for row in rows]


def add(connection: sa.Connection, source: str, changes: Sequence[Parked]) -> None:
    """Keep these changes, numbered after all that were ever kept."""
    if changes:
        newest = connection.scalar(sa.select(sa.func.max(PARKED.c.number)).where(_of(source)))
        rows = [
            change._asdict() | {"source": source, "number": number}
            for number, change in enumerate(changes, start=int(newest or 0) + 1)
        ]
        connection.execute(sa.insert(PARKED), rows)


def remove(connection: sa.Connection, source: str, numbers: Collection[int]) -> None:
    """Forget these changes: they were applied."""
    if numbers:
        connection.execute(sa.delete(PARKED).where(_numbered(source, numbers)))


def change(connection: sa.Connection, source: str, number: int, values: Mapping[str, Any]) -> None:
    """Set columns of one change."""
    connection.execute(sa.update(PARKED).where(_numbered(source, [number])).values(values))


def skip(connection: sa.Connection, source: str, numbers: Collection[int], reason: str) -> None:
    """Give up these changes; they are kept, with the reason. Raises Misconfigured where one is not
    parked.
    """
    for number in numbers:
        found(connection, source, number)
        change(connection, source, number, {"state": "skipped", "note": reason})


def edit(connection: sa.Connection, source: str, number: int, columns: Mapping[str, Any]) -> None:
    """Replace values of a change's row, as the wire has them. Raises Misconfigured where it is not
    parked, is a delete, or has no such column.
    """
    parked = found(connection, source, number)
    document = orjson.loads(parked.value)
    after = document.get("after")
    unknown = sorted(set(columns) - set(after or {}))
    if parked.op == "d" or unknown:
        what = f"has no column {unknown[0]}" if unknown and after else "is a delete"
        raise Misconfigured(
            f"cannot edit parked change {number}: it {what}",
            hint="its columns: " + ", ".join(after) if after else "skip it instead",
        )
    names = sorted(set(columns) & set(orjson.loads(parked.row_key)))
    if names:
        raise Misconfigured(
            f"cannot edit {names[0]} of parked change {number}: it is the row's identity",
            hint="skip the change, and mend the row in the source",
        )
    document["after"] = after | columns
    note = "edited: " + ", ".join(sorted(columns))
    change(connection, source, number, {"value": orjson.dumps(document).decode(), "note": note})


def found(connection: sa.Connection, source: str, number: int) -> Parked:
    """One parked change; raises Misconfigured where there is none of this number."""
    return numbered(read(connection, source), number)


def numbered(changes: Iterable[Parked], number: int) -> Parked:
    """The one of this number; raises Misconfigured where there is none."""
    for change in changes:
        if change.number == number:
            return change
    raise Misconfigured(
        f"found no parked change {number}", hint="headwater parked list TARGET shows their numbers"
    )
