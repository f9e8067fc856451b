"""Assignments: ids of the source's rows given to their partners in the target, each with a line in
headwater_enrolled, and taken back.

Invariant: a row of the target gets an id only while, under a lock on it, both rows still have the
key by which they were matched, and the id; line and id are one transaction. No other column is
written, and no row without a partner. Where ids are pairs, no row is written (ops/enrol/paired.py).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import time_ns
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from apply import fields
from apply.fields import Lines
from apply.own import ENROLLED
from ops.enrol import paired
from ops.enrol.columns import touched
from ops.enrol.scratch import Pair, Scratch
from ops.enrol.side import Side, key_digests
from ops.enrol.twin import Twin
from schemas.errors import Misconfigured, Operator

CHUNK = 2_000
"""Rows in a transaction: they are locked while both sides are read again."""
COMPOSITE_CHUNK = 500
"""… where keys have several columns: SQLite takes no condition of more than 1,000 parts."""
BY_HAND = "by hand"


@dataclass(kw_only=True)
class Both:
    """The two databases; source_name: as headwater_enrolled names it."""

    source: Side
    target: Side
    source_name: str


@dataclass(slots=True)
class Written:
    """What became of a table's matches."""

    assigned: int = 0
    changed: list[int] = field(default_factory=list)


def assign(both: Both, twin: Twin, scratch: Scratch, said: Callable[[int], None]) -> Written:
    """Write every match of a twin; those whose rows changed are given back to `scratch`."""
    written = Written()
    widths = [len(twin.side(role).primary_key.columns) for role in ("source", "target")]
    chunk = CHUNK if max(widths) == 1 else COMPOSITE_CHUNK
    with both.target.connected() as connection:
        stage = _stage(both.target, twin, connection)
        connection.commit()
        for pairs in scratch.to_write(twin, chunk):
            if twin.paired is not None:
                paired.hold(connection, both.source_name)
            kept = _still(both, twin, connection, pairs)
            if kept:
                rules = [_rule(twin, p) for p in kept]
                _write(both, twin, connection, stage, kept, rules)
            connection.commit()
            rows = {pair.source_row for pair in kept}
            written.changed += [p.source_row for p in pairs if p.source_row not in rows]
            written.assigned += len(kept)
            said(written.assigned)
    scratch.changed(twin, written.changed)
    return written


def _still(both: Both, twin: Twin, connection: sa.Connection, pairs: list[Pair]) -> list[Pair]:
    """The pairs that are still what was matched. The target's rows stay locked; the source's may
    change again: such a change comes after the match, and is one of a row that has a partner.
    """
    there = _now(both.target, twin, [p.target_key for p in pairs], connection)
    here = _now(both.source, twin, [p.source_key for p in pairs])
    if twin.paired is not None:
        free = paired.free(connection, twin.paired, list(here))
        here = {key: row for key, row in here.items() if key in free}
    first_link = 1 + len(twin.rules)

    def same(pair: Pair) -> bool:
        source, target = here.get(pair.source_key), there.get(pair.target_key)
        if source is None or target is None:
            return False
        kept = [twin.linked.index(c) for c in twin.rules[pair.rule].kept]
        return (
            pair.identity is not None
            and (source[0], target[0]) == (pair.identity, None)
            and source[1 + pair.rule] == target[1 + pair.rule] == pair.digest
            and all(
                (source[first_link + i], target[first_link + i]) == pair.links[2 * i : 2 * i + 2]
                for i in kept
            )
        )

    return [pair for pair in pairs if same(pair)]


def _rule(twin: Twin, pair: Pair) -> str:
    """The rule as it is recorded, with how probable the match was."""
    text = twin.rules[pair.rule].text
    return text if pair.score is None else f"{text}: {pair.score:.4f}"


def _now(
    side: Side, twin: Twin, keys: Sequence[str], connection: sa.Connection | None = None
) -> dict[str, tuple[Any, ...]]:
    """By key: the row's id, its digest by each rule, and its references, as they are now."""
    found: dict[str, tuple[Any, ...]] = {}
    for block in side.blocks_of(twin, keys, connection):
        links = [block.texts[name] for name in twin.linked]
        columns = [block.ids, *key_digests(twin, block, Counter()), *links]
        found |= zip(block.keys, zip(*columns, strict=True), strict=True)
    return found


def _stage(side: Side, twin: Twin, connection: sa.Connection) -> sa.Table | None:
    """A table for keys and ids on their way into rows; None where no row gets one."""
    if twin.paired is not None:
        return None
    table = twin.side(side.role)
    columns = [sa.Column(f"k{i}", c.type) for i, c in enumerate(table.primary_key.columns)]
    name = f"headwater_enrol_{twin.number}"
    identity = sa.Column("identity", table.c[twin.sync].type)
    stage = sa.Table(name, sa.MetaData(), *columns, identity, prefixes=["TEMPORARY"])
    side.server.make(connection, stage)
    return stage


def _write(
    both: Both,
    twin: Twin,
    connection: sa.Connection,
    stage: sa.Table | None,
    pairs: Sequence[Pair],
    rules: Sequence[str],
) -> None:
    if twin.paired is not None:
        paired.write(connection, twin.paired, pairs)
    elif stage is not None:
        _fill(both, twin, connection, stage, pairs)
    records = _records(both.source_name, twin, pairs, rules)
    both.target.server.stage(connection, ENROLLED, records)


def _fill(
    both: Both, twin: Twin, connection: sa.Connection, stage: sa.Table, pairs: Sequence[Pair]
) -> None:
    """Give the target's rows their partners' ids: all of them, or none."""
    server, table = both.target.server, twin.side("target")
    keys = list(zip(*(json.loads(p.target_key) for p in pairs), strict=True))
    columns = list(table.primary_key.columns)
    staged = {f"k{i}": _fields(c, list(v)) for i, (c, v) in
              enumerate(zip(columns, keys, strict=True))}  # fmt: skip
    staged["identity"] = fields.text([p.identity for p in pairs])
    server.clear(connection, stage, len(pairs))
    server.stage(connection, stage, fields.lines(staged))
    same = [c == stage.c[f"k{i}"] for i, c in enumerate(columns)]
    values = {table.c[twin.sync]: stage.c.identity}
    values |= {table.c[name]: table.c[name] for name in touched(both.target, twin)}
    update = sa.update(table).values(values).where(*same, table.c[twin.sync].is_(None))
    count = connection.execute(update).rowcount
    if count != len(pairs):
        connection.rollback()
        raise Operator(
            f"gave ids to {count} of {len(pairs)} rows of {twin.name}, and took them back",
            hint="a trigger of the target hinders it, or its primary key is not compared exactly",
        )


def _records(source: str, twin: Twin, pairs: Sequence[Pair], rules: Sequence[str]) -> Lines:
    rows = len(pairs)
    return fields.lines(
        {
            "source": [source] * rows,
            "table_name": fields.text([twin.name] * rows),
            "identity": fields.text([p.identity for p in pairs]),
            "enrolled_at": [str(time_ns() // 1000)] * rows,
            "local_key": fields.text([p.target_key for p in pairs]),
            "source_key": fields.text([p.source_key for p in pairs]),
            "rule": fields.text(list(rules)),
        }
    )


def _fields(column: sa.Column[Any], values: list[Any]) -> list[str]:
    if isinstance(column.type, sa.LargeBinary | sa.types._Binary):
        return fields.hexadecimal(values)
    return fields.text([None if v is None else str(v) for v in values])


def undone(both: Both, twin: Twin) -> list[tuple[str, str]]:
    """Matches that were undone by hand, and not made again since: (target key, id)."""
    with both.target.connected() as connection:
        if not sa.inspect(connection).has_table(ENROLLED.name):
            return []
        e = ENROLLED.c
        mine = (e.source == both.source_name) & (e.table_name == twin.name)
        lines = connection.execute(
            sa.select(e.local_key, e.identity, e.undone_at).where(mine).order_by(e.enrolled_at)
        ).all()
    last = {(key, identity): at for key, identity, at in lines}
    return [pair for pair, at in last.items() if at is not None]


def undo(
    both: Both, twin: Twin, identities: Iterable[str], *, mint: bool
) -> list[tuple[str, str | None]]:
    """Take ids back from rows that enrol gave them to: (target key, the row's id now).

    The rows stay as they are; all of them or none. Raises Misconfigured for an id that enrol gave
    to no row, or whose row is gone.
    """
    e, found = ENROLLED.c, []
    if mint and twin.paired is not None:
        raise Misconfigured(
            f"cannot mint an id for a row of {twin.name}, whose ids are pairs",
            hint="leave out --mint: a row without a pair is the target's own",
        )
    with both.target.connected() as connection:
        if not sa.inspect(connection).has_table(ENROLLED.name):
            raise _unknown(twin, next(iter(identities), ""))
        if twin.paired is not None:
            paired.hold(connection, both.source_name)
        for identity in identities:
            mine = (e.source == both.source_name) & (e.table_name == twin.name)
            mine &= (e.identity == identity) & e.undone_at.is_(None)
            key = connection.scalar(sa.select(e.local_key).where(mine))
            if key is None:
                raise _unknown(twin, identity)
            now = str(uuid4()) if mint else None
            if not _take_back(both, twin, connection, key, identity, now):
                raise Misconfigured(
                    f"found no row {key} of {twin.name} in target {both.target.name} with that id",
                    hint="it was deleted or has another id: nothing was changed",
                )
            at = time_ns() // 1000
            connection.execute(sa.update(ENROLLED).where(mine).values(undone_at=at))
            found.append((key, now))
        connection.commit()
    return found


def _take_back(
    both: Both, twin: Twin, connection: sa.Connection, key: str, identity: str, now: str | None
) -> bool:
    """Let the target's row of this key have the id `now`, or none; whether it had `identity`."""
    if twin.paired is not None:
        return paired.end(connection, twin.paired, identity, key)
    table = twin.side("target")
    sync = table.c[twin.sync]
    values: dict[Any, Any] = {sync: sa.type_coerce(now, sa.String) if now else sa.null()}
    values |= {table.c[n]: table.c[n] for n in touched(both.target, twin)}
    where = both.target.has_key(twin, [key]) & (sa.type_coerce(sync, sa.String) == identity)
    return connection.execute(sa.update(table).values(values).where(where)).rowcount == 1


def _unknown(twin: Twin, identity: str) -> Misconfigured:
    return Misconfigured(
        f"found no assignment of {identity} in {twin.name} that stands",
        hint="headwater_enrolled in the target lists what enrol assigned",
    )


def resolve(both: Both, twin: Twin, source_key: str, target_key: str) -> str:
    """Give one row of the target the id of one row of the source, as a person says; the id.

    Keys are primary keys as JSON. Raises Misconfigured where one of the rows is not there, has no
    id, or has a partner already.
    """
    here = _now(both.source, twin, [source_key])
    if source_key not in here:
        raise Misconfigured(f"found no row {source_key} of {twin.name} in the source", hint=_SEE)
    identity = here[source_key][0]
    if identity is None:
        raise Misconfigured(
            f"found the row {source_key} of {twin.name} without an id",
            hint="run first: headwater enrol SOURCE TARGET --apply",
        )
    with both.target.connected() as connection:
        if twin.paired is not None:
            paired.hold(connection, both.source_name)
        there = _now(both.target, twin, [target_key], connection)
        if target_key not in there:
            raise Misconfigured(
                f"found no row {target_key} of {twin.name} in the target", hint=_SEE
            )
        own = there[target_key][0]
        taken = _is_taken(twin, connection, source_key, identity)
        if own is not None or taken:
            raise Misconfigured(
                f"found that {'the target row' if own else 'the source row'} has a "
                "partner, or an id, already",
                hint=f"take it back first: headwater enrol undo {both.target.name} {twin.name} ID",
            )
        stage = _stage(both.target, twin, connection)
        pair = Pair(0, 0, source_key, target_key, identity, 0, b"", ())
        _write(both, twin, connection, stage, [pair], [BY_HAND])
        connection.commit()
    return str(identity)


def _is_taken(twin: Twin, connection: sa.Connection, source_key: str, identity: str) -> bool:
    """Whether a row of the target has the id of this row of the source."""
    if twin.paired is not None:
        return not paired.free(connection, twin.paired, [source_key])
    column = sa.type_coerce(twin.side("target").c[twin.sync], sa.String)
    return connection.scalar(sa.select(sa.literal(1)).where(column == identity)) is not None


_SEE = "keys are primary keys, one --source-key and --target-key for each of their columns"
