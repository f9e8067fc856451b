"""How the rows of one table are seen by a target that takes only some of them, or computed columns
(apply/exceptions.py); nothing is written here.

Invariant: what becomes of a row is told by its newest image alone, so a replay tells the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from apply import exceptions
from apply.fold import Folded
from apply.refused import Reason
from schemas.change import Rows
from schemas.codec import ABSENT, after_column
from schemas.compare import Unfit
from schemas.expression import Columns, Expression
from schemas.table import Table

if TYPE_CHECKING:
    from apply.target import Placement


Stay = Callable[[Sequence[bytes], list[bool]], list[bool]]
"""Keys of rows and which meet the condition -> which are here (apply/ancestors.py)."""


class Undecided(Exception):
    """What becomes of a row cannot be told; the text says why. at: its index among the images that
    were looked at, and on its way up among rows.
    """

    def __init__(self, at: int, why: str, hint: str, reason: Reason) -> None:
        super().__init__(why)
        self.at, self.hint, self.reason = at, hint, reason


@contextmanager
def _among(places: Sequence[int]) -> Iterator[None]:
    """The images within are those of these places."""
    try:
        yield
    except Undecided as error:
        error.at = places[error.at]
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """where: the condition for rows to be here; None: all are. computed: columns that the source
    does not have, or has with other values. excluded, pinned: keys of rows that are left as they
    are here, and of rows that are here whatever the condition says (apply/exempt.py).
    """

    name: str
    where: Expression | None = None
    on_leave: exceptions.OnLeave = "delete"
    mark: str | None = None
    computed: dict[str, Expression]
    excluded: frozenset[bytes] = frozenset()
    pinned: frozenset[bytes] = frozenset()

    @property
    def reads(self) -> frozenset[str]:
        """The source's columns that it looks at."""
        parts = [*self.computed.values(), *([self.where] if self.where else [])]
        return frozenset[str]().union(*(p.columns for p in parts))

    @property
    def lacks(self) -> bool:
        """Whether some of the source's rows are not here."""
        return self.where is not None or bool(self.excluded)

    # Columns of after-images, all that it reads; ABSENT where a row lacks one.

    def admits(self, keys: Sequence[bytes], columns: Columns) -> list[bool]:
        """Which of these rows are here; raises Undecided."""
        if self.where is None:
            return [True] * len(keys)
        self._refuse_absent(self.where, columns)
        found = _evaluated(self.where, columns, len(keys))
        if not self.pinned:
            return [bool(v) for v in found]
        return [bool(v) or key in self.pinned for v, key in zip(found, keys, strict=True)]

    def values(self, columns: Columns, rows: int) -> dict[str, Sequence[Any]]:
        """The computed columns; ABSENT where a row lacks a column that one is made of."""
        found: dict[str, Sequence[Any]] = {}
        for name, expression in self.computed.items():
            read = {c: columns[c] for c in expression.columns}
            partial = [values for values in read.values() if ABSENT in values]
            lacking = {i for values in partial for i, v in enumerate(values) if v is ABSENT}
            if not lacking:
                found[name] = _evaluated(expression, read, rows)
                continue
            whole = [i for i in range(rows) if i not in lacking]
            with _among(whole):
                some = {c: [v[i] for i in whole] for c, v in read.items()}
                made = dict(zip(whole, _evaluated(expression, some, len(whole)), strict=True))
            found[name] = [made.get(i, ABSENT) for i in range(rows)]
        return found

    def _refuse_absent(self, expression: Expression, columns: Columns) -> None:
        for name in sorted(expression.columns):
            values = columns[name]
            if ABSENT in values:
                raise Undecided(
                    values.index(ABSENT),
                    f"the log lacks its column {name}, which was not changed",
                    f"ALTER TABLE {self.name} REPLICA IDENTITY FULL in the source, then apply the "
                    "row's newer image: headwater snapshot, with --for and --id",
                    "incomplete",
                )

    # Runs of rows, as the log has them.

    def seen(self, rows: Rows) -> Rows:
        """Without the excluded rows, and with the computed columns. Raises Undecided at an
        ordinal.
        """
        if self.excluded and not self.excluded.isdisjoint(rows.keys):
            at = [i for i, key in enumerate(rows.keys) if key not in self.excluded]
            rows = rows.at(at)
        return self._completed(rows) if self.computed and len(rows) else rows

    def _completed(self, rows: Rows) -> Rows:
        at = [i for i, op in enumerate(rows.ops) if op != "d"]
        read = frozenset[str]().union(*(e.columns for e in self.computed.values()))
        images = [rows.values[i] for i in at]
        columns = {name: after_column(images, name) for name in read}
        with _among([rows.ordinals[i] for i in at]):
            made_of = self.values(columns, len(at))
        members = []
        for name, made in made_of.items():
            head, constant = b",%b:" % orjson.dumps(name), not self.computed[name].columns
            each = made[:1] if constant else made
            texts = [b"" if v is ABSENT else head + orjson.dumps(v) for v in each]
            members.append(texts * len(made) if constant else texts)
        values = list(rows.values)
        for i, more in zip(at, map(b"".join, zip(*members, strict=True)), strict=True):
            # At the end of the after-image: of two members of one name the later counts.
            end = values[i].rfind(b',"op":"') - 1
            values[i] = values[i][:end] + more + values[i][end:]
        return replace(rows, values=values)

    def admitted(self, rows: Rows, folded: Folded, stay: Stay) -> tuple[Folded, list[int]]:
        """Rows that are not here leave, as far as they may have been: by a delete, or among the
        second list, of those to be marked. stay: has the last word. Raises Undecided at an ordinal.
        """
        at = folded.upserts
        if self.where is None or not at:
            return folded, []
        columns = {n: after_column([rows.values[i] for i in at], n) for n in self.where.columns}
        for nth in (nth for nth, i in enumerate(at) if folded.merged and i in folded.merged):
            for name, values in columns.items():
                values[nth] = folded.merged[at[nth]].get(name, ABSENT)
        keys = [rows.keys[i] for i in at]
        with _among([rows.ordinals[i] for i in at]):
            stays = stay(keys, self.admits(keys, columns))
        if all(stays):
            return folded, []
        out = [
            # What the source has just inserted was not here.
            i
            for i, stay in zip(at, stays, strict=True)
            if not stay and rows.ops[folded.first[rows.keys[i]]] != "c"
        ]
        upserts = [i for i, stay in zip(at, stays, strict=True) if stay]
        gone = out if self.on_leave == "delete" else []
        kept = set(upserts)
        # A row that was deleted and came again outside is gone.
        gone = sorted({*gone, *(i for i in folded.again if i not in kept)})
        left = [i for i in out if i not in gone] if self.on_leave == "mark" else []
        return (
            replace(
                folded,
                upserts=upserts,
                deletes=sorted([*folded.deletes, *gone]),
                again=[i for i in folded.again if i in kept],
            ),
            left,
        )


def view_of(table: Table, placement: "Placement") -> View | None:
    """The view of a table by configuration; None where its rows are seen as they are."""
    mine = exceptions.of(table.full_name, placement)
    computed = exceptions.derived(table, placement)
    try:
        where = exceptions.filtered(table, placement)
    except Unfit:
        where = None  # refused when the target is prepared
    if where is None and not computed:
        return None
    return View(
        name=table.full_name,
        where=where,
        on_leave=mine.on_leave,
        mark=mine.mark if mine.on_leave == "mark" else None,
        computed=computed,
    )


def _evaluated(expression: Expression, columns: Columns, rows: int) -> Sequence[Any]:
    try:
        return expression.of(columns, rows)
    except Unfit as error:
        for row in range(rows):
            try:
                expression.of({name: values[row : row + 1] for name, values in columns.items()}, 1)
            except Unfit as one:
                hint = "mend the row in the source, or the expression"
                raise Undecided(row, str(one), hint, "value") from error
        raise
