"""Columns that were renamed: the log shows the new name and none of the rows that were not changed
since, so that in a target they are NULL under it.

No statement is read: a description in which a column has gone and another has come says it, and may
as well mean that one was dropped and another added; a warning says which.
"""

from collections.abc import Iterable, Mapping

import structlog

log = structlog.get_logger()


class Renames:
    """The columns that each table had last; known: full name -> columns, at the stream's start."""

    def __init__(self, known: Mapping[str, Iterable[str]]) -> None:
        self._columns = {table: frozenset(columns) for table, columns in known.items()}

    def described(self, table: str, columns: Iterable[str]) -> None:
        """Compare with the table's columns before, and warn of what looks like a rename."""
        now = frozenset(columns)
        before = self._columns.get(table, now)
        self._columns[table] = now
        if (gone := before - now) and (new := now - before):
            log.warning(
                "columns_renamed",
                table=table,
                gone=sorted(gone),
                new=sorted(new),
                meaning="rows that are not changed from here on have NULL in the new columns of a "
                "target, unless this was DROP and ADD: headwater snapshot copies them",
            )
