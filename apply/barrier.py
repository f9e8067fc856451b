"""A check in the stream: rows as the source had them at a place, compared with the target's rows
when the target stands at exactly that place. No lag has to be waited out, and none is forgiven.

The rows come as a copy's do, in chunks at their high marks, less those that the stream touched; at
its end, what the target has besides is counted. A row with parked changes differs, unseen. Nothing
but the result is written.
"""

from apply.checked import Results
from apply.merge import among, differing
from apply.sweep import Sweeps
from apply.transaction import Transaction
from schemas.change import Batch


def compare(transaction: Transaction, batch: Batch, _waiting: set[str], sweeps: Sweeps) -> int:
    """Compare a check's rows; no row is written. A target that did not read the check's beginning
    compares nothing. Raises Unplanned for a description without a plan.
    """
    sweeps.begin(batch.sweeps)
    for block in batch.blocks():
        for rows in block:
            plan = transaction.plan(rows.table.full_name, rows.table.fingerprint)
            keeps = plan.view is not None and plan.view.on_leave != "delete"
            sweeps.note(plan, rows.keys if keeps else transaction.keys_here(plan, rows))
    names = {rows.table.full_name for block in batch.blocks() for rows in block}
    if names & sweeps.active:
        results = Results(transaction.connection, transaction.source, batch.position)
        different, parking = differing(transaction, batch), transaction.parking
        for block in batch.blocks():
            for rows in block:
                plan = transaction.plan(rows.table.full_name, rows.table.fingerprint)
                here = transaction.keys_here(plan, rows)
                parked = set(here) - set(parking.unparked(rows).keys)
                wrong = [key.decode() for key in [*among(different)(rows).keys, *sorted(parked)]]
                results.differ(plan.name, len(here), wrong)
    sweeps.end(batch.sweeps)
    return 0
