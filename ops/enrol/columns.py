"""The id column: the steps by which a table gets it, while both databases are in use.

Each step is one short statement, or many short transactions; none locks a table for longer than the
server needs to change its catalog. Invariant: a step that is done is found done, so that a run that
was killed is simply run again. Who may not change a table gets the statements to hand on.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import sqlalchemy as sa

from apply.catalog import LONGEST_NAME
from apply.fit import family_of
from apply.own import ENROLLED, REFEREE, UNTOLD
from apply.server import Cause
from ops.enrol.side import Side
from ops.enrol.twin import Twin
from schemas.errors import Operator, SchemaConflict
from schemas.kinds import Kind
from schemas.table import Column

FILL_ROWS = 5_000
"""Rows of the key's order in one transaction that fills ids."""
DDL_WAIT_S = 10
"""So long a change of a table waits for transactions that use it; everybody else waits behind it.
"""

MINT = {"postgres": "gen_random_uuid()", "mysql": "(uuid())", "mariadb": "uuid()"}


class Step(NamedTuple):
    """sql: what it runs, or of a filling, what it runs again and again."""

    sql: str
    fills: bool = False


def vendor(side: Side) -> str:
    """Whose statements: "postgres", "mysql", "mariadb" or "sqlite"."""
    if side.server.is_sqlite:
        return "sqlite"
    if not side.server.is_mysql:
        return "postgres"
    return "mariadb" if getattr(side.server, "is_mariadb", False) else "mysql"


def source_steps(side: Side, twin: Twin) -> list[Step]:
    """What the source's table lacks: the column, a default, ids, a unique index, NOT NULL. Nothing
    where ids are derived.
    """
    if twin.table.is_derived:
        return []
    kind, table, quote = vendor(side), twin.source, side.server.engine.dialect.identifier_preparer
    at, name = quote.format_table(table), quote.quote(twin.sync)
    there = table.c.get(twin.sync)
    mint, steps = MINT[kind], []
    if there is None:
        steps.append(Step(f"ALTER TABLE {at} ADD COLUMN {name} {_minted_type(kind)} NULL"))
    elif family_of(there.type) not in ("uuid", "text"):
        if there.nullable:
            raise SchemaConflict(
                f"found {twin.name}.{twin.sync} of type {there.type}, for which enrol makes no ids",
                hint="fill it and make it NOT NULL by hand",
            )
        mint = ""
    elif kind == "postgres" and family_of(there.type) == "text":
        mint = "gen_random_uuid()::text"
    if mint and not _has_default(side, twin):
        steps.append(Step(f"ALTER TABLE {at} ALTER COLUMN {name} SET DEFAULT {mint}"))
    nullable = there is None or bool(there.nullable)
    if nullable:
        kept = "".join(f", {quote.quote(c)} = {quote.quote(c)}" for c in touched(side, twin))
        steps.append(Step(f"UPDATE {at} SET {name} = {mint}{kept} WHERE {name} IS NULL", True))
    steps += _index(side, twin)
    if nullable:
        steps += _not_null(side, twin, at, name)
    return steps


def target_steps(side: Side, twin: Twin) -> list[Step]:
    """What the target's table lacks: a column that may be null, and a unique index. No default:
    rows that are only there keep none, and are nobody's but the target's.
    """
    assert twin.target is not None
    quote = side.server.engine.dialect.identifier_preparer
    at, name = quote.format_table(twin.target), quote.quote(twin.sync)
    steps = []
    if twin.sync not in twin.target.c:
        column = twin.table.by_name.get(twin.sync) or Column(
            name=twin.sync, kind=_minted_kind(twin.table.family), nullable=True
        )
        kind = side.server.column_type(column, twin.table.family, key=True)
        steps.append(Step(f"ALTER TABLE {at} ADD COLUMN {name} {kind} NULL"))
    return steps + _index(side, twin)


def run(side: Side, twin: Twin, steps: Sequence[Step], said: Callable[[str], None]) -> None:
    """Do these steps; returns when every one is done and durable."""
    for step in steps:
        said(step.sql)
        if step.fills:
            _fill(side, twin, step.sql)
            continue
        with side.connected(autocommit=True) as connection:
            if side.server.is_mysql:
                connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {DDL_WAIT_S}")
            elif " CONCURRENTLY " in step.sql:
                # It waits for every older transaction, and nobody waits for it.
                connection.exec_driver_sql("SET lock_timeout = 0")
            try:
                connection.exec_driver_sql(step.sql)
            except sa.exc.DBAPIError as error:
                raise _refused(side, twin, step, error) from error
            connection.commit()


def _refused(side: Side, twin: Twin, step: Step, error: sa.exc.DBAPIError) -> Exception:
    """What a server says to a statement; what passes by itself stays as it is (Side.mapped)."""
    cause, why = side.server.cause(error), side.server.explain(error)
    if cause is Cause.UNIQUE:
        return Operator(
            f"found rows of {twin.name} in the {side.role} that have one {twin.sync}",
            hint=f"give each of them its own, or NULL, then run it again: SELECT {twin.sync}, "
            f"count(*) FROM {twin.name} GROUP BY 1 HAVING count(*) > 1",
        )
    if cause is not Cause.UNKNOWN:
        return error
    sql = step.sql.replace("%%", "%")
    return Operator(
        f"could not run in the {side.role} {side.name}, {why}: {sql}",
        hint="run it by hand in the way that this server allows, then run enrol again",
    )


def make_records(side: Side) -> None:
    """The tables of assignments and of pairs, where they are not there yet."""
    with side.connected() as connection:
        for table in (ENROLLED, REFEREE, UNTOLD):
            table.create(connection, checkfirst=True)
        connection.commit()


def _fill(side: Side, twin: Twin, sql: str) -> None:
    """Give ids to the rows without one, some thousand rows of the key's order in a transaction."""
    key = list(twin.side(side.role).primary_key.columns)
    with side.connected() as connection:
        for low, high in _ranges(connection, key):
            where = sa.and_(sa.true(), *(c for c in (low, high) if c is not None))
            text = where.compile(
                dialect=side.server.engine.dialect, compile_kwargs={"render_postcompile": True}
            )
            connection.exec_driver_sql(f"{sql} AND {text}", _parameters(text))
            connection.commit()


def _parameters(text: Any) -> Any:
    return text.params if not text.positional else tuple(text.params[n] for n in text.positiontup)


def _ranges(connection: sa.Connection, key: Sequence[sa.Column[Any]]) -> Iterator[tuple[Any, Any]]:
    """Conditions that cut the table into ranges of its key, each with its lower and upper one."""
    low = None
    while True:
        next_ = sa.select(*key).order_by(*key).offset(FILL_ROWS - 1).limit(1)
        last = connection.execute(next_ if low is None else next_.where(low)).one_or_none()
        if last is None:
            yield low, None
            return
        yield low, sa.not_(_after(key, last))
        low = _after(key, last)


def _after(key: Sequence[sa.Column[Any]], values: Sequence[Any]) -> sa.ColumnElement[bool]:
    """`key > values`, by its first column's index also where there are several."""
    column, value = key[0], values[0]
    above: sa.ColumnElement[bool] = column > value
    if len(key) == 1:
        return above
    rest: sa.ColumnElement[bool] = sa.and_(column == value, _after(key[1:], values[1:]))
    return sa.and_(column >= value, sa.or_(above, rest))


def _minted_type(kind: str) -> str:
    if kind == "mysql":
        return "char(36) CHARACTER SET ascii COLLATE ascii_bin"
    return "uuid"


def _minted_kind(family: str) -> Kind:
    return Kind(name="text", length=36) if family == "mysql" else Kind(name="uuid")


def _index(side: Side, twin: Twin) -> list[Step]:
    """A unique index on the id alone; PostgreSQL's half-made ones are removed first."""
    table, steps = twin.side(side.role), []
    quote = side.server.engine.dialect.identifier_preparer
    name, at = quote.quote(twin.sync), quote.format_table(table)
    if twin.sync in table.c:
        if _is_unique(side, table, twin.sync):
            return []
        schema = f"{quote.quote(table.schema)}." if table.schema else ""
        steps = [
            Step(f"DROP INDEX CONCURRENTLY {schema}{quote.quote(half)}")
            for half in _half_made(side, table, twin.sync)
        ]
    index = f"{table.name}_{twin.sync}_key"
    if len(index) >= LONGEST_NAME:
        index = f"{index[:50]}_{sha256(index.encode()).hexdigest()[:8]}"
    how = " CONCURRENTLY" if vendor(side) == "postgres" else ""
    online = " ALGORITHM = INPLACE LOCK = NONE" if side.server.is_mysql else ""
    if side.server.is_sqlite:
        at = quote.quote(table.name)
    made = f"CREATE UNIQUE INDEX{how} {quote.quote(index)} ON {at} ({name}){online}"
    return [*steps, Step(made)]


def _half_made(side: Side, table: sa.Table, column: str) -> list[str]:
    """Indexes of the column that a killed CREATE INDEX CONCURRENTLY has left."""
    if vendor(side) != "postgres":
        return []
    with side.connected() as connection:
        found = connection.execute(
            sa.text(
                "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
                "WHERE i.indrelid = CAST(:at AS regclass) AND i.indisunique AND NOT i.indisvalid "
                "AND i.indnkeyatts = 1 AND a.attname = :name"
            ),
            {"at": _regclass(side, table), "name": column},
        )
        return list(found.scalars())


def _is_unique(side: Side, table: sa.Table, column: str) -> bool:
    with side.connected() as connection:
        if vendor(side) == "postgres":
            found = connection.scalar(
                sa.text(
                    "SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
                    " AND a.attnum = i.indkey[0] WHERE i.indrelid = CAST(:at AS regclass)"
                    " AND i.indisunique AND i.indisvalid AND i.indpred IS NULL"
                    " AND i.indnkeyatts = 1 AND a.attname = :name"
                ),
                {"at": _regclass(side, table), "name": column},
            )
            return bool(found)
        inspector = sa.inspect(connection)
        found_ = inspector.get_indexes(
            table.name, table.schema, **({"include_auto_indexes": True} if
                                         side.server.is_sqlite else {})
        )  # fmt: skip
        uniques = [i["column_names"] for i in found_ if i["unique"]]
        return [column] in [*uniques, inspector.get_pk_constraint(table.name, table.schema)[
            "constrained_columns"]]  # fmt: skip


def _regclass(side: Side, table: sa.Table) -> str:
    text = side.server.engine.dialect.identifier_preparer.format_table(table)
    return str(text).replace("%%", "%")


def _has_default(side: Side, twin: Twin) -> bool:
    if twin.sync not in twin.source.c:
        return False
    if not side.server.is_mysql:
        return twin.source.c[twin.sync].server_default is not None
    given = "column_name = :sync AND column_default IS NOT NULL AND column_default <> 'NULL'"
    return bool(_of_catalog(side, twin, given))


def touched(side: Side, twin: Twin) -> list[str]:
    """Columns that MySQL and MariaDB would change by themselves with any update of their row: set
    to themselves, they stay.
    """
    return _of_catalog(side, twin, "extra LIKE '%on update%'") if side.server.is_mysql else []


def _of_catalog(side: Side, twin: Twin, condition: str, what: str = "column_name") -> list[str]:
    table = twin.side(side.role)
    with side.connected() as connection:
        found = connection.execute(
            sa.text(
                f"SELECT {what} FROM information_schema.columns WHERE table_schema = :schema "
                f"AND table_name = :name AND {condition}"
            ),
            {"schema": table.schema, "name": table.name, "sync": twin.sync},
        )
        return list(found.scalars())


def _not_null(side: Side, twin: Twin, at: str, name: str) -> list[Step]:
    kind = vendor(side)
    if kind == "postgres":
        # SET NOT NULL alone would read the table under a lock; with a valid check it does not.
        check = f'"{twin.sync[:40]}_is_set"'
        return [
            Step(f"ALTER TABLE {at} DROP CONSTRAINT IF EXISTS {check}"),
            Step(f"ALTER TABLE {at} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID"),
            Step(f"ALTER TABLE {at} VALIDATE CONSTRAINT {check}"),
            Step(f"ALTER TABLE {at} ALTER COLUMN {name} SET NOT NULL"),
            Step(f"ALTER TABLE {at} DROP CONSTRAINT {check}"),
        ]
    given = _minted_type(kind)
    if twin.sync in twin.source.c:
        (given,) = _of_catalog(
            side,
            twin,
            "column_name = :sync",
            "concat(column_type, if(collation_name is null, '', concat(' CHARACTER SET ', "
            "character_set_name, ' COLLATE ', collation_name)))",
        )
    return [
        Step(
            f"ALTER TABLE {at} MODIFY COLUMN {name} {given} NOT NULL DEFAULT {MINT[kind]},"
            " ALGORITHM = INPLACE, LOCK = NONE"
        )
    ]
