"""Placeholders are made for the parents that a batch's rows lack at its end, all of a table in one
statement, and removed when nobody needs them; what they are until then: apply/placeholder_rows.py.

Where no row can be made (apply/neutral.py, or a constraint of the target) nothing is, and the
child is parked as without placeholders.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from time import time_ns
from typing import Any, NamedTuple

import orjson
import structlog

from apply.fold import fold
from apply.halving import halve
from apply.key_meanings import meant, unlearn
from apply.naming import name_rows
from apply.neutral import copied_key, filled, minted, neutral, obstacle
from apply.placeholders import Placeholder, read
from apply.plan import Link, Plan
from apply.sql import Statements
from apply.staging import staged
from apply.transaction import ALL, Job, Transaction
from apply.upsert import Held
from schemas.change import Rows

NUMBERS = 40_000
"""Added to a plan's number: a placeholder's columns are staged in a table of their own."""

log = structlog.get_logger()


class _Missing(NamedTuple):
    """A parent that is not there. value: its key at the source, as the wire has it. identity: as
    text; wanted_by: whose reference leads to it.
    """

    value: Any
    wanted_by: str
    identity: str = ""
    is_named: bool = True


def make(transaction: Transaction, held: Mapping[str, Mapping[bytes, Held]]) -> bool:
    """Make rows for the parents that these rows lack, where that is configured and possible;
    whether there are any.
    """
    is_made = False
    if not transaction.placeholders.are_made:
        return False
    for link, missing in _missing(transaction, held):
        parent = transaction.plan(link.parent_name)
        is_out = obstacle(transaction.server, parent) is not None
        # A first copy is still to bring it.
        comes = link.nullable and link.parent_name in transaction.batch.pending
        if missing and not is_out and not comes:
            is_made |= _make(transaction, parent, _identified(transaction, parent, link, missing))
    return is_made


def _missing(
    transaction: Transaction, held: Mapping[str, Mapping[bytes, Held]]
) -> Iterator[tuple[Link, dict[str, _Missing]]]:
    """By reference: the parents that are not in the target, by their keys as text."""
    links: dict[tuple[str, str], Link] = {}
    wanted: dict[tuple[str, str], dict[str, _Missing]] = {}
    for name, rows in held.items():
        for row in rows.values():
            plan = transaction.plan(name, row.table.fingerprint)
            of = [link for link in plan.links if link.placeholder]
            after = orjson.loads(row.value)["after"] if of else {}
            for link in of:
                value, to = after.get(link.column), (link.parent_name, link.parent_key)
                if value is not None:
                    links[to] = link
                    missing = _Missing(value, f"{name}.{link.column}")
                    wanted.setdefault(to, {}).setdefault(str(value), missing)
    for to, link in links.items():
        there = transaction.identities.known(link, list(wanted[to]))
        yield link, {key: one for key, one in wanted[to].items() if key not in there}


def _identified(
    transaction: Transaction, parent: Plan, link: Link, missing: Mapping[str, _Missing]
) -> dict[str, _Missing]:
    """With the identity of each, or a new one; without those that are gone at the source."""
    if link.is_refereed or link.parent_key in parent.identity:
        return {key: one._replace(identity=key) for key, one in missing.items()}
    if link.parent_key not in (parent.own_key, copied_key(parent)):
        return {}
    keys = list(missing) if link.translated else []
    known = meant(transaction.session, transaction.source, parent.name, keys)
    found = {}
    for key, one in missing.items():
        name = known[key] if key in known else minted(parent.identity_kind)
        if name is not None:
            found[key] = one._replace(identity=name, is_named=key in known)
    return found


def _make(transaction: Transaction, parent: Plan, missing: Mapping[str, _Missing]) -> bool:
    """Insert them; whether any could be."""
    if not missing:
        return False
    names = filled(transaction.server, parent)
    given = {*parent.identity, copied_key(parent), *names}
    twin = replace(
        parent,
        number=parent.number + NUMBERS,
        taken=[taken for taken in parent.taken if taken.name in given],
        links=[],
        view=None,
        sets=[],
    )
    neutrals = {name: neutral(parent.by_name[name].kind) for name in names}
    every = list(missing.items())
    job = _job(transaction, twin, [_image(twin, one) | neutrals for _, one in every])
    lines = staged(transaction, job)
    transaction.session.ready(twin.stage)
    transaction.put(job, twin.stage, job.folded.upserts, lines)
    name_rows(transaction, job)
    statement = job.sql.insert()
    written, failed = halve(
        transaction,
        job.rows.ordinals,
        lambda low, high: transaction.run(statement, low=low, high=high),
    )
    transaction.written += written
    made = [pair for i, pair in enumerate(every) if i not in failed]
    _keep(transaction, parent, made)
    if copied_key(parent) is not None or parent.source.primary_key == parent.identity:
        transaction.server.advance(transaction.connection, parent.target, twin.by_name)
    return bool(made)


def _image(twin: Plan, one: _Missing) -> dict[str, Any]:
    name, key = twin.identity[0], copied_key(twin)
    identity = int(one.identity) if twin.identity_kind.name == "int" else one.identity
    return {name: identity} | ({} if key is None else {key: one.value})


def _job(transaction: Transaction, twin: Plan, images: list[dict[str, Any]]) -> Job:
    name = twin.identity[0]
    rows = Rows(
        table=twin.source,
        ops=["c"] * len(images),
        ordinals=list(range(len(images))),
        keys=[orjson.dumps({name: image[name]}) for image in images],
        values=[orjson.dumps({"after": image, "op": "c"}) for image in images],
    )
    batch = transaction.batch.batch
    sql = transaction.sql(twin)
    return Job(plan=twin, sql=sql, rows=rows, folded=fold(rows), deletes=[], batch=batch)


def _keep(transaction: Transaction, parent: Plan, made: list[tuple[str, _Missing]]) -> None:
    new = [(key, one.identity) for key, one in made if not one.is_named]
    if new and parent.is_tracked:
        transaction.identities.seed(parent.name, new)
    batch, _ = transaction.batch.place(0)
    now = time_ns() // 1000
    transaction.placeholders.add(
        [
            Placeholder(
                table_name=parent.name,
                identity=one.identity,
                source_key=key,
                is_named=int(one.is_named),
                wanted_by=one.wanted_by,
                batch=batch,
                made_at=now,
            )
            for key, one in made
        ]
    )
    if made:
        log.info("placeholders_made", table=parent.name, rows=len(made))


def remove(transaction: Transaction, tables: Collection[str] | None) -> list[Placeholder]:
    """Delete the placeholders of these tables (None: of all) that no row references; those that
    are gone.
    """
    kept, gone = read(transaction.connection, transaction.source), []
    kept = [one for one in kept if tables is None or one.table_name in tables]
    for name in sorted({one.table_name for one in kept}):
        plan = transaction.plan(name)
        plan = replace(plan, references=plan.all_references, sets=[])
        mine = [one for one in kept if one.table_name == name]
        keys = [orjson.dumps({plan.identity[0]: _wire(plan, one.identity)}) for one in mine]
        transaction.put_keys(plan, keys, range(len(keys)))
        sql = Statements(plan, transaction.server, transaction.source)
        if plan.references:
            transaction.run(sql.hold_referenced())
        held = set(transaction.ordinals(sql.held(plan.keys)))
        transaction.written += transaction.run(sql.delete(), **ALL)
        transaction.referee.end(plan)
        free = [one for i, one in enumerate(mine) if i not in held]
        if free:
            transaction.placeholders.end(name, [one.identity for one in free])
        nameless = [one.identity for one in free if not one.is_named]
        if nameless:
            unlearn(transaction.session, transaction.source, name, nameless)
        gone += free
    return gone


def _wire(plan: Plan, identity: str) -> Any:
    return int(identity) if plan.identity_kind.name == "int" else identity
