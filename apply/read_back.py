"""A target's rows as wire values, and their checksum, for verify: references as their parents'
identities, own keys left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from apply import referee, uuids
from apply.exempt import ours
from apply.fit import family_of
from apply.own import REFEREE
from apply.plan import Link, Plan
from apply.server import Server
from apply.source_keys import SourceKeys
from schemas.checksum import DANGLING
from schemas.codec import Wire, image
from schemas.kinds import Kind
from schemas.ranges import Compared, wires

_FLAG = Kind(name="bool")
_NUMBER = Kind(name="int", bits=64)
_TEXT = Kind(name="text")
_BINARY = Kind(name="binary")
_UUID = Kind(name="uuid")


def read_kind(kind: Kind, family: str) -> Kind:
    """The kind whose text the target prints, where its column is of another family than the
    source's.
    """
    if uuids.is_bytes_elsewhere(kind, family):
        return _BINARY
    if uuids.is_text_elsewhere(kind, family):
        return _UUID if family == "uuid" else _TEXT
    if kind.name == "bool":
        return _FLAG if family == "bool" else _NUMBER
    if family == "bool":
        return _FLAG
    return _TEXT if family == "text" and kind.name in ("datetime", "timestamp", "json") else kind


def kinds(plan: Plan) -> dict[str, Kind]:
    """The compared columns (written, and not the target's own), each with the kind that both sides
    compare by.
    """
    return {
        t.name: _UUID if t.kind.name == "text" and t.family in ("uuid", "binary") else t.kind
        for t in plan.taken
        if not t.once
    }


@dataclass(frozen=True, slots=True)
class Selected:
    """What is selected of a planned table: columns as `Server.read` takes them, from where (every
    parent of a translated reference, and headwater_referee, are joined under names of their own),
    and whose rows. found_by: the columns that are the identity's values; parents: by reference,
    the column of the parent's identity. back: by place among the columns, what makes of the printed
    text what the source would have printed. declared: the links of columns that are read with local
    keys, for which the source's are given (apply/source_keys.py).
    """

    names: Sequence[str]
    columns: Sequence[tuple[Kind, str, Any]]
    found_by: Mapping[str, Any]
    parents: Mapping[str, Any]
    links: Mapping[int, Link]
    back: Mapping[int, Callable[[str], str]]
    source: Any
    ours: sa.ColumnElement[bool]
    declared: Sequence[Link]
    plan: Plan

    def where(self, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """The rows that came from the source and meet the conditions."""
        columns = (c for _, _, c in self.columns)
        return sa.select(*columns).select_from(self.source).where(self.ours, *conditions)


def selected(server: Server, plan: Plan, wanted: Iterable[str]) -> Selected:
    """These written columns; a translated one is two, whether it is null and its parent's
    identity.
    """
    names: list[str] = []
    columns: list[tuple[Kind, str, Any]] = []
    links: dict[int, Link] = {}
    back: dict[int, Callable[[str], str]] = {}
    parents: dict[str, Any] = {}
    source: Any = plan.target
    found_by = {n: plan.by_name[n].column for n in plan.identity}
    if plan.is_refereed:
        pairs, own = REFEREE.alias("hw_pair"), str(plan.own_key)
        mine = referee.live(pairs, plan.source_name, plan.name)
        source = source.join(pairs, sa.and_(plan.target.c[own] == pairs.c.local_key, *mine))
        found_by = {own: pairs.c.source_key}
    for name in wanted:
        taken = plan.by_name[name]
        names.append(name)
        link = plan.translated.get(name)
        if link is None or link.is_chosen:
            column = found_by.get(name, taken.column)
            family = family_of(column.type)
            if (turned := uuids.back(taken.kind, family)) is not None:
                back[len(columns)] = turned
            columns.append((read_kind(taken.kind, family), family, column))
            continue
        assert link.parent is not None
        links[len(columns)] = link
        alias = f"hw_parent_{len(parents)}"
        parent, identity, more = _parent(plan, link, alias)
        parents[name] = identity
        same = plan.target.c[link.column] == parent
        source = source.outerjoin(identity.table, sa.and_(same, *more))
        columns.append((_NUMBER, "int", taken.column.is_not(None)))
        turned = uuids.back(link.identity_kind, family_of(identity.type))
        if turned is not None:
            back[len(columns)] = turned
        columns.append((_of_parent(link, identity), "text", identity))
    declared = [link for link in plan.chosen if link.column in names]
    whose = ours(server, plan)
    return Selected(names, columns, found_by, parents, links, back, source, whose, declared, plan)


def _parent(plan: Plan, link: Link, alias: str) -> tuple[Any, Any, list[sa.ColumnElement[bool]]]:
    """The column that a reference equals, the parent's identity as the source has it, and what
    else joins them.
    """
    if link.is_refereed:
        pairs = REFEREE.alias(alias)
        mine = referee.live(pairs, plan.source_name, link.parent_name)
        return pairs.c.local_key, pairs.c.source_key, mine
    assert link.parent is not None
    parent = link.parent.alias(alias)
    return parent.c[link.parent_key], parent.c[link.parent_identity], []


def _of_parent(link: Link, identity: Any) -> Kind:
    if link.is_refereed:
        return _NUMBER
    return _BINARY if family_of(identity.type) == "binary" else _TEXT


def rows(
    server: Server, chosen: Selected, limit: int, *conditions: sa.ColumnElement[bool]
) -> Iterator[list[list[Wire]]]:
    """Blocks of at most `limit` rows that came from the source, from one repeatable-read
    snapshot.
    """
    yield from read_rows(server, chosen, chosen.where(*conditions), limit)


def read_rows(
    server: Server,
    chosen: Selected,
    statement: sa.Select[Any],
    limit: int = 10_000,
    *,
    connection: sa.Connection | None = None,
) -> Iterator[list[list[Wire]]]:
    """The same of a statement over what is chosen; connection: as in Server.read."""
    keys = SourceKeys(server, chosen.plan, chosen.declared, chosen.names, connection)
    for block in server.read(chosen.columns, statement, limit, connection=connection):
        yield keys.given(list(map(list, zip(*_columns(block, chosen), strict=True))))


def total(
    server: Server, plan: Plan, chosen: Selected, compared: Compared
) -> Sequence[sa.ColumnElement[Any]] | None:
    """The number of rows and the exclusive or of their hashes as columns to select; None where no
    SQL of this server writes the form that is compared.
    """
    fields = {}
    if chosen.declared:
        return None
    for name, kind in compared.kinds.items():
        taken, parent = plan.by_name[name], compared.parents.get(name)
        if parent is None:
            column = chosen.found_by.get(name, taken.column)
            fields[name] = server.field(kind, family_of(column.type), column)
            continue
        identity = chosen.parents[name]
        inner = server.field(parent.kind, family_of(identity.type), identity)
        fields[name] = inner and server.reference(taken.column, inner, DANGLING["target"])
    found = {n: f for n, f in fields.items() if f is not None}
    if len(found) != len(fields):
        return None
    key = [found[n] for n in plan.identity]
    text = server.total(list(found.values()), key)
    return [sa.literal_column(text)] if text is not None else None


def fragments(
    blocks: Iterable[Sequence[Sequence[Any]]], make: Sequence[Callable[[Any], str]]
) -> Iterator[list[list[str | None]]]:
    """Blocks of a driver's rows as wire fragments; None stays None."""
    for block in filter(None, blocks):
        columns = [
            [None if v is None else f(v) for v in column]
            if None in column
            else list(map(f, column))
            for f, column in zip(make, zip(*block, strict=True), strict=True)
        ]
        yield list(map(list, zip(*columns, strict=True)))


def _columns(block: Sequence[Sequence[str | None]], chosen: Selected) -> Iterator[Any]:
    printed = enumerate(map(_turned, zip(*block, strict=True), _each(chosen)))
    for at, values in printed:
        link = chosen.links.get(at)
        if link is None:
            yield wires(values)
            continue
        # A reference to a row that has no identity is local to the target: it equals none of the
        # source's.
        _, identities = next(printed)
        names = [link.parent_identity]
        yield [
            image(names, [identity or "null"]) if is_set in ("1", "true") else None
            for is_set, identity in zip(values, identities, strict=True)
        ]


def _each(chosen: Selected) -> Iterator[Callable[[str], str] | None]:
    return (chosen.back.get(at) for at in range(len(chosen.columns)))


def _turned(
    printed: Sequence[str | None], back: Callable[[str], str] | None
) -> Sequence[str | None]:
    if back is None:
        return printed
    return [None if f is None else orjson.dumps(back(orjson.loads(f))).decode() for f in printed]
