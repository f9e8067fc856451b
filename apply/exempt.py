"""Single rows that are exempt at a target, at run time: left as they are, or here whatever the
table's condition says.

The applier looks for changes at most once in LOOK_S. Who changes something waits for twice that
and then for the batch that is being written: every later one heeds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import orjson
import sqlalchemy as sa

from apply import referee
from apply.own import EXEMPT
from apply.plan import Plan
from apply.plans import Plans
from apply.server import Server
from apply.target import Exempted, Exemption
from apply.view import View

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Exempt:
    """A source's exempt rows; number: of the newest change to them."""

    number: int
    rows: Exempted

    def into(self, plans: Plans) -> None:
        """Let plans know the rows of their tables."""
        for plan in (*plans.newest.values(), *plans.older.values()):
            rows = self.rows.get(plan.name, {})
            if not rows:
                continue
            view = plan.view or View(name=plan.name, computed={})
            excluded, pinned = (
                frozenset(plan.one_case([key for key, is_ in rows.items() if is_ == what]))
                for what in get_args(Exemption)[:2]
            )
            plan.view = replace(view, excluded=excluded, pinned=pinned)


def number(connection: sa.Connection, source: str) -> int:
    """Of the newest change."""
    newest = sa.select(sa.func.max(EXEMPT.c.number)).where(EXEMPT.c.source == source)
    return connection.scalar(newest) or 0


def read(connection: sa.Connection, source: str) -> Exempt:
    """All exempt rows of a source; in a target that only an older version has prepared there is no
    table of them, and the number is below 0.
    """
    rows: dict[str, dict[bytes, Any]] = {}
    if not sa.inspect(connection).has_table(EXEMPT.name):
        return Exempt(-1, rows)
    newest = 0
    for row in connection.execute(sa.select(EXEMPT).where(EXEMPT.c.source == source)):
        newest = max(newest, row.number)
        if row.what != "none":
            rows.setdefault(row.table_name, {})[row.identity.encode()] = row.what
    return Exempt(newest, rows)


def change(
    connection: sa.Connection, source: str, table: str, what: Exemption, keys: Sequence[bytes]
) -> None:
    """Say of these rows what they are now."""
    new = number(connection, source) + 1
    for key in keys:
        place = {"source": source, "table_name": table, "identity": key.decode()}
        same = sa.and_(*(EXEMPT.c[name] == value for name, value in place.items()))
        row: dict[str, Any] = {"what": what, "number": new}
        if not connection.execute(sa.update(EXEMPT).where(same).values(row)).rowcount:
            connection.execute(sa.insert(EXEMPT).values(place | row))


def ours(server: Server, plan: Plan) -> sa.ColumnElement[bool]:
    """Whether a row of the target came from a source, and is not left as it is."""
    if plan.is_refereed:
        return referee.ours(plan)
    columns = [plan.target.c[n] for n in plan.identity]
    tests: list[sa.ColumnElement[bool]] = [c.is_not(None) for c in columns]
    for key in sorted(plan.view.excluded) if plan.view is not None else ():
        values = orjson.loads(key)
        same = (
            server.exactly(
                c,
                server.from_text(
                    sa.literal(str(values[c.key]), sa.String), c, plan.by_name[c.key].kind
                ),
            )
            for c in columns
        )
        tests.append(~sa.and_(*same))
    return sa.and_(*tests)
