"""What a placeholder's columns hold, and for which tables no placeholder can be made: nothing is
written here.

A column that may be NULL, or that the target fills by itself, is left to the target. Every other
one gets the neutral value of its kind.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from apply.catalog import Catalog
from apply.plan import Plan
from apply.plans import plan_all
from apply.server import Server
from apply.target import Placement
from schemas.codec import Wire
from schemas.finding import Finding
from schemas.kinds import Kind, KindName
from schemas.table import Table

NEUTRAL: Mapping[KindName, Wire] = {
    "int": 0,
    "decimal": "0",
    "float": 0,
    "bool": False,
    "text": "",
    "binary": "",
    "date": "2000-01-01",
    "time": "00:00:00",
    "datetime": "2000-01-01T00:00:00",
    "timestamp": "2000-01-01T00:00:00Z",
    "json": "{}",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
"""An enum's is its first label."""


def neutral(kind: Kind) -> Wire:
    """The kind's neutral value, as the wire has it."""
    return kind.labels[0] if kind.name == "enum" else NEUTRAL[kind.name]


def minted(kind: Kind) -> str | None:
    """A new identity, as the wire has it, for a parent whose own is not known; None where the kind
    has no room for one.
    """
    new = uuid4()
    if kind.name == "uuid" or (kind.name == "text" and (kind.length or 36) >= 36):
        return str(new)
    return (
        base64.b64encode(new.bytes).decode() if (kind.name, kind.length) == ("binary", 16) else None
    )


def copied_key(plan: Plan) -> str | None:
    """The primary key column, where it holds the source's values and is not the identity."""
    key = plan.source.primary_key
    is_data = len(key) == 1 and key != plan.identity and key[0] in plan.by_name
    return key[0] if is_data else None


def filled(server: Server, plan: Plan) -> list[str]:
    """The columns to which a placeholder gives neutral values."""
    given = {*plan.identity, copied_key(plan), plan.own_key}
    return [c.key for c in _needed(server, plan) if c.key not in given]


def obstacle(server: Server, plan: Plan) -> str | None:
    """Why no row of the table can be made without its source; None where it can."""
    if len(plan.identity) > 1:
        return "it is identified by several columns"
    if plan.view is not None and plan.view.lacks:
        return "some of its rows are left out here (exceptions)"
    if plan.is_in_documents:
        return "documents hold its keys (references)"
    if any(taken.once for taken in plan.taken):
        return "it has columns that are the target's own (exceptions), which are written once"
    names = filled(server, plan)
    references = {link.column for link in plan.links}
    for name in names:
        if name not in plan.by_name:
            return f"its column {name} is NOT NULL, and the source does not fill it"
        if name in plan.target.primary_key.columns:
            return f"its column {name} is of the primary key"
        if name in references:
            return f"its reference {name} is NOT NULL"
        if (kind := plan.by_name[name].kind).name == "enum" and not kind.labels:
            return f"its column {name} has no value to take"
    for unique in plan.uniques:
        if set(unique) <= {*names}:
            return f"its columns {', '.join(unique)} are NOT NULL and unique"
    return None


def obstacles(
    catalog: Catalog, server: Server, placement: Placement, tables: Sequence[Table]
) -> Iterator[Finding]:
    """A warning for every reference that is to get placeholders, and cannot."""
    if "placeholder" not in placement.missing_parents.values():
        return
    plans = plan_all(catalog, server, placement, {t.full_name: t for t in tables})
    for plan in plans.newest.values():
        for link in plan.links:
            parent = plans.newest.get(link.parent_name)
            if link.placeholder and parent and (why := obstacle(server, parent)) is not None:
                yield Finding(
                    where=f"{plan.name}.{link.column}",
                    problem=f"cannot get placeholders of {link.parent_name}: {why}; rows are "
                    "parked as without (missing_parents)",
                    fix="give the column a default or let it be NULL in the target, or set "
                    f'missing_parents = {{ "{plan.name}.{link.column}" = "park" }}',
                    refused=False,
                )


def _needed(server: Server, plan: Plan) -> list[sa.Column[Any]]:
    return [c for c in plan.target.columns if not c.nullable and not server.generates(c)]
