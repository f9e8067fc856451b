"""A target's rows as wire values, for verify: references as their parents' identities, own keys
left out.
"""

from collections.abc import Iterator
from typing import Any

import orjson
import sqlalchemy as sa

from apply.fit import family_of
from apply.plan import Link, Plan
from apply.server import Server
from schemas.codec import Wire, image
from schemas.kinds import Kind

_FLAG = Kind(name="bool")
_NUMBER = Kind(name="int", bits=64)
_TEXT = Kind(name="text")
_BINARY = Kind(name="binary")
_UUID = Kind(name="uuid")


def read_kind(kind: Kind, family: str) -> Kind:
    """The kind whose text the target prints, where its column is of another family than the
    source's.
    """
    if kind.name == "bool":
        return _FLAG if family == "bool" else _NUMBER
    if family == "bool":
        return _FLAG
    return _TEXT if family == "text" and kind.name in ("datetime", "timestamp", "json") else kind


def kinds(plan: Plan) -> dict[str, Kind]:
    """The written columns in the source's order, with the kinds that both sides compare by."""
    return {
        c.name: _UUID if c.kind.name == "text" and taken.family == "uuid" else c.kind
        for c in plan.source.columns
        if (taken := plan.by_name.get(c.name)) is not None
    }


def rows(server: Server, plan: Plan, limit: int) -> Iterator[tuple[list[str], list[list[Wire]]]]:
    """Blocks of at most `limit` rows that came from the source, from one repeatable-read
    snapshot.
    """
    names: list[str] = []
    columns: list[tuple[Kind, str, Any]] = []
    joins = []
    for column in plan.source.columns:
        taken = plan.by_name.get(column.name)
        if taken is None:
            continue
        names.append(column.name)
        link = plan.translated.get(column.name)
        if link is None:
            columns.append((read_kind(taken.kind, taken.family), taken.family, taken.column))
            continue
        assert link.parent is not None
        parent = link.parent.alias()
        joins.append((link, parent, len(columns)))
        columns.append((_NUMBER, "int", taken.column.is_not(None)))
        identity = parent.c[link.parent_identity]
        is_binary = family_of(identity.type) == "binary"
        columns.append((_BINARY if is_binary else _TEXT, "text", identity))
    source: Any = plan.target
    for link, parent, _ in joins:
        source = source.outerjoin(parent, plan.target.c[link.column] == parent.c[link.parent_key])
    ours = sa.and_(*(plan.target.c[n].is_not(None) for n in plan.identity))
    statement = sa.select(*(c for _, _, c in columns)).select_from(source).where(ours)
    spots = {at: link for link, _, at in joins}
    is_empty = True
    for block in server.read(columns, statement, limit):
        is_empty = False
        yield names, [_values(row, spots) for row in block]
    if is_empty:
        yield names, []


def _values(fragments: list[str | None], spots: dict[int, Link]) -> list[Wire]:
    values: list[Wire] = []
    at = 0
    while at < len(fragments):
        link = spots.get(at)
        if link is None:
            fragment = fragments[at]
            values.append(None if fragment is None else orjson.loads(fragment))
            at += 1
            continue
        is_set, identity = fragments[at] in ("1", "true"), fragments[at + 1]
        # A reference to a row that has no identity is local to the target: it equals none of the
        # source's.
        key = image([link.parent_identity], [identity or "null"])
        values.append(key if is_set else None)
        at += 2
    return values
