"""Which rows of a statement fail: ranges of ordinals, halved until single rows are left."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from apply.server import Cause
from apply.transaction import Transaction

ROWS = (Cause.UNIQUE, Cause.FOREIGN, Cause.ROW)
"""Failures that are some row's."""


def halve(
    transaction: Transaction, ordinals: Sequence[int], write: Callable[[int, int], int]
) -> tuple[int, dict[int, sa.exc.DBAPIError]]:
    """Write rows in order: how many were written, and by ordinal why the others could not be.

    ordinals: ascending. write: writes the rows from one ordinal to another; how many. What was
    written stands, and each row was tried after all before it.
    """
    written, failed = 0, {}
    ranges = [(0, len(ordinals))] if ordinals else []
    while ranges:
        low, high = ranges.pop()
        savepoint = transaction.connection.begin_nested()
        try:
            written += write(ordinals[low], ordinals[high - 1])
            savepoint.commit()
        except sa.exc.DBAPIError as error:
            if transaction.server.cause(error) not in ROWS:
                raise
            savepoint.rollback()
            middle = (low + high) // 2
            if middle == low:
                failed[ordinals[low]] = error
            else:
                ranges += [(middle, high), (low, middle)]
    return written, failed
