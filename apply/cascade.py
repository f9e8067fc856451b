"""What the source's foreign keys did to the children of deleted rows, where its log does not show
it (MySQL before 9.6, MariaDB): carried out here, for all rows of a batch at once.

Only rows that came from the source are touched. What the log did show has been applied before, so
there is nothing left of it to do.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from apply import referee
from apply.own import REFEREE
from apply.plan import Link, Plan
from apply.transaction import ALL, Transaction
from apply.uuids import wire_text
from schemas.kinds import Kind

ACTIONS = ("CASCADE", "SET NULL")


def carried(transaction: Transaction, plan: Plan) -> list[tuple[Plan, Link]]:
    """The references to a table whose rows change when its rows are deleted."""
    return [(p, link) for p, link in transaction.children(plan) if link.on_delete in ACTIONS]


def carry(transaction: Transaction, plan: Plan, keys: Sequence[bytes]) -> None:
    """Do what these rows' deletion did to their children, and to those of the children; the rows
    themselves stay.
    """
    levels = [(plan, list(keys))] if keys else []
    seen = {(plan.name, key) for key in keys}
    # By levels, parents before children; a tree's rows are found once, a cycle's too.
    for of, parents in levels:
        for child, link in carried(transaction, of):
            transaction.put_keys(of, parents, range(len(parents)))
            if link.on_delete == "SET NULL":
                _empty(transaction, of, child, link)
                continue
            found = [
                k for k in _children(transaction, of, child, link) if (child.name, k) not in seen
            ]
            seen.update((child.name, key) for key in found)
            if found:
                levels.append((child, found))
    for of, gone in reversed(levels[1:]):
        delete(transaction, of, gone)


def delete(transaction: Transaction, plan: Plan, keys: Sequence[bytes]) -> None:
    """Delete the rows of these keys."""
    if not keys:
        return
    transaction.put_keys(plan, keys, range(len(keys)))
    transaction.written += transaction.run(transaction.sql(plan).delete(), **ALL)
    transaction.referee.end(plan)


def children(
    transaction: Transaction, plan: Plan, keys: Sequence[bytes]
) -> Iterator[tuple[Plan, Link, list[bytes]]]:
    """By reference that changes with these rows: the keys of the rows that reference them."""
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


def _children(transaction: Transaction, of: Plan, child: Plan, link: Link) -> list[bytes]:
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
    found = sa.select(*columns).where(*_refers(transaction, of, rows, link), *ours)
    kinds = [child.by_name[n].kind for n in child.identity]
    return [
        orjson.dumps(dict(zip(child.identity, map(_wire, row, kinds), strict=True)))
        for row in transaction.connection.execute(found)
    ]


def _wire(value: Any, kind: Kind) -> Any:
    return int(value) if kind.name == "int" else wire_text(value, kind)
