"""New keys out of a table's own generator, for rows that are yet to be written: nobody else gets
them, whether this transaction commits or not.

PostgreSQL: nextval. SQLite: past the greatest one, as only one transaction writes. MySQL and
MariaDB have no call for it, and a key that is only guessed may be one that another session has just
been given. So one row is inserted with a step of the session's own (auto_increment_increment), as
wide as all the keys that are needed, and taken back: the step is reserved, whatever
innodb_autoinc_lock_mode is, and what was generated is not given again after a rollback
(https://dev.mysql.com/doc/refman/8.4/en/innodb-auto-increment-handling.html, "Lost auto-increment
values"; ha_innobase::get_auto_increment moves the table's counter by need times step). The manual
does not promise the step, so each time a second row proves that the counter stands behind it: tried
on MySQL 9.7 and MariaDB 10.11, by the same session and by others, 100 times of 100. Where the
server has a step already (Galera, group replication), it is kept between the keys.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from apply.halving import ROWS
from apply.own import REFEREE
from apply.plan import ORDINAL
from apply.referee_fit import generator
from apply.refused import Refused
from apply.server import Cause
from apply.sql import counted
from apply.transaction import Job, Transaction
from schemas.errors import Operator

WIDEST = 65_535
"""The greatest auto_increment_increment."""


def draw(transaction: Transaction, job: Job, ordinals: Sequence[int]) -> list[int]:
    """As many keys as there are ordinals of staged rows, ascending. Raises Refused where MySQL or
    MariaDB take none of these rows, so that there is no key to be had.
    """
    if transaction.server.is_mysql:
        return _stepped(transaction, job, ordinals)
    table, own = job.plan.target, str(job.plan.own_key)
    if transaction.server.is_sqlite:
        return _next(transaction, table, own, len(ordinals))
    drawn = f"SELECT {generator(table.c[own])} FROM generate_series(1, {len(ordinals)})"
    return sorted(transaction.connection.exec_driver_sql(drawn).scalars())


def _next(transaction: Transaction, table: sa.Table, own: str, count: int) -> list[int]:
    connection = transaction.connection
    greatest = [sa.select(sa.func.max(table.c[own])), sa.select(sa.func.max(REFEREE.c.local_key))]
    if sa.inspect(connection).has_table("sqlite_sequence"):
        sequences = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))
        greatest.append(sa.select(sequences.c.seq).where(sequences.c.name == table.name))
    first = max(connection.scalar(each) or 0 for each in greatest) + 1
    return list(range(first, first + count))


def _stepped(transaction: Transaction, job: Job, ordinals: Sequence[int]) -> list[int]:
    connection = transaction.connection
    step = int(connection.exec_driver_sql("SELECT @@auto_increment_increment").scalar_one())
    keys: list[int] = []
    while len(keys) < len(ordinals):
        wide = min(len(ordinals) - len(keys), WIDEST // step) * step
        # Whatever goes wrong ends the connection, and these settings with it.
        connection.exec_driver_sql(
            f"SET SESSION auto_increment_increment = {wide}, foreign_key_checks = 0"
        )
        first = _reserved(transaction, job, ordinals)
        connection.exec_driver_sql(f"SET SESSION auto_increment_increment = {step}")
        if wide > step and _reserved(transaction, job, ordinals) < first + wide:
            raise Operator(
                f"found a server that gives keys of {job.plan.name} twice: it does not reserve a "
                "session's auto_increment_increment",
                hint="say what server and version it is in a report; give the table a sync_id",
            )
        connection.exec_driver_sql("SET SESSION foreign_key_checks = 1")
        keys += range(first, first + wide, step)
    return keys


def _reserved(transaction: Transaction, job: Job, ordinals: Sequence[int]) -> int:
    """The key of the first of these rows that the table takes; nothing of it stands."""
    insert, failed = _one(transaction, job), None
    for ordinal in ordinals:
        savepoint = transaction.connection.begin_nested()
        try:
            transaction.run(insert, ordinal=ordinal)
            key = transaction.connection.exec_driver_sql("SELECT LAST_INSERT_ID()").scalar_one()
            savepoint.rollback()
            return int(key)
        except sa.exc.DBAPIError as error:
            if transaction.server.cause(error) not in ROWS:
                raise
            savepoint.rollback()
            failed = failed or error
    assert failed is not None, "there are ordinals"
    is_unique = transaction.server.cause(failed) is Cause.UNIQUE
    rows = job.refusals(job.at(ordinals), "unique" if is_unique else "value")
    raise Refused(
        f"cannot write a row of {job.plan.name}: {transaction.server.explain(failed)}",
        transaction.at(ordinals[0], job.batch),
        hint="a constraint or trigger of the target refuses it: mend the target, or the row",
        rows=rows,
    )


def _one(transaction: Transaction, job: Job) -> sa.Insert:
    """Insert the staged row `ordinal` without key and references, out of every unique key's way."""
    plan, stage = job.plan, job.plan.stage
    late = {link.column for link in plan.links if link.late}
    values: dict[str, Any] = {
        t.name: stage.c[t.name] for t in plan.taken if t.name not in {plan.own_key, *late}
    }
    for link in plan.translated.values():
        if link.column in values and not link.nullable:
            values[link.column] = sa.literal("0" if link.steps else 0)
    for names in plan.uniques:
        spare = job.sql.spare(names)
        if spare is not None:
            column, make = spare
            values[column.key] = make(counted(stage.c[ORDINAL]))
    row = sa.select(*values.values()).where(stage.c[ORDINAL] == sa.bindparam("ordinal"))
    return sa.insert(plan.target).from_select(list(values), row)
