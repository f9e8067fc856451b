"""The rows of a job that count, as lines of its staging table: from wire bytes to COPY's text form.

Column by column in Python, or in one call where the compiled part is there (native/src/stage.rs):
the same bytes. What that one does not take (partial rows, values that need judging) it leaves to
Python, which then says what is wrong.
"""

from collections.abc import Sequence
from typing import Any

from apply import fields
from apply.plan import NEW, ORDINAL, SET
from apply.transaction import Job, Transaction
from schemas.codec import after_of
from schemas.errors import Poison


def staged(transaction: Transaction, job: Job) -> fields.Lines:
    """The lines of the job's upserts; counts them in `job`. Raises Poison for a row without
    identity, or with a value that cannot be sent.
    """
    rows, merged, upserts = job.rows, job.folded.merged, job.folded.upserts
    ordinals, sets = [rows.ordinals[i] for i in upserts], _new(job)
    images = [merged.get(i) or after_of(rows.values[i]) for i in upserts]
    _refuse_nameless(transaction, job, images)
    if rows.partial:
        names = job.plan.by_name.keys()
        found = [job.plan.set_of(frozenset(names & image.keys())) for image in images]
        job.has_partial = any(found)
        sets = [number or new for number, new in zip(found, sets, strict=True)]
    job.new, job.whole = sets.count(NEW), sets.count(0)
    columns = {ORDINAL: fields.plain(ordinals), SET: fields.plain(sets)}
    for taken in job.plan.taken:
        values = [image.get(taken.name) for image in images]
        link = job.plan.translated.get(taken.name)
        if link is not None:
            keys = [None if v is None else str(v) for v in values]
            columns[link.source_key] = fields.text(keys)
            continue
        try:
            columns[taken.name] = taken.fields(values)
        except fields.Unsendable as error:
            raise transaction.unfit(job.plan, taken.name, ordinals[error.row]) from error
    return fields.lines(columns)


def _new(job: Job) -> list[int]:
    """For each upsert NEW or 0: whether the source inserted the row."""
    ops, keys, first = job.rows.ops, job.rows.keys, job.folded.first
    if len(first) == len(keys):
        return [NEW if ops[i] in "cr" else 0 for i in job.folded.upserts]
    return [NEW if ops[first[keys[i]]] in "cr" else 0 for i in job.folded.upserts]


def _refuse_nameless(transaction: Transaction, job: Job, images: Sequence[dict[str, Any]]) -> None:
    for name in job.plan.identity:
        values = [image.get(name) for image in images]
        if None in values:
            ordinal = job.rows.ordinals[job.folded.upserts[values.index(None)]]
            raise Poison(
                f"cannot find a row of {job.plan.name} whose {name} is NULL "
                f"{transaction.at(ordinal)}",
                hint=f"fill {name} in the source and make it NOT NULL",
            )
