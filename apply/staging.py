"""The rows of a job that count, as lines of its staging table: from wire bytes to COPY's text form.

Column by column in Python, or in one call where the compiled part is there (native/src/stage.rs):
the same bytes. What that one does not take (partial rows, values that need judging) it leaves to
Python, which then says what is wrong.
"""

from collections.abc import Sequence
from typing import Any

from apply import fields
from apply.plan import NEW
from apply.refused import Refused
from apply.transaction import Job, Transaction
from schemas.codec import after_of


def staged(transaction: Transaction, job: Job) -> fields.Lines:
    """The lines of the job's upserts; counts them in `job`. Raises Refused for a row without
    identity, or with a value that cannot be sent.
    """
    lines, sets = _lines(transaction, job)
    if transaction.identities.recall():
        # With what was just looked up.
        lines, sets = _lines(transaction, job)
        transaction.session.known.missed()
    job.new, job.whole, job.has_partial = sets.count(NEW), sets.count(0), max(sets) > 0
    return lines


def _lines(transaction: Transaction, job: Job) -> tuple[fields.Lines, list[int]]:
    sets = new_or_known(job)
    lines = None if job.rows.partial else _in_one_call(transaction, job, sets)
    return (lines, sets) if lines is not None else _by_columns(transaction, job, sets)


def _in_one_call(transaction: Transaction, job: Job, sets: list[int]) -> fields.Lines | None:
    plan, rows, upserts = job.plan, job.rows, job.folded.upserts
    if plan.stager is None:
        return None
    ordinals = [rows.ordinals[i] for i in upserts]
    known = transaction.identities.memory(job.batch)
    tables = [transaction.session.number(link.parent_name) for link in plan.remembered]
    try:
        data = plan.stager.lines(rows.values, upserts, ordinals, sets, known, tables)
    except ValueError:
        return None
    return fields.Lines(plan.staged_names, data, len(upserts))


def _by_columns(
    transaction: Transaction, job: Job, sets: list[int]
) -> tuple[fields.Lines, list[int]]:
    rows, plan, upserts = job.rows, job.plan, job.folded.upserts
    merged, ordinals = job.folded.merged, [rows.ordinals[i] for i in upserts]
    images = [merged.get(i) or after_of(rows.values[i]) for i in upserts]
    _refuse_nameless(transaction, job, images)
    if rows.partial:
        names = plan.by_name.keys()
        found = [plan.set_of(frozenset(names & image.keys())) for image in images]
        sets = [number or new for number, new in zip(found, sets, strict=True)]
    columns = [fields.plain(ordinals), fields.plain(sets)]
    for taken in plan.taken:
        values = [image.get(taken.name) for image in images]
        if taken.name in plan.translated:
            keys = [None if v is None else str(v) for v in values]
            columns.append(fields.text(keys))
            columns += _identities(transaction, job, taken.name, keys, ordinals)
            continue
        try:
            columns.append(taken.fields(values))
        except fields.Unsendable as error:
            raise transaction.unfit(job, taken.name, upserts[error.row]) from error
    return fields.lines(dict(zip(plan.staged_names, columns, strict=True))), sets


def _identities(
    transaction: Transaction, job: Job, name: str, keys: list[str | None], ordinals: list[int]
) -> list[list[str]]:
    link = job.plan.translated[name]
    if link.named is None:
        return []
    known = transaction.identities.memory(job.batch)
    number = transaction.session.number(link.parent_name)
    found = [None] * len(keys) if known is None else known.find(number, keys, ordinals)
    return [link.named(found)]


def new_or_known(job: Job) -> list[int]:
    """For each upsert NEW or 0: whether the source inserted the row."""
    ops, keys, first = job.rows.ops, job.rows.keys, job.folded.first
    if len(first) == len(keys):
        return [NEW if ops[i] in "cr" else 0 for i in job.folded.upserts]
    return [NEW if ops[first[keys[i]]] in "cr" else 0 for i in job.folded.upserts]


def _refuse_nameless(transaction: Transaction, job: Job, images: Sequence[dict[str, Any]]) -> None:
    for name in job.plan.identity:
        upserts = job.folded.upserts
        nameless = [i for i, image in zip(upserts, images, strict=True) if image.get(name) is None]
        if nameless:
            raise Refused(
                f"cannot find a row of {job.plan.name} whose {name} is NULL",
                transaction.at(job.rows.ordinals[nameless[0]], job.batch),
                hint=f"fill {name} in the source and make it NOT NULL",
                rows=job.refusals(nameless, "value"),
            )
