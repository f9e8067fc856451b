"""Assignments where neither side's tables may get a column: pairs in headwater_referee.

Invariant: a pair is made only while no batch is being written, and while neither row has another
one. No row of the applications is written.
"""

import json
from collections.abc import Sequence

import sqlalchemy as sa

from apply import pairs
from apply.catalog import Catalog
from apply.checkpoint import lock
from apply.own import CHECKPOINT, REFEREE
from apply.pairs import Paired
from apply.placement import has_referee
from apply.referee_fit import referee_problems
from apply.target import Placement
from ops.enrol.scratch import Pair
from ops.enrol.side import Side
from ops.enrol.twin import Twin
from schemas.finding import Finding, refusal


def refuse_unfit(target: Side, made: Sequence[Twin], placement: Placement) -> None:
    """Refuse tables whose rows cannot be found by pairs, as `prepare` does. Raises
    SchemaConflict.
    """
    known = {twin.name: twin.table for twin in made}
    refused: list[Finding] = []
    with target.connected() as connection:
        catalog = Catalog(target.server, connection, placement)
        for twin in made:
            if has_referee(twin.table, placement):
                at = ".".join(catalog.place(twin.name))
                refused += referee_problems(
                    twin.table, known, placement, target.server, twin.target, at
                )
    if refused:
        raise refusal(target.name, refused)


def hold(connection: sa.Connection, source: str) -> None:
    """Let no batch be written until this transaction's end."""
    if sa.inspect(connection).has_table(CHECKPOINT.name):
        lock(connection, source)


def has_pairs(target: Side) -> bool:
    """Whether the target has a table of pairs."""
    with target.connected() as connection:
        return sa.inspect(connection).has_table(REFEREE.name)


def free(connection: sa.Connection, table: Paired, keys: Sequence[str]) -> set[str]:
    """Those of the source's keys, as JSON, that have no pair with a row that is there."""
    taken = pairs.with_rows(connection, table, [_number(key) for key in keys])
    return {key for key in keys if _number(key) not in taken}


def write(connection: sa.Connection, table: Paired, wanted: Sequence[Pair]) -> None:
    """Let these be pairs. What their source keys were paired with before, is gone."""
    numbers = [(_number(p.source_key), _number(p.target_key)) for p in wanted]
    pairs.assign(connection, table, numbers)


def end(connection: sa.Connection, table: Paired, identity: str, target_key: str) -> bool:
    """End the pair of these two rows; whether it was live."""
    return pairs.end(connection, table, [int(identity)]) == [(int(identity), _number(target_key))]


def _number(key: str) -> int:
    (value,) = json.loads(key)
    return int(value)
