"""Preflight of a source that is polled: what its tables must have, and what cannot be seen."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from capture.polling_reader import Reader
from schemas.finding import Finding
from schemas.table import Table

KINDS = ("int", "timestamp", "datetime")
"""What a version may be: all else has no window."""


class Columns(NamedTuple):
    """The names of a table's version and tombstone."""

    version: str
    tombstone: str | None


def findings(
    reader: Reader, tables: Sequence[Table], columns: Callable[[Table], Columns], source: str
) -> Iterator[Finding]:
    """What would lose changes (refused), and what polling does not see (warnings)."""
    deaf = []
    for table in tables:
        version, tombstone = columns(table)
        where = f"{table.full_name}.{version}"
        if version not in table.by_name:
            yield Finding(
                where=where,
                problem="is missing, by which the table would be polled",
                fix=f'add it, set version."{table.full_name}", or exclude the table',
            )
            continue
        column = table.by_name[version]
        if column.kind.name not in KINDS:
            yield Finding(
                where=where,
                problem=f"is no version: it is of kind {column.kind.name}",
                fix="name a column of whole numbers or of instants",
            )
            continue
        if column.nullable and reader.any_null(table, version):
            yield Finding(
                where=where,
                problem="is NULL in some rows, which no poll would ever see",
                fix=f"UPDATE {table.full_name} SET {version} = … WHERE {version} IS NULL, and make "
                "it NOT NULL",
            )
        if tombstone is None:
            deaf.append(table.full_name)
        elif tombstone not in table.by_name:
            yield Finding(
                where=f"{table.full_name}.{tombstone}",
                problem="is missing, by which deletes would be seen",
                fix=f'add it, or mend tombstone."{table.full_name}"',
            )
    if deaf:
        some = ", ".join(deaf[:3]) + (", …" if len(deaf) > 3 else "")
        yield Finding(
            where=f"source {source}",
            problem=f"shows no deletes of {some}: there is no tombstone",
            fix=f"name a tombstone column, or run now and then: headwater snapshot {source}, which "
            "deletes in the targets what the source no longer has",
            refused=False,
        )


def noted(source: str) -> Finding:
    """What a person should know who takes a dump after a position was noted."""
    return Finding(
        where=f"source {source}",
        problem="is polled: what is deleted between the position and the dump's end without a "
        "tombstone stays in the dump",
        fix=f"afterwards run: headwater snapshot {source}",
        refused=False,
    )
