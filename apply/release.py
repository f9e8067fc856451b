"""Which parked changes can be applied now: looked up for all of a kind at once, nothing is tried.

What they wait for may have come with the batch that is being written; a change that is ready and
fails all the same stays parked.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import sqlalchemy as sa

from apply.cascade import carried, kept_back, levels, may_go
from apply.fold import fold
from apply.look_up import look_up
from apply.parked import Parked
from apply.plan import ORDINAL, Link
from apply.queue import as_rows, image_of
from apply.staging import staged
from apply.transaction import Job, Transaction
from schemas.change import Rows


def ready(transaction: Transaction) -> Iterator[Parked]:
    """Parked changes whose parent has come, whose unique values are free, or whose children are
    gone, among those of tables that this batch wrote to.
    """
    yield from _parents_here(transaction, transaction.parking.candidates("parent"))
    yield from _free(transaction, transaction.parking.candidates("unique"))
    yield from _left_alone(transaction, transaction.parking.candidates("referenced"))


def _parents_here(transaction: Transaction, changes: Sequence[Parked]) -> Iterator[Parked]:
    by_parent = sorted(changes, key=_pair)
    for (name, parent), group in groupby(by_parent, key=_pair):
        waiting = list(group)
        links = [k for k in transaction.plan(name).links if k.parent_name == parent]
        # Those that a later change sent elsewhere.
        yield from (c for c in waiting if c.waits_key not in _referenced(transaction, c, links))
        for link in links:
            keys = sorted({str(change.waits_key) for change in waiting})
            known = transaction.identities.known(link, keys)
            yield from (change for change in waiting if change.waits_key in known)


def _referenced(transaction: Transaction, change: Parked, links: Sequence[Link]) -> set[str]:
    image = image_of(transaction.parking.queue(change.row)) or {}
    return {key for link in links for key in link.keys_in(image)}


def _left_alone(transaction: Transaction, changes: Sequence[Parked]) -> Iterator[Parked]:
    """The deletes of rows that nothing references any more but what goes with them."""
    by_table = sorted(changes, key=lambda change: change.table_name)
    for name, group in groupby(by_table, key=lambda change: change.table_name):
        plan, waiting = transaction.plan(name), list(group)
        keys = [change.row_key.encode() for change in waiting]
        transaction.put_keys(plan, keys, range(len(keys)))
        going = {
            (child.target.fullname, link.column): child
            for child, link in carried(transaction, plan)
        }
        transaction.run(transaction.sql(plan).hold_referenced(going))
        held = set(transaction.ordinals(transaction.sql(plan).held(plan.keys)))
        held.update(kept_back(transaction, levels(transaction, plan, keys)))
        free = ((change, keys[i]) for i, change in enumerate(waiting) if i not in held)
        yield from (change for change, key in free if may_go(transaction, plan, key))


def _pair(change: Parked) -> tuple[str, str]:
    return change.table_name, change.waits_table or ""


def _free(transaction: Transaction, changes: Sequence[Parked]) -> Iterator[Parked]:
    queues = [transaction.parking.queue(change.row) for change in changes]
    for batch, runs in as_rows(queues):
        for rows in runs:
            taken = _taken(transaction, rows, batch)
            free = {
                key for key, at in zip(rows.keys, rows.ordinals, strict=True) if at not in taken
            }
            yield from (
                c
                for c in changes
                if c.table_name == rows.table.full_name and c.row_key.encode() in free
            )


def _taken(transaction: Transaction, rows: Rows, batch: int) -> set[int]:
    """The ordinals of the rows with a unique value that another row of the target has."""
    plan = transaction.plan(rows.table.full_name, rows.table.fingerprint)
    job = Job(
        plan=plan,
        sql=transaction.sql(plan),
        rows=rows,
        folded=fold(rows),
        deletes=[],
        batch=batch,
    )
    if not job.folded.upserts:
        return set()
    lines = staged(transaction, job)
    transaction.session.ready(plan.stage)
    transaction.put(job, plan.stage, job.folded.upserts, lines)
    transaction.referee.find(plan, plan.stage)
    named = {name for names in plan.uniques for name in names}
    for as_of_end in (False, True):
        for link in (k for k in plan.links if k.translated and k.column in named):
            look_up(transaction, plan, link, batch, as_of_end=as_of_end)
    found: set[int] = set()
    for names in plan.uniques:
        same = [plan.target.c[n] == plan.stage.c[n] for n in names]
        other = [plan.target.c[n].is_distinct_from(plan.stage.c[n]) for n in plan.identity]
        taken = sa.select(plan.stage.c[ORDINAL]).where(*same, sa.or_(*other))
        found.update(transaction.ordinals(taken))
    return found
