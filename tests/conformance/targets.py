"""What target tests share: a stream of batches through the real codec and the log in memory, and
targets to take it.

Another target joins every test of test_target.py by an entry in KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from apply.mysql import MySQLTarget
from apply.postgres import PostgresTarget
from apply.sqlite import SqliteTarget
from apply.target import Placement, Target
from schemas.canonical import canonical
from schemas.change import Batch, Commit, Offset, Piece, Position, Progress, Rows, Sweep, Truncate
from schemas.codec import Envelope, encode_seed
from schemas.kinds import Kind
from schemas.table import Column, CompositeKey, ForeignKey, Table
from tests import services
from tests.services.database import Database, fresh
from transport.memory import MemoryLog, MemoryStore

SERVERS = ("postgres", "mysql", "mariadb")
KINDS = (*SERVERS, "sqlite")
SOURCE = "shop"
SYNC_ID = Column(name="sync_id", kind=Kind(name="text", length=36), nullable=False)
ID = Column(name="id", kind=Kind(name="int", bits=32), nullable=False)


def column(
    name: str, kind: Kind | None = None, *, nullable: bool = True, native: str = ""
) -> Column:
    """A column; text(50) unless said otherwise."""
    kind = kind or Kind(name="text", length=50)
    return Column(name=name, kind=kind, nullable=nullable, native=native)


INT = Kind(name="int", bits=32)


def table(
    name: str,
    *columns: Column,
    identity: tuple[str, ...] = ("sync_id",),
    uniques: tuple[tuple[str, ...], ...] = (),
    foreign_keys: tuple[ForeignKey, ...] = (),
    composite_keys: tuple[CompositeKey, ...] = (),
    family: str = "postgres",
    primary_key: tuple[str, ...] = ("id",),
) -> Table:
    """A source table with id and sync_id before the given columns."""
    return Table(
        family=family,
        schema="app",
        name=name,
        columns=(ID, SYNC_ID, *columns),
        primary_key=primary_key,
        identity=identity,
        uniques=uniques,
        foreign_keys=foreign_keys,
        composite_keys=composite_keys,
    )


def foreign_key(name: str, parent: str, on_delete: str = "NO ACTION") -> ForeignKey:
    """A foreign key to app.<parent>.id."""
    return ForeignKey(column=name, parent=f"app.{parent}", parent_column="id", on_delete=on_delete)


@dataclass(frozen=True, slots=True)
class Change:
    """One row of a batch, or a truncate (op "t"). is_moved: a delete that gave up an identity."""

    op: str
    table: Table
    after: dict[str, Any] | None = None
    before: dict[str, Any] | None = None
    is_moved: bool = False


def c(table: Table, **after: Any) -> Change:
    return Change("c", table, after)


def r(table: Table, **after: Any) -> Change:
    return Change("r", table, after)


def u(table: Table, before: dict[str, Any] | None = None, **after: Any) -> Change:
    return Change("u", table, after, before)


def d(table: Table, **before: Any) -> Change:
    return Change("d", table, None, before)


def moved(table: Table, **before: Any) -> Change:
    return Change("d", table, None, before, is_moved=True)


def t(table: Table) -> Change:
    return Change("t", table)


def s(table: Table, source_key: int, sync_id: str) -> Change:
    return Change("s", table, {"source_key": source_key, "sync_id": sync_id})


def _text(image: dict[str, Any] | None) -> str:
    return "null" if image is None else orjson.dumps(image).decode()


def _append(rows: list[Rows], row: Rows) -> None:
    """Add a row to the last run if that is its table's, as sources do."""
    last = rows[-1] if rows else None
    if last is None or last.table is not row.table or last.ordinals[-1] + 1 != row.ordinals[0]:
        rows.append(row)
        return
    last.ops += row.ops
    last.ordinals += row.ordinals
    last.keys += row.keys
    last.values += row.values
    last.partial |= row.partial


class Stream:
    """A source's stream: batches written to a log in memory and read back."""

    def __init__(self, name: str = SOURCE) -> None:
        self.log = MemoryLog(name, MemoryStore())
        self._name, self._stamp = name, self.log.open().stamp
        self._position = 0

    def batch(
        self,
        *changes: Change,
        progress: Progress | None = None,
        for_target: str | None = None,
        sweeps: tuple[Sweep, ...] = (),
        check: bool = False,
        reader: str | None = None,
    ) -> Batch:
        """One batch of these changes, in this order, as the target `reader` gets it."""
        self._position += 1
        run = self._stamp.draw()
        rows: list[Rows] = []
        truncates: list[Truncate] = []
        for ordinal, change in enumerate(changes):
            if change.op == "t":
                truncates.append(Truncate(table=change.table.full_name, ordinal=ordinal))
            else:
                _append(rows, self._row(change, run, ordinal))
        commit = Commit(
            position=Position(f"p{self._position}"),
            committed_at=1_700_000_000_000_000 + self._position,
            transactions=1,
            progress=progress,
            for_target=for_target,
            sweeps=sweeps,
            check=check,
        )
        piece = Piece(run=run, rows=tuple(rows), truncates=tuple(truncates), commit=commit)
        self.log.append(piece)
        self.log.flush()
        return self.batches(reader)[-1]

    def batches(self, reader: str | None = None) -> list[Batch]:
        """All batches, oldest first."""
        return [b for b in self.log.read(None, follow=False, target=reader) if b is not None]

    def _row(self, change: Change, run: int, ordinal: int) -> Rows:
        table, epoch = change.table, self._stamp.epoch
        image = change.after if change.after is not None else change.before
        assert image is not None
        key = orjson.dumps({n: image[n] for n in table.identity})
        envelope = Envelope(
            table, connector="test", source=self._name, epoch=epoch, run=run, committed_at=1
        )
        if change.op == "s":
            value = encode_seed(
                table, image["source_key"], key, epoch=epoch, run=run, ordinal=ordinal
            )
        elif change.op == "d":
            write = envelope.moved if change.is_moved else envelope.delete
            value = write(_text(image), ordinal)
        elif change.op == "u":
            value = envelope.update(_text(change.before), _text(change.after), ordinal)
        else:
            make = envelope.create if change.op == "c" else envelope.read
            value = make(_text(change.after), ordinal)
        partial = change.op == "u" and len(change.after or {}) < len(table.columns)
        return Rows(
            table=table,
            ops=[change.op],
            ordinals=[ordinal],
            keys=[key],
            values=[value],
            partial=partial,
        )


@dataclass
class Place:
    """One target database, and ways to look into it past Headwater."""

    kind: str
    database: Database
    opened: list[Target] = field(default_factory=list)

    @property
    def is_mysql(self) -> bool:
        return self.kind in ("mysql", "mariadb")

    @property
    def is_sqlite(self) -> bool:
        return self.kind == "sqlite"

    def target(self, source: str = SOURCE, **placement: Any) -> Target:
        """A target over this database, as a new process would have it."""
        by_kind: dict[str, Callable[..., Target]] = {
            "postgres": PostgresTarget,
            "sqlite": SqliteTarget,
        }
        made = by_kind.get(self.kind, MySQLTarget)(
            "t", self.database.url, source, Placement(**placement)
        )
        self.opened.append(made)
        return made

    def execute(self, *statements: str) -> None:
        """Run SQL that every server understands, "…" meaning an identifier's quotes."""
        with closing(self.database.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement.replace('"', "`") if self.is_mysql else statement)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.database.query(sql)

    @property
    def serial(self) -> str:
        """The type of a primary key that the target generates."""
        if self.is_sqlite:
            return "integer primary key"
        return "int auto_increment primary key" if self.is_mysql else "serial primary key"

    def tables(self) -> set[str]:
        """Names of all tables."""
        if self.is_sqlite:
            every = (
                "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
            )
        else:
            schema = "database()" if self.is_mysql else "'public'"
            every = (
                f"select table_name from information_schema.tables where table_schema = {schema}"
            )
        return {name for (name,) in self.query(every)}

    def foreign_keys(self) -> int:
        """How many foreign keys there are."""
        if self.is_sqlite:
            every = "select count(*) from sqlite_master m, pragma_foreign_key_list(m.name) f"
        else:
            schema = "constraint_schema" if self.is_mysql else "constraint_catalog"
            here = "database()" if self.is_mysql else "current_database()"
            every = (
                "select count(*) from information_schema.table_constraints "
                f"where constraint_type = 'FOREIGN KEY' and {schema} = {here}"
            )
        return int(self.query(every)[0][0])

    def check(self, table: str, column: str, test: str) -> None:
        """Refuse rows whose column does not pass; SQLite adds no constraint to a table."""
        if not self.is_sqlite:
            check = f"check ({column} {test})"
            self.execute(f"alter table {table} add constraint checked_{table} {check}")
            return
        for event in ("insert", "update"):
            self.execute(
                f"create trigger checked_{table}_{event} before {event} on {table} "
                f"when not (new.{column} {test}) begin select raise(abort, 'refused'); end"
            )

    def uncheck(self, table: str) -> None:
        """Refuse no row of the table any more."""
        name = f"checked_{table}"
        if self.is_sqlite:
            self.execute(f"drop trigger {name}_insert", f"drop trigger {name}_update")
        else:
            self.execute(f"alter table {table} drop constraint {name}")


def deliver(
    target: Target, batch: Batch, expect: Offset | None = None, *, first: bool = False
) -> int:
    """Apply one batch where the target stands."""
    return target.apply(batch, expect=expect if first else target.checkpoint())


def held(target: Target, table: Table) -> list[dict[str, Any]]:
    """The target's rows in canonical form, sorted by identity."""
    forms = {column.name: canonical(column.kind) for column in table.columns}
    parents = {key.column for key in table.foreign_keys}
    found = []
    for names, block in target.rows(table):
        for values in block:
            row = dict(zip(names, values, strict=True))
            found.append(
                {
                    n: v if n in parents and isinstance(v, str) else forms[n](v)
                    for n, v in row.items()
                }
            )
    return sorted(found, key=lambda row: str([row[n] for n in table.identity]))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A fresh database of each kind of target."""
    with _opened(Place(request.param, request.getfixturevalue(f"{request.param}_db"))) as made:
        yield made


@pytest.fixture(params=SERVERS)
def private_place(request: pytest.FixtureRequest, server_dir: Path) -> Iterator[Place]:
    """The same on a server of its own, whose global settings may change."""
    with (
        services.start(request.param, server_dir) as server,
        fresh(server) as database,
        _opened(Place(request.param, database)) as made,
    ):
        yield made


@contextmanager
def _opened(place: Place) -> Iterator[Place]:
    yield place
    for target in place.opened:
        target.close()
