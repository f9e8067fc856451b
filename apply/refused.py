"""Rows that a target refuses: which, why, and what they wait for."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from schemas.errors import Poison

Reason = Literal[
    "value", "unique", "reference", "parent", "incomplete", "referenced", "conflict", "behind"
]
"""value: a column cannot hold it, or a check refuses it. unique: another row has a value of a
unique key. reference: a foreign key that only the target has. parent: the row that it references
has not come. incomplete: some columns are missing, and the target lacks the row. referenced: rows
of the target reference what is to be deleted. conflict: the target's row was changed too, and the
table's policy is to park. behind: an earlier change of the same row is parked.
"""


class Refusal(NamedTuple):
    """One row that is refused. ordinal: its place in the batch; waits: the parent's table and
    source key. problem: the message without a place.
    """

    table: str
    key: bytes
    ordinal: int
    reason: Reason
    waits: tuple[str, str] | None = None
    problem: str = ""
    hint: str = ""


class Refused(Poison):
    """Rows that cannot be applied; the message is the first one's."""

    def __init__(self, problem: str, at: str, *, hint: str, rows: Sequence[Refusal]) -> None:
        super().__init__(f"{problem} {at}", hint=hint)
        self.rows = [
            row if row.problem else row._replace(problem=problem, hint=hint) for row in rows
        ]
