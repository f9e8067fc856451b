"""The pairs of headwater_referee as people see and correct them: list, assign, end.

Writes wait for the batch that is being written and hold back the next one (apply/checkpoint.lock,
which the caller takes). Nothing here touches a row of the applications.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import sqlalchemy as sa

from apply import referee
from apply.checkpoint import of
from apply.own import CHECKPOINT, REFEREE, UNTOLD
from apply.target import Pair
from schemas.errors import Misconfigured

LAST = 2**62
"""The ordinal after every row of a batch."""

BLOCK = 1_000


class Paired(NamedTuple):
    """A table that has pairs: its source, the source's full name for it, and the key of its rows in
    the target. is_shared: a shared referee is to be told of them.
    """

    source: str
    name: str
    key: sa.Column[Any]
    is_shared: bool = False


def read(
    connection: sa.Connection, source: str, table: str, *, ended: bool = False
) -> Iterator[Pair]:
    """The table's live pairs by source key; with `ended` the others too, oldest first. None where
    the target was never prepared for them.
    """
    if not sa.inspect(connection).has_table(REFEREE.name):
        return
    c = REFEREE.c
    mine = [c.source == source, c.table_name == table]
    chosen = sa.select(REFEREE).where(*mine if ended else referee.live(REFEREE, source, table))
    is_live = sa.case((c.live == 1, 1), else_=0)
    chosen = chosen.order_by(c.source_key, is_live, c.until_batch, c.until_ordinal)
    for row in connection.execution_options(yield_per=10_000).execute(chosen):
        state: Literal["live", "ended"] = "live" if row.live == 1 else "ended"
        keys = row.source_key, row.local_key
        yield Pair(*keys, state, row.sync_id, row.since_batch, row.until_batch)


def assign(
    connection: sa.Connection, table: Paired, wanted: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Let these (source key, local key) be pairs; the pairs that ended for it. Raises
    Misconfigured where a local row is not there, or is another source key's.
    """
    if len({s for s, _ in wanted}) < len(wanted) or len({k for _, k in wanted}) < len(wanted):
        raise Misconfigured(
            "was given one key twice", hint="name each source key and each local key once"
        )
    _refuse_missing(connection, table, [local for _, local in wanted])
    had = _live(connection, table, REFEREE.c.local_key, [local for _, local in wanted])
    by_local = {local: source for source, local in had}
    for source, local in wanted:
        other = by_local.get(local, source)
        if other != source:
            raise Misconfigured(
                f"found row {local} of {table.name} in the target paired with source key {other}",
                hint=f"headwater referee end TARGET {table.name} --source-key {other}, then again",
            )
    new = [pair for pair in wanted if pair[1] not in by_local]
    now = _batch(connection, table)
    ended = end(connection, table, [source for source, _ in new])
    again = {source for source, _ in ended}
    rows = [
        {
            "sync_id": str(uuid4()),
            "source": table.source,
            "table_name": table.name,
            "source_key": source,
            "local_key": local,
            "live": 1,
            "since_batch": now if source in again else 0,
        }
        for source, local in new
    ]
    if rows:
        connection.execute(sa.insert(REFEREE), rows)
        _note(connection, table, [str(row["sync_id"]) for row in rows])
    return ended


def partner(table: Paired) -> sa.ScalarSelect[Any]:
    """The source's key with which a row of the target is paired, within a select of the rows."""
    pairs = REFEREE.alias()
    mine = referee.live(pairs, table.source, table.name)
    chosen = sa.select(pairs.c.source_key).where(*mine, pairs.c.local_key == table.key)
    return chosen.correlate(table.key.table).scalar_subquery()


def with_rows(connection: sa.Connection, table: Paired, keys: Sequence[int]) -> set[int]:
    """Those of the source keys whose pair is live, and whose row is in the target."""
    c, found = REFEREE.c, set[int]()
    for some in _blocks(keys):
        mine = [*referee.live(REFEREE, table.source, table.name), c.source_key.in_(some)]
        chosen = sa.select(c.source_key).where(*mine, c.local_key == table.key)
        found |= {int(key) for key in connection.scalars(chosen)}
    return found


def end(connection: sa.Connection, table: Paired, keys: Sequence[int]) -> list[tuple[int, int]]:
    """End the live pairs of these source keys; those that were."""
    ended = _live(connection, table, REFEREE.c.source_key, keys)
    now = {"live": None, "until_batch": _batch(connection, table), "until_ordinal": LAST}
    for some in _blocks([source for source, _ in ended]):
        mine = referee.live(REFEREE, table.source, table.name)
        mine.append(REFEREE.c.source_key.in_(some))
        _note(connection, table, connection.scalars(sa.select(REFEREE.c.sync_id).where(*mine)))
        connection.execute(sa.update(REFEREE).where(*mine).values(now))
    return ended


def _note(connection: sa.Connection, table: Paired, pairs: Iterable[str]) -> None:
    """Pairs of which a shared referee is to be told."""
    rows = [{"source": table.source, "sync_id": pair} for pair in pairs if table.is_shared]
    if rows:
        connection.execute(sa.insert(UNTOLD), rows)


def _live(
    connection: sa.Connection, table: Paired, column: sa.Column[int], keys: Sequence[int]
) -> list[tuple[int, int]]:
    c, found = REFEREE.c, []
    for some in _blocks(keys):
        mine = referee.live(REFEREE, table.source, table.name)
        chosen = sa.select(c.source_key, c.local_key).where(*mine, column.in_(some))
        found += [(int(source), int(local)) for source, local in connection.execute(chosen)]
    return found


def _refuse_missing(connection: sa.Connection, table: Paired, keys: Sequence[int]) -> None:
    own, there = table.key, set[int]()
    for some in _blocks(keys):
        there |= {int(k) for k in connection.scalars(sa.select(own).where(own.in_(some)))}
    missing = sorted(set(keys) - there)
    if missing:
        raise Misconfigured(
            f"found no row {missing[0]} of {table.name} in the target ({len(missing)} are missing)",
            hint="name the primary keys of rows that are there",
        )


def _batch(connection: sa.Connection, table: Paired) -> int:
    if not sa.inspect(connection).has_table(CHECKPOINT.name):
        return 0
    return connection.scalar(sa.select(CHECKPOINT.c.batch).where(of(table.source))) or 0


def _blocks(keys: Iterable[int]) -> Iterator[list[int]]:
    every = list(keys)
    for at in range(0, len(every), BLOCK):
        yield every[at : at + BLOCK]
