"""What a table must be for its rows to be found through headwater_referee, and what cannot be had
with it; refused before anything is written.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from apply import referee
from apply.catalog import Catalog
from apply.own import REFEREE
from apply.placement import conflict_rules, has_referee, own_key
from apply.plan import Plan
from apply.server import Server
from apply.target import Placement
from schemas.errors import Operator
from schemas.finding import Finding
from schemas.table import Table

_NEXTVAL = re.compile(r"nextval\(", re.IGNORECASE)


def referee_problems(
    table: Table,
    known: Mapping[str, Table],
    placement: Placement,
    server: Server,
    target: sa.Table | None,
    at: str,
) -> Iterator[Finding]:
    """target: the table that is there, or None; at: where it lands."""
    if not has_referee(table, placement):
        return
    name, where = table.full_name, f'identity."{table.full_name}"'
    if placement.primary_keys == "copy":
        yield Finding(
            where=where,
            problem='is "referee", and primary_keys = "copy" keeps the source\'s keys',
            fix="leave out one of the two",
        )
    why = _unfit(table, placement)
    if why is not None:
        yield Finding(
            where=where,
            problem=f'is "referee", but {why}',
            fix=f'give the source identity = {{ "{name}" = "primary_key" }}, with a primary key of '
            'one whole number that references nothing, or leave out "referee"',
        )
        return
    if conflict_rules(table, placement) is not None:
        yield Finding(
            where=where,
            problem='is "referee", which cannot be had with conflicts of that table',
            fix="leave out one of them",
        )
    if target is not None:
        yield from _unfit_key(table, server, target, at)


def unpaired(
    connection: sa.Connection, catalog: Catalog, placement: Placement, table: Table, source: str
) -> Iterator[Finding]:
    """A warning where the target's table has rows, and no row of it was ever paired."""
    if not has_referee(table, placement) or not catalog.holds_rows(table):
        return
    mine = (REFEREE.c.source == source) & (REFEREE.c.table_name == table.full_name)
    ever = sa.select(REFEREE.c.sync_id).where(mine).limit(1)
    if not sa.inspect(connection).has_table(REFEREE.name) or connection.scalar(ever) is None:
        yield Finding(
            where=".".join(catalog.place(table.full_name)),
            problem="has rows, and none of them is paired with a row of the source: those that "
            "the source has, too, will come again",
            fix="headwater enrol SOURCE TARGET, or headwater referee assign TARGET "
            f"{table.full_name} --file …, before the first apply; without such rows: nothing",
            refused=False,
        )


def refuse_changed(
    connection: sa.Connection, plans: Iterable[Plan], placement: Placement, source: str
) -> None:
    """Refuse tables whose rows would be found in another way than they came: a source's key is
    somebody else's local key. Raises Operator.
    """
    has_pairs = sa.inspect(connection).has_table(REFEREE.name)
    for plan in plans:
        is_wanted = has_referee(plan.source, placement)
        if is_wanted and not (plan.is_refereed and has_pairs):
            raise Operator(
                f"cannot find rows of {plan.name} by a referee: the target is not prepared for it",
                hint="run: headwater prepare, which makes headwater_referee or says what is wrong",
            )
        if is_wanted or not has_pairs or plan.identity != plan.source.primary_key:
            continue
        pair = sa.select(REFEREE.c.sync_id).where(*referee.live(REFEREE, source, plan.name))
        if connection.scalar(pair.limit(1)) is not None:
            raise Operator(
                f"found pairs of {plan.name}, which has no referee any more: the source's keys are "
                "not the target's",
                hint=f'say identity = {{ "{plan.name}" = "referee" }} for the target again',
            )


def _unfit(table: Table, placement: Placement) -> str | None:
    if len(table.primary_key) != 1 or table.identity != table.primary_key:
        return "its rows are not identified by a primary key of one column"
    (key,) = table.primary_key
    kind = table.by_name[key].kind
    if kind.name != "int" or (kind.unsigned and kind.bits == 64):
        return f"its primary key is {'unsigned 64-bit' if kind.name == 'int' else kind.name}"
    if placement.primary_keys == "local" and own_key(table, placement) != key:
        return "its primary key is a reference"
    return None


def _unfit_key(table: Table, server: Server, target: sa.Table, at: str) -> Iterator[Finding]:
    (name,) = table.primary_key
    key = next(iter(target.primary_key.columns), None)
    if key is None or key.key != name or len(target.primary_key.columns) != 1:
        yield Finding(
            where=at,
            problem=f'has a primary key other than {name}, and its rows are found by "referee"',
            fix=f"let {name} be the primary key, of one column",
        )
        return
    if key.identity is not None and key.identity.always:
        fix = f"ALTER TABLE {at} ALTER COLUMN {key.name} SET GENERATED BY DEFAULT"
        yield Finding(where=f"{at}.{key.name}", problem="is GENERATED ALWAYS", fix=fix)
    is_drawn = server.generates(key)
    if not (server.is_mysql or server.is_sqlite):
        is_drawn = generator(key) is not None
    if not isinstance(key.type, sa.Integer) or not is_drawn:
        yield Finding(
            where=f"{at}.{key.name}",
            problem='is not a whole number that the target generates, as "referee" needs',
            fix="give it AUTO_INCREMENT, or a sequence (GENERATED BY DEFAULT AS IDENTITY)",
        )


def generator(column: sa.Column[Any]) -> str | None:
    """The SQL that draws a key of a PostgreSQL column; None where nothing is known to."""
    default = getattr(column.server_default, "arg", None)
    if default is not None and _NEXTVAL.match(str(default)):
        return str(default).replace("%", "%%")
    table: Any = column.table
    owned = [oid for name, oid, _, _ in table.info.get("sequences", ()) if name == column.name]
    return f"nextval(CAST({owned[0]} AS regclass))" if owned else None
