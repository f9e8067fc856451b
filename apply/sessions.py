"""The names of the last sessions in which a target's changes were applied (ops/readers.py)."""

from collections.abc import Sequence

import orjson
import sqlalchemy as sa

from apply.checkpoint import lock
from apply.own import SESSION


def read(connection: sa.Connection, source: str) -> list[str]:
    """Newest last; none in a target that was never applied to."""
    if not sa.inspect(connection).has_table(SESSION.name):
        return []
    text = connection.scalar(sa.select(SESSION.c.sessions).where(SESSION.c.source == source))
    return [] if text is None else list(orjson.loads(text))


def add(connection: sa.Connection, source: str, name: str, kept: int) -> list[str]:
    """Add a newest one and forget the oldest; those that are kept. Two appliers that begin at once
    follow each other.
    """
    lock(connection, source)
    names = [*read(connection, source), name][-kept:]
    _keep(connection, source, names)
    return names


def _keep(connection: sa.Connection, source: str, names: Sequence[str]) -> None:
    connection.execute(sa.delete(SESSION).where(SESSION.c.source == source))
    row = {"source": source, "sessions": orjson.dumps(list(names)).decode()}
    connection.execute(sa.insert(SESSION).values(row))
