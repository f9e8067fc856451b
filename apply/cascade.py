"""What the source's foreign keys did to the children of deleted rows, where its log does not show
it (MySQL before 9.6, MariaDB): carried out here, for all rows of a batch at once.

Only rows that came from the source are touched. What the log did show has been applied before, so
there is nothing left of it to do.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from apply import referee
from apply.own import REFEREE
from apply.plan import ORDINAL, Link, Plan
from apply.refused import Refusal, Refused
from apply.server import Cause
from apply.transaction import Transaction
from apply.uuids import wire_text
from schemas.kinds import Kind

ACTIONS = ("CASCADE", "SET NULL")


def carried(transaction: Transaction, plan: Plan) -> list[tuple[Plan, Link]]:
    """The references to a table whose rows change when its rows are deleted."""
    return [(p, link) for p, link in transaction.children(plan) if link.on_delete in ACTIONS]


class Level(NamedTuple):
    """Rows of one table that go together; roots: with which of the first rows each goes."""

    plan: Plan
    keys: list[bytes]
    roots: list[int]


def levels(transaction: Transaction, plan: Plan, keys: Sequence[bytes]) -> list[Level]:
    """The rows of these keys and those that go with them, parents before children; a tree's rows
    are found once, a cycle's too.
    """
    found = [Level(plan, list(keys), list(range(len(keys))))] if keys else []
    seen = {(plan.name, key) for key in keys}
    for of in found:
        for child, link, pairs in children(transaction, of.plan, of.keys):
            if link.on_delete != "CASCADE":
                continue
            new = {k: of.roots[parent] for k, parent in pairs if (child.name, k) not in seen}
            seen.update((child.name, key) for key in new)
            if new:
                found.append(Level(child, list(new), list(new.values())))
    return found


def staged_levels(transaction: Transaction, plan: Plan, keys: Sequence[bytes]) -> list[Level]:
    """The same, with the staging tables that `carry` needs: a savepoint's rollback takes what was
    made in it.
    """
    found = levels(transaction, plan, keys)
    for level in found:
        transaction.session.ready(level.plan.keys)
    return found


def kept_back(transaction: Transaction, found: Sequence[Level]) -> list[int]:
    """Which of the first rows cannot go yet: a row would go with them that a parked change moves
    away.
    """
    if transaction.parking.is_empty:
        return []
    waits = transaction.parking.waits
    return sorted(
        {
            root
            for level in found[1:]
            for key, root in zip(level.keys, level.roots, strict=True)
            if waits((level.plan.name, key))
        }
    )


def carry(transaction: Transaction, found: Sequence[Level]) -> None:
    """Do what the first rows' deletion did to the others; those rows themselves stay."""
    for level in found:
        for child, link in carried(transaction, level.plan):
            if link.on_delete == "SET NULL":
                transaction.put_keys(level.plan, level.keys, range(len(level.keys)))
                _empty(transaction, level.plan, child, link)
    for level in reversed(found[1:]):
        delete(transaction, level.plan, level.keys)


def may_go(transaction: Transaction, plan: Plan, key: bytes) -> bool:
    """Whether a row can be deleted now, with all that goes with it; nothing is."""
    found = staged_levels(transaction, plan, [key])
    savepoint, written = transaction.connection.begin_nested(), transaction.written
    try:
        carry(transaction, found)
        delete(transaction, plan, [key])
    except sa.exc.DBAPIError as error:
        if transaction.server.cause(error) is not Cause.FOREIGN:
            raise
        return False
    finally:
        savepoint.rollback()
        transaction.written = written
    return True


def still_referenced(transaction: Transaction, rows: Sequence[Refusal]) -> Refused:
    """The error for rows that cannot be deleted."""
    return Refused(
        f"cannot delete rows of {rows[0].table}: rows of the target still reference them",
        transaction.at(min(row.ordinal for row in rows)),
        hint="rows that only the target has reference them: move or delete those; or rows that "
        'stay here reference one that left (exceptions): filter both alike, or on_leave = "mark"',
        rows=rows,
    )


def delete(transaction: Transaction, plan: Plan, keys: Sequence[bytes]) -> None:
    """Delete the rows of these keys."""
    if not keys:
        return
    transaction.put_keys(plan, keys, range(len(keys)))
    transaction.delete(plan)


def children(
    transaction: Transaction, plan: Plan, keys: Sequence[bytes]
) -> Iterator[tuple[Plan, Link, list[tuple[bytes, int]]]]:
    """By reference that changes with these rows: the keys of the rows that reference them, each
    with the index of the one that it references.
    """
    for child, link in carried(transaction, plan):
        transaction.put_keys(plan, keys, range(len(keys)))
        yield child, link, _children(transaction, plan, child, link)


def _refers(transaction: Transaction, of: Plan, child: Any, link: Link) -> list[Any]:
    """Conditions: a row of `child` that came from the source references a staged row."""
    parent = of.target.alias("hw_parent")
    same = [transaction.server.exactly(parent.c[n], of.keys.c[n]) for n in of.identity]
    return [child.c[link.column] == parent.c[link.parent_key], *same]


def _empty(transaction: Transaction, of: Plan, child: Plan, link: Link) -> None:
    ours: list[Any] = [child.target.c[n].is_not(None) for n in child.identity]
    if child.is_refereed:
        ours = [referee.ours(child)]
    empty = sa.update(child.target).values({child.target.c[link.column]: sa.null()})
    tests = _refers(transaction, of, child.target, link)
    transaction.written += transaction.run(empty.where(*tests, *ours))


def _children(
    transaction: Transaction, of: Plan, child: Plan, link: Link
) -> list[tuple[bytes, int]]:
    rows = child.target.alias("hw_child")
    columns = [rows.c[n] for n in child.identity]
    ours: list[Any] = [c.is_not(None) for c in columns]
    if child.is_refereed:
        pairs = REFEREE.alias()
        ours = [
            *referee.live(pairs, child.source_name, child.name),
            columns[0] == pairs.c.local_key,
        ]
        columns = [pairs.c.source_key]
    found = sa.select(of.keys.c[ORDINAL], *columns)
    found = found.where(*_refers(transaction, of, rows, link), *ours)
    kinds = [child.by_name[n].kind for n in child.identity]
    return [
        (orjson.dumps(dict(zip(child.identity, map(_wire, row, kinds), strict=True))), parent)
        for parent, *row in transaction.connection.execute(found)
    ]


def _wire(value: Any, kind: Kind) -> Any:
    return int(value) if kind.name == "int" else wire_text(value, kind)
