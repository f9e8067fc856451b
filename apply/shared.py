"""The referee in a third database, shared by several environments: which row of which of them is
the same, `(environment, table, local key) <-> sync_id`. A source is an environment, too, by its
name; its intervals are those of apply/meanings.py.

A target's own pairs stand in headwater_referee, in the transactions that write its rows. Here a
pair is reserved before its row is written, and confirmed when that is durable; the target says what
became of it (headwater_untold). So a crash between leaves one active mapping, and no second row.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa

from apply.meanings import Meaning, Moment, meant
from apply.own import name_type
from apply.server import Cause, Server
from apply.target import Mapped, State
from schemas.errors import Misconfigured, Operator, Transient

BLOCK = 1_000
LAST = 2**62
"""The ordinal after every row of a batch."""

METADATA = sa.MetaData()

SHARED = sa.Table(
    "headwater_shared",
    METADATA,
    sa.Column(
        "number",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    sa.Column("environment", name_type(64), nullable=False),
    sa.Column("table_name", name_type(192), nullable=False),
    sa.Column("local_key", sa.BigInteger, nullable=False),
    sa.Column("sync_id", name_type(36), nullable=False),
    sa.Column("pair", name_type(36)),
    sa.Column("state", name_type(16), nullable=False),
    sa.Column("live", sa.SmallInteger),
    sa.Column("since_batch", sa.BigInteger, nullable=False),
    sa.Column("since_ordinal", sa.BigInteger, nullable=False),
    sa.Column("is_exact", sa.SmallInteger, nullable=False),
    sa.Column("until_batch", sa.BigInteger),
    sa.Column("until_ordinal", sa.BigInteger),
    sa.UniqueConstraint("environment", "table_name", "local_key", "live"),
    sa.UniqueConstraint("environment", "sync_id", "live"),
    sa.Index("headwater_shared_by_pair", "pair"),
    sa.Index("headwater_shared_by_sync_id", "sync_id"),
)
"""live: 1 while it is reserved or active, NULL once it has ended; pair: what a target's own
headwater_referee calls it. Places are those of the source's log.
"""

ENVIRONMENT = sa.Table(
    "headwater_environment",
    METADATA,
    sa.Column("environment", name_type(64), primary_key=True),
    sa.Column("changes", sa.BigInteger, nullable=False),
)
"""Who takes part; a source's row is locked while its keys are given a meaning."""


class Mine(NamedTuple):
    """A pair of a target. at: where in the log its row was met, or made (is_new)."""

    pair: str
    table: str
    source_key: int
    local_key: int
    at: Moment
    is_new: bool = False
    until_batch: int | None = None
    """Of a pair that ended."""
    is_by_hand: bool = False
    """It was ended by a person: the source may have the row still."""


class Shared:
    """The shared referee as one target of one source sees it."""

    def __init__(self, server: Server, source: str, environment: str) -> None:
        self._server, self._source, self.environment = server, source, environment

    def close(self) -> None:
        """Close every connection; idempotent."""
        self._server.engine.dispose()

    # Its tables.

    def prepare(self, *, dry_run: bool = False) -> tuple[list[str], bool]:
        """Make what is missing; the statements, and whether this environment is a new one."""
        with self._connected() as connection:
            there = sa.inspect(connection)
            tables = [t for t in METADATA.sorted_tables if not there.has_table(t.name)]
            names = [] if tables else list(connection.scalars(sa.select(ENVIRONMENT.c.environment)))
            if not dry_run:
                METADATA.create_all(connection)
                for name in dict.fromkeys((self._source, self.environment)):
                    if name not in names:
                        row = {"environment": name, "changes": 0}
                        connection.execute(sa.insert(ENVIRONMENT).values(row))
                connection.commit()
            dialect = self._server.engine.dialect
            made = [str(sa.schema.CreateTable(t).compile(dialect=dialect)).strip() for t in tables]
            return made, self.environment not in names

    def forget(self) -> None:
        """Take this environment out, with all its mappings."""
        with self._connected() as connection:
            if sa.inspect(connection).has_table(SHARED.name):
                for table in (SHARED, ENVIRONMENT):
                    mine = table.c.environment == self.environment
                    connection.execute(sa.delete(table).where(mine))
                connection.commit()

    # A batch of the target's.

    def abandon(self) -> None:
        """Forget what was reserved and never confirmed. Only by who applies to the target, when
        all that it has is told.
        """
        with self._connected() as connection:
            mine = (SHARED.c.environment == self.environment) & (SHARED.c.state == "reserved")
            connection.execute(sa.delete(SHARED).where(mine))
            connection.commit()

    def reserve(self, wanted: Sequence[Mine]) -> None:
        """Map rows that are about to be written; durable at the return."""
        with self._locked() as connection:
            self._map(connection, wanted, "reserved")
            connection.commit()

    def tell(self, pairs: Sequence[Mine]) -> None:
        """Confirm, or end, what is durable in the target; idempotent."""
        s = SHARED.c
        with self._locked() as connection:
            self._end(connection, [pair for pair in pairs if pair.until_batch is not None])
            lasting = {pair.pair: pair for pair in pairs if pair.until_batch is None}
            for some in _blocks(list(lasting)):
                there = set(connection.scalars(sa.select(s.pair).where(s.pair.in_(some))))
                mine = s.pair.in_(some) & (s.live == 1)
                connection.execute(sa.update(SHARED).where(mine).values(state="active"))
                # Those that no applier reserved: pairs that people made.
                missing = [lasting[pair] for pair in some if pair not in there]
                self._map(connection, missing, "active")
            connection.commit()

    def _end(self, connection: sa.Connection, ended: Sequence[Mine]) -> None:
        s = SHARED.c
        by_pair = {pair.pair: pair for pair in ended}
        for some in _blocks(list(by_pair)):
            of = s.pair.in_(some)
            found = connection.execute(sa.select(s.pair, s.sync_id).where(of)).all()
            gone = {"live": None, "state": "ended"}
            connection.execute(sa.update(SHARED).where(of).values(gone))
            names = [row.sync_id for row in found]
            here = s.sync_id.in_(names) & (s.live == 1) & (s.environment != self._source)
            left = set(connection.scalars(sa.select(s.sync_id).where(here)))
            for pair, sync_id in found:
                if sync_id in left or by_pair[pair].is_by_hand:
                    continue
                # Nobody has it any more.
                at = {"until_batch": by_pair[pair].until_batch, "until_ordinal": LAST}
                last = (s.sync_id == sync_id) & (s.environment == self._source) & (s.live == 1)
                connection.execute(sa.update(SHARED).where(last).values(gone | at))

    def _map(self, connection: sa.Connection, wanted: Sequence[Mine], state: State) -> None:
        """Give each row its sync_id. The target says what is so: what is in the way has ended."""
        s, mine = SHARED.c, (SHARED.c.environment == self.environment) & (SHARED.c.live == 1)
        for table in dict.fromkeys(pair.table for pair in wanted):
            for some in _blocks([pair for pair in wanted if pair.table == table]):
                names = self._named(connection, table, some)
                keys = [pair.local_key for pair in some]
                in_the_way = s.sync_id.in_(names) | (
                    (s.table_name == table) & s.local_key.in_(keys)
                )
                gone = {"live": None, "state": "ended"}
                connection.execute(sa.update(SHARED).where(mine, in_the_way).values(gone))
                rows = [
                    self._row(table, pair.local_key, Meaning(None, name, pair.at, False, None))
                    | {"environment": self.environment, "pair": pair.pair, "state": state}
                    for pair, name in zip(some, names, strict=True)
                ]
                connection.execute(sa.insert(SHARED), rows)

    def _named(self, connection: sa.Connection, table: str, some: Sequence[Mine]) -> list[str]:
        """The sync_ids of these rows of the source."""
        s = SHARED.c
        of = (s.environment == self._source) & (s.table_name == table)
        keys = [pair.source_key for pair in some]
        known: dict[int, list[Meaning]] = {key: [] for key in keys}
        for row in connection.execute(sa.select(SHARED).where(of, s.local_key.in_(keys))):
            until = None if row.live == 1 else (row.until_batch, row.until_ordinal)
            since = row.since_batch, row.since_ordinal
            one = Meaning(row.number, row.sync_id, since, bool(row.is_exact), until)
            known[row.local_key].append(one)
        names = [meant(known[p.source_key], p.at, is_new=p.is_new).sync_id for p in some]
        for key, meanings in known.items():
            for one in meanings:
                if one.is_changed and one.number is not None:
                    changed = sa.update(SHARED).where(s.number == one.number)
                    connection.execute(changed.values(self._row(table, key, one)))
        new = [
            self._row(table, key, one)
            for key, meanings in known.items()
            for one in meanings
            if one.number is None
        ]
        if new:
            connection.execute(sa.insert(SHARED), new)
        return names

    def _row(self, table: str, key: int, one: Meaning) -> dict[str, Any]:
        return {
            "environment": self._source,
            "table_name": table,
            "local_key": key,
            "sync_id": one.sync_id,
            "pair": None,
            "state": "active" if one.until is None else "ended",
            "live": 1 if one.until is None else None,
            "since_batch": one.since[0],
            "since_ordinal": one.since[1],
            "is_exact": int(one.is_exact),
            "until_batch": None if one.until is None else one.until[0],
            "until_ordinal": None if one.until is None else one.until[1],
        }

    # For people.

    def mappings(
        self, table: str, source_keys: Sequence[int], *, ended: bool = False
    ) -> Iterator[Mapped]:
        """The mappings of a table in every environment, row by row, the source's first; of these
        keys, where there are any.
        """
        s, first = SHARED.c, SHARED.alias()
        with self._connected() as connection:
            chosen = sa.select(SHARED).where(s.table_name == table)
            if not ended:
                chosen = chosen.where(s.live == 1)
            if source_keys:
                of = sa.select(first.c.sync_id).where(
                    first.c.environment == self._source,
                    first.c.table_name == table,
                    first.c.local_key.in_(source_keys),
                )
                chosen = chosen.where(s.sync_id.in_(of))
            is_source = sa.case((s.environment == self._source, 0), else_=1)
            ordered = chosen.order_by(s.sync_id, is_source, s.environment, s.number)
            for row in connection.execution_options(yield_per=10_000).execute(ordered):
                yield Mapped(row.environment, row.table_name, row.local_key, row.sync_id, row.state)

    # Connections.

    @contextmanager
    def _locked(self) -> Iterator[sa.Connection]:
        """A connection while nobody else gives the source's keys a meaning."""
        with self._connected() as connection:
            e = ENVIRONMENT.c
            locked = sa.update(ENVIRONMENT).where(e.environment == self._source)
            if connection.execute(locked.values(changes=e.changes + 1)).rowcount != 1:
                raise Operator(
                    f"found no environment {self._source} in the shared referee",
                    hint="run: headwater prepare, which makes it",
                )
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """A connection of its own, rolled back unless it was committed; driver errors are ours."""
        try:
            with self._server.engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            cause, why = self._server.cause(error), self._server.explain(error)
            if cause in (Cause.LOST, Cause.LOCKED):
                raise Transient(f"lost the shared referee: {why}") from error
            if cause is Cause.DENIED:
                raise Misconfigured(
                    f"cannot use the shared referee: {why}",
                    hint="check the target's referee.url, the account's password and grants",
                ) from error
            if not sa.inspect(self._server.engine).has_table(SHARED.name):
                raise Operator(
                    "found no tables of the shared referee", hint="run: headwater prepare"
                ) from error
            raise


def _blocks(values: Sequence[Any]) -> Iterable[Any]:
    return (values[at : at + BLOCK] for at in range(0, len(values), BLOCK))
