"""Local keys for the staged rows of a table with a referee: those of their pairs, and new ones for
rows that have none, with new pairs.

The keys are drawn before the rows are written, so that updating, inserting, halving and parking are
the same as for any other table. A row that then has to wait keeps its pair.
"""

from uuid import uuid4

import sqlalchemy as sa

from apply import fields
from apply.drawing import draw
from apply.own import REFEREE, name_type
from apply.plan import ORDINAL, SET, SOURCE_KEY, Plan
from apply.shared import Mine
from apply.transaction import Job, Transaction
from schemas.errors import Operator
from schemas.faults import reach

DRAWN = sa.Table(
    "headwater_drawn",
    sa.MetaData(),
    # A key: MariaDB joins without an index by comparing all with all.
    sa.Column(ORDINAL, sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("local_key", sa.BigInteger),
    sa.Column("sync_id", name_type(36)),
    prefixes=["TEMPORARY"],
)
"""Staging of new keys, by the staged row's ordinal."""


def name_rows(transaction: Transaction, job: Job) -> None:
    """Give every staged whole row the local key of its pair, or a new one and a pair. Partial rows
    without a pair stay without key: the target lacks them.
    """
    plan = job.plan
    if not plan.is_refereed:
        return
    stage = plan.stage
    transaction.referee.find(plan, stage)
    nameless = sa.select(stage.c[ORDINAL]).where(stage.c[str(plan.own_key)].is_(None))
    new = transaction.ordinals(nameless.where(stage.c[SET] <= 0).order_by(stage.c[ORDINAL]))
    if new:
        _stage(transaction, new, draw(transaction, job, new))
        _refuse_used(transaction, plan)
        _reserve(transaction, job)
        _pair(transaction, job)


def _stage(transaction: Transaction, ordinals: list[int], keys: list[int]) -> None:
    columns = {
        ORDINAL: fields.plain(ordinals),
        "local_key": fields.plain(keys),
        "sync_id": [str(uuid4()) for _ in keys],
    }
    transaction.session.ready(DRAWN)
    transaction.session.put(DRAWN, fields.lines(columns))


def _refuse_used(transaction: Transaction, plan: Plan) -> None:
    """A new key that a row has already: by its key, somebody else's row would be updated."""
    key = plan.target.c[str(plan.own_key)]
    used = sa.select(key).join(DRAWN, DRAWN.c.local_key == key).limit(1)
    if transaction.connection.scalar(used) is not None:
        raise Operator(
            f"found rows of {plan.name} in the target with keys that its generator gives only now",
            hint=f"set the generator of {plan.target.fullname}.{key.name} past the greatest key "
            "(PostgreSQL: SELECT setval('its sequence', …)), then start again",
        )


def _reserve(transaction: Transaction, job: Job) -> None:
    """Map the new rows in the shared referee, where there is one."""
    shared, stage, rows = transaction.referee.shared, job.plan.stage, job.rows
    if shared is None:
        return
    columns = stage.c[ORDINAL], stage.c[SOURCE_KEY], DRAWN.c.local_key, DRAWN.c.sync_id
    same = DRAWN.c[ORDINAL] == stage.c[ORDINAL]
    keys = dict(zip(rows.ordinals, rows.keys, strict=True))
    # Of a key that was given to several rows, the last one counts.
    made = {
        k: at for k, op, at in zip(rows.keys, rows.ops, rows.ordinals, strict=True) if op == "c"
    }
    wanted = []
    for ordinal, source_key, local_key, pair in transaction.connection.execute(
        sa.select(*columns).select_from(stage.join(DRAWN, same))
    ):
        made_at = made.get(keys[ordinal])
        at = transaction.parking.place(job.batch, ordinal if made_at is None else made_at)
        is_new = made_at is not None
        wanted.append(Mine(pair, job.plan.name, int(source_key), int(local_key), at, is_new))
    shared.reserve(wanted)
    reach("after-reserve")


def _pair(transaction: Transaction, job: Job) -> None:
    plan, stage = job.plan, job.plan.stage
    own, same = stage.c[str(plan.own_key)], DRAWN.c[ORDINAL] == stage.c[ORDINAL]
    named = sa.update(stage).values({own: DRAWN.c.local_key})
    transaction.run(named.where(same))
    pairs = {
        "sync_id": DRAWN.c.sync_id,
        "source": sa.literal(plan.source_name),
        "table_name": sa.literal(plan.name),
        "source_key": stage.c[SOURCE_KEY],
        "local_key": DRAWN.c.local_key,
        "live": sa.literal(1, sa.SmallInteger),
        "since_batch": sa.literal(job.batch, sa.BigInteger),
    }
    rows = sa.select(*pairs.values()).select_from(stage.join(DRAWN, same))
    added = transaction.run(sa.insert(REFEREE).from_select(list(pairs), rows))
    transaction.session.added(REFEREE, added)
    transaction.referee.note(sa.select(DRAWN.c.sync_id))
