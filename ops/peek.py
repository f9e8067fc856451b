"""Looks at batches in a log without applying them: what `headwater peek` prints.

Invariant: row values, keys included, leave only when asked for (`--values`).
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ops.show import instant
from schemas import codec
from schemas.change import Batch, Offset, Rows
from transport.log import Log


def newest_batches(log: Log, limit: int) -> list[Batch]:
    """The last `limit` batches that have rows or truncates, oldest first; reads all records."""
    return list(deque(_batches(log, None), maxlen=limit))


def next_batches(log: Log, after: Offset | None, limit: int) -> list[Batch]:
    """The first `limit` batches after an offset that have rows or truncates."""
    return list(islice(_batches(log, after), limit))


def documents(
    batches: list[Batch], *, table: str | None, limit: int, values: bool
) -> Iterator[dict[str, Any]]:
    """One document per batch, each with at most `limit` of its rows."""
    for batch in batches:
        rows = islice(_rows(batch, table, values), limit)
        yield {
            "batch": batch.batch,
            "epoch": batch.epoch,
            "from": batch.from_position,
            "position": batch.position,
            "committed_at": instant(batch.committed_at),
            "transactions": batch.transactions,
            "row_count": batch.row_count,
            "truncates": [{"table": t.table, "ordinal": t.ordinal} for t in batch.truncates],
            "rows": list(rows),
        }


def _batches(log: Log, after: Offset | None) -> Iterator[Batch]:
    for batch in log.read(after, follow=False):
        if batch is not None and not batch.is_empty:
            yield batch


def _rows(batch: Batch, table: str | None, values: bool) -> Iterator[dict[str, Any]]:
    for block in batch.blocks():
        for rows in block:
            if table is None or rows.table.full_name == table:
                yield from (_row(rows, i, values) for i in range(len(rows)))


def _row(rows: Rows, i: int, values: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "ordinal": rows.ordinals[i],
        "table": rows.table.full_name,
        "op": rows.ops[i],
        "size_bytes": len(rows.values[i]),
    }
    if values:
        parsed = codec.parse(rows.values[i])
        row["key"] = codec.parse(rows.keys[i]) if rows.keys[i] else None
        # A seed (op "s") has no images: it is shown as it stands.
        shown = ("before", "after") if rows.ops[i] != "s" else ("source_key", "identity")
        row |= {name: parsed.get(name) for name in shown}
    return row
