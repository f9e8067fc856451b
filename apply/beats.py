"""Beats of a source (schemas/beat.py) that came into a target with a dump; read and removed, never
written here.
"""

from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from apply.catalog import Catalog
from schemas.beat import BEATS, Beat
from schemas.change import Position


def _table(name: str, schema: str) -> sa.Table:
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("source", sa.Text),
        sa.Column("dumped", sa.Text),
        sa.Column("position", sa.Text),
        sa.Column("noted_at", sa.BigInteger),
        schema=schema or None,
    )


def newest(
    connection: sa.Connection, catalog: Catalog, source: str, schemas: Iterable[str]
) -> dict[str, Beat | None]:
    """By source schema: the newest beat that was dumped with it; None where there is none."""
    found: dict[str, Beat | None] = dict.fromkeys(schemas)
    for schema in found:
        for table in _there(connection, catalog, [schema]):
            mine = (table.c.source == source) & (table.c.dumped == schema)
            row = connection.execute(
                sa.select(table).where(mine).order_by(table.c.number.desc()).limit(1)
            ).one_or_none()
            if row is not None:
                at = Position(row.position)
                found[schema] = Beat(number=row.number, position=at, noted_at=row.noted_at)
    return found


def removal(
    connection: sa.Connection, catalog: Catalog, source: str, schemas: Iterable[str]
) -> list[sa.Executable]:
    """What takes this source's beats away: the tables, or rows where others' stand there too."""
    statements: list[sa.Executable] = []
    for table in _there(connection, catalog, schemas):
        others = sa.select(table.c.number).where(table.c.source != source).limit(1)
        if connection.scalar(others) is None:
            statements.append(sa.schema.DropTable(table))
        else:
            statements.append(sa.delete(table).where(table.c.source == source))
    return statements


def _there(
    connection: sa.Connection, catalog: Catalog, schemas: Iterable[str]
) -> Iterator[sa.Table]:
    """The tables of beats that the target has, where these source schemas land."""
    places = dict.fromkeys(catalog.place(f"{schema}.{BEATS}") for schema in schemas)
    for schema, name in places:
        if sa.inspect(connection).has_table(name, schema=schema or None):
            yield _table(name, schema)
