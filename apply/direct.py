"""Rows that the source inserted, copied straight into their table: half of the server's work.

Only where a row needs nothing but its own values, and where the target fills its table by COPY as
by INSERT (apply/server.DIRECT). Behind a savepoint: what is refused, mostly a replay, goes by way
of the staging table, which finds what is there and names what fails.
"""

import sqlalchemy as sa

from apply.fields import Lines
from apply.plan import NEW, Plan
from apply.server import DIRECT, Cause, Unstorable
from apply.staging import new_or_known
from apply.transaction import Job, Transaction


def direct(job: Job) -> Lines | None:
    """The job's rows as lines of the target's own columns, counted in the job; None: stage them."""
    plan, at = job.plan, job.folded.upserts
    if not _takes_lines(plan) or job.rows.partial:
        return None
    sets = new_or_known(job)
    if sets.count(NEW) < len(sets):
        return None
    try:
        data = plan.stager.lines(job.rows.values, at, None, sets)
    except ValueError:
        return None
    job.new, job.whole, job.has_partial = len(at), 0, False
    return Lines([taken.name for taken in plan.taken], data, len(at))


def _takes_lines(plan: Plan) -> bool:
    if plan.stager is None or not plan.is_guarded or not plan.target.info.get(DIRECT):
        return False
    if plan.is_refereed:
        return False
    return not any(link.translated or link.late for link in plan.links)


def copy(transaction: Transaction, job: Job, lines: Lines) -> bool:
    """Whether the target took every row; if not, nothing of it stands."""
    savepoint = transaction.connection.begin_nested()
    try:
        written = transaction.server.stage(transaction.connection, job.plan.target, lines)
    except Unstorable:
        written = 0
    except sa.exc.DBAPIError as error:
        cause = transaction.server.cause(error)
        if cause in (Cause.LOST, Cause.LOCKED):
            raise
        if cause not in (Cause.UNIQUE, Cause.FOREIGN, Cause.ROW):
            job.plan.target.info[DIRECT] = False
        written = 0
    # A trigger may have taken a row away.
    if written < lines.rows:
        savepoint.rollback()
        return False
    savepoint.commit()
    transaction.written += written
    return True
