"""The changes of one parked row, in order -> what applying all of them comes to."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from apply.parked import Parked
from schemas.change import Rows
from schemas.table import Table


class _Step(NamedTuple):
    """What is left of a queue: one upsert or delete, at the moment of the change that says it."""

    of: Parked
    op: str
    value: bytes
    is_partial: bool


def as_rows(queues: Iterable[Sequence[Parked]]) -> Iterator[tuple[int, list[Rows]]]:
    """By batch, ascending: the rows that have the queues' effect, a run for each description.
    Batch and ordinals are at_batch and at_ordinal of each row's newest change.
    """
    steps = sorted(
        (step for queue in queues for step in _folded(queue)),
        key=lambda step: (step.of.at_batch, step.of.description, step.of.at_ordinal),
    )
    for batch, of_batch in groupby(steps, key=lambda step: step.of.at_batch):
        runs = groupby(of_batch, key=lambda step: step.of.description)
        yield batch, [_rows(Table.loads(text), list(found)) for text, found in runs]


def image_of(queue: Sequence[Parked]) -> dict[str, Any] | None:
    """The row that the queue comes to; None where it is deleted."""
    *_, last = _folded(queue)
    image: dict[str, Any] | None = orjson.loads(last.value).get("after")
    return None if last.op == "d" else image


def _rows(table: Table, steps: Sequence[_Step]) -> Rows:
    return Rows(
        table=table,
        ops=[step.op for step in steps],
        ordinals=[step.of.at_ordinal for step in steps],
        keys=[step.of.row_key.encode() for step in steps],
        values=[step.value for step in steps],
        partial=any(step.is_partial for step in steps),
    )


def _folded(queue: Sequence[Parked]) -> Iterator[_Step]:
    """As apply/fold.py does: the last word, with the columns that earlier partial rows have. A row
    that was deleted on the way is deleted first: its children went with it.
    """
    last, whole, is_partial = queue[-1], None, False
    gone: Parked | None = None
    for change in queue:
        if change.op == "d":
            gone, whole, is_partial = change, None, False
            continue
        after: dict[str, Any] = orjson.loads(change.value)["after"]
        if change.op == "u" and whole is not None:
            whole = whole | after
        else:
            whole, is_partial = after, change.is_partial == 1 and change.op == "u"
    if gone is not None:
        yield _Step(gone, "d", gone.value.encode(), False)
    if whole is not None:
        value = orjson.dumps({"after": whole, "op": "u"})
        yield _Step(last, "u", value, is_partial)
