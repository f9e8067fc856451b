"""Apply with two translated foreign keys a row, to a target whose parents have keys of its own.

Beside it: the same apply of the same rows where the target keeps the source's keys
(`primary_keys = "copy"`) and nothing is translated; both targets have the foreign keys. For every
child row there are five parents, and a row references any two of them. Both sides are the apply
loop in a process of its own, from the embedded log's file to the last commit; opening both and
planning are left out (a beat is applied first).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Any

from apply.loop import apply
from apply.mysql import MySQLTarget
from apply.postgres import PostgresTarget
from apply.target import Placement
from bench import orders
from bench.envelopes import COMMITTED_AT, image
from bench.measure import Clock, Figure, Sample, by_turns, compared, isolated
from bench.servers import server
from bench.topics import Different
from schemas.change import Commit, Piece, Position, Rows, Stamp
from schemas.codec import Envelope
from schemas.kinds import Kind
from schemas.table import Column, ForeignKey, Table
from tests.services import mysql, postgres
from tests.services.database import Database, fresh
from tests.services.server import Server
from transport.sqlite import SqliteLog

ROWS = 200_000
PARENTS = 5
"""For each row that references them."""
PER_BATCH = 10_000
OWN_KEYS_FROM = 10_000_000
REFERENCES = {"buyer_id": 7_919, "seller_id": 104_729}
"""Each with the stride by which rows walk over the parents."""
STAGES = ("parents", "insert", "update")
WAYS = {"local": "keys translated", "copy": "the same, keys copied"}
SOURCE = "bench"


def apply_translated(rows: int) -> Iterator[Figure]:
    for kind in ("postgres", "mysql"):
        with ExitStack() as stack:
            at = stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-bench-"))
            path, running = Path(at) / "log.db", stack.enter_context(server(kind))
            ends = _write(path, kind, rows)

            def side(way: str, kind: str = kind) -> Sequence[Sample]:
                return _side(kind, way, path, ends, running, rows)  # noqa: B023 used at once

            found = list(by_turns(lambda _: side("local"), lambda _: side("copy")))
            ours, theirs = found[: len(STAGES)], found[len(STAGES) :]
            for nth, stage in enumerate(STAGES):
                yield compared(
                    "apply-translated", f"{kind}, {stage}", ours[nth], WAYS["copy"], theirs[nth]
                )


def people(family: str) -> Table:
    """The parents: a key, an identity and a name."""
    table = orders.table(family)
    kept = tuple(c for c in table.columns if c.name in ("id", "sync_id", "status"))
    return replace(table, name="people", columns=kept)


def deals(family: str) -> Table:
    """The measured table with two references."""
    table = orders.table(family)
    more = (Column(name=n, kind=Kind(name="int", bits=64), nullable=False) for n in REFERENCES)
    keys = (
        ForeignKey(column=name, parent=people(family).full_name, parent_column="id")
        for name in REFERENCES
    )
    return replace(table, name="deals", columns=(*table.columns, *more), foreign_keys=tuple(keys))


def referenced(number: int, version: int, parents: int) -> Mapping[str, int]:
    """The parents of row `number`; an update moves it to others."""
    return {
        name: 1 + (number * stride + version * 31) % parents for name, stride in REFERENCES.items()
    }


# The log.


def _write(path: Path, kind: str, rows: int) -> Sequence[int]:
    """All stages into a log; the number of the batch that ends each, the beat's first."""
    ends = []
    with closing(SqliteLog(path, SOURCE)) as log:
        stamp, parents = log.open().stamp, rows * PARENTS
        stages = [[range(parents + 1, parents + 2)], _parts(parents), _parts(rows), _parts(rows)]
        written = 0
        for nth, parts in enumerate(stages):
            for numbers in parts:
                log.append(_piece(kind, stamp, nth, numbers, parents))
                written += 1
            ends.append(written)
        log.flush()
        numbered = [batch.batch for batch in log.read(None, follow=False) if batch is not None]
    return [numbered[end - 1] for end in ends]


def _parts(rows: int) -> list[range]:
    return [range(at, min(at + PER_BATCH, rows + 1)) for at in range(1, rows + 1, PER_BATCH)]


def _piece(kind: str, stamp: Stamp, nth: int, numbers: range, parents: int) -> Piece:
    """A batch of one stage: parents (the beat is one), children, or their second version."""
    run, is_update = stamp.draw(), nth == 3
    table = people(kind) if nth < 2 else deals(kind)
    envelope = Envelope(
        table,
        connector="mysql" if kind == "mysql" else "postgresql",
        source=SOURCE,
        epoch=stamp.epoch,
        run=run,
        committed_at=COMMITTED_AT,
    )
    keys, values = [], []
    for ordinal, number in enumerate(numbers):
        after = _image(table, number, int(is_update), parents)
        keys.append(f'{{"sync_id":"{_named(table, number)}"}}'.encode())
        if is_update:
            values.append(envelope.update(_image(table, number, 0, parents), after, ordinal))
        else:
            values.append(envelope.create(after, ordinal))
    made = Rows(
        table=table,
        ops=["u" if is_update else "c"] * len(keys),
        ordinals=list(range(len(keys))),
        keys=keys,
        values=values,
    )
    commit = Commit(position=Position(f"run {run}"), committed_at=COMMITTED_AT, transactions=100)
    return Piece(run=run, rows=(made,), commit=commit)


def _image(table: Table, number: int, version: int, parents: int) -> str:
    found: dict[str, Any] = image(number, version) | {"sync_id": _named(table, number)}
    if table.foreign_keys:
        found |= referenced(number, version, parents)
    return dumps({c.name: found[c.name] for c in table.columns}, ensure_ascii=False)


def _named(table: Table, number: int) -> str:
    """The identity of a row; parents and children share none."""
    return orders.sync_id(number)[:-12] + f"{number + (len(table.name) << 40):012x}"


# One side.


def _side(
    kind: str, way: str, path: Path, ends: Sequence[int], running: Server, rows: int
) -> Sequence[Sample]:
    with fresh(running) as made:
        samples = isolated(_applied, kind, way, made.url, path, ends, rows)
        _compare(made, kind, rows)
    return samples


def _applied(
    kind: str, way: str, url: str, path: Path, ends: Sequence[int], rows: int
) -> Sequence[Sample]:
    """Apply stage after stage, each timed."""
    placement = Placement(primary_keys="local" if way == "local" else "copy")
    made = (PostgresTarget if kind == "postgres" else MySQLTarget)("bench", url, SOURCE, placement)
    samples = []
    with closing(made) as target, closing(SqliteLog(path, SOURCE)) as log:
        target.prepare([people(kind), deals(kind)])
        _shift(kind, url)
        apply(log, target, follow=False, last=ends[0])
        for stage, end in zip(STAGES, ends[1:], strict=True):
            clock = Clock()
            with clock:
                apply(log, target, follow=False, last=end)
            samples.append(clock.sample(rows * PARENTS if stage == "parents" else rows))
    return samples


def _shift(kind: str, url: str) -> None:
    """Let keys of the target's own be other ones than the source's."""
    driver: Any = postgres if kind == "postgres" else mysql
    statement = (
        f"select setval(pg_get_serial_sequence('people', 'id'), {OWN_KEYS_FROM})"
        if kind == "postgres"
        else f"alter table people auto_increment = {OWN_KEYS_FROM}"
    )
    with closing(driver.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def _compare(database: Database, kind: str, rows: int) -> None:
    """Every row and both of its parents, by their sync_ids; raises Different."""
    parents, child, parent = rows * PARENTS, deals(kind), people(kind)
    joins = " ".join(
        f"join people as {name[0]} on {name[0]}.id = deals.{name}" for name in REFERENCES
    )
    names = ", ".join(f"{name[0]}.sync_id" for name in REFERENCES)
    found = {
        str(identity): tuple(map(str, theirs))
        for identity, *theirs in database.query(f"select deals.sync_id, {names} from deals {joins}")
    }
    if len(found) != rows:
        raise Different(f"the target holds {len(found):,} of {rows:,} rows with both parents")
    for number in range(1, rows + 1):
        wanted = referenced(number, 1, parents)
        if found.get(_named(child, number)) != tuple(_named(parent, w) for w in wanted.values()):
            raise Different(f"row {number} references other parents than at the source")
