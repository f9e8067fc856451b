"""A target database: the seam's methods over a `Server`, the same for PostgreSQL, MySQL,
MariaDB and SQLite.

One connection, one transaction per batch: the checkpoint's compare-and-set first, rows, commit.
After any error the connection is thrown away, and with it every staging table and plan: the next
call starts from what is durable.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import sqlalchemy as sa

from apply import exempt, pairs, parked, read_back, told
from apply.barrier import compare
from apply.beats import removal
from apply.catalog import Catalog
from apply.checkpoint import lock, move, of
from apply.mark import is_marked, mark, unmark
from apply.merge import merge
from apply.neutral import obstacles
from apply.own import CHECKPOINT, METADATA, SWEEP, TABLES, WAITING, described
from apply.pairs import Paired
from apply.parking import AtRest, Parking, Retried, Standing
from apply.placeholders import Placeholder
from apply.placeholding import remove
from apply.placement import has_referee
from apply.plan import Plan
from apply.plans import Plans, plan_all
from apply.prepare import Preparation
from apply.ranges import TargetRanges
from apply.referee_fit import refuse_changed, unpaired
from apply.server import Server
from apply.sql import Statements
from apply.sweep import Sweeps
from apply.target import Pair, Placement
from apply.transaction import Transaction, Unplanned
from apply.tries import T, Tries
from apply.write import release, write
from schemas.change import Batch, Offset, Position
from schemas.codec import Wire
from schemas.errors import Misconfigured, Operator, SchemaConflict
from schemas.faults import reach
from schemas.finding import Finding, refusal
from schemas.kinds import Kind
from schemas.ranges import Compared, Ranges
from schemas.table import Table

Writes = Callable[[Transaction, Batch, set[str], Sweeps], int]
"""What writes a batch into an open transaction (apply/write.py, apply/merge.py)."""


class DatabaseTarget(Tries):
    """Implements apply.target.Target over a server; PostgresTarget, MySQLTarget and SqliteTarget
    choose it.
    """

    def __init__(self, name: str, server: Server, source_name: str, placement: Placement) -> None:
        super().__init__(name, server, source_name, placement)
        self._plans: Plans | None = None
        self._older: list[Table] = []
        self._statements: dict[int, Statements] = {}
        self._waiting: set[str] = set()
        self._sweeping: dict[str, str] = {}
        self._has_parked = True
        self._rebuilds = False
        self._exempt, self._looked_at = exempt.Exempt(0, {}), 0.0

    def close(self) -> None:
        super().close()
        self._plans, self._has_parked, self._is_settled = None, True, False

    # Preparing.

    def prepare(self, tables: Sequence[Table], *, dry_run: bool = False) -> list[str]:
        with self._connected() as connection:
            preparation = self._preparation(connection, tables)
            refused = [f for f in preparation.findings() if f.refused]
            if refused:
                raise refusal(self.name, refused)
            statements = preparation.statements()
            if not dry_run:
                preparation.run(statements)
                connection.commit()
            if self._shared is not None:
                more = told.share(connection, self._shared, self._source, dry_run=dry_run)
                statements = statements + more
        # Staging tables of this connection are named by plans that may be other ones now.
        self.close()
        return statements

    def check(self, tables: Sequence[Table]) -> list[Finding]:
        with self._connected() as connection:
            found = self._preparation(connection, tables).findings()
            catalog = Catalog(self._server, connection, self._placement)
            for table in tables:
                found += unpaired(connection, catalog, self._placement, table, self._source)
            found += obstacles(catalog, self._server, self._placement, tables)
            for where, problem, fix in self._server.warnings(connection):
                found.append(Finding(where=where, problem=problem, fix=fix, refused=False))
            return found

    def _preparation(self, connection: sa.Connection, tables: Sequence[Table]) -> Preparation:
        return Preparation(self._server, connection, self._source, self._placement, tables)

    def drop(self, *, dry_run: bool = False) -> list[str]:
        with self._connected() as connection:
            there = [t for t in METADATA.sorted_tables if sa.inspect(connection).has_table(t.name)]
            others = [
                sa.select(t.c.source).where(t.c.source != self._source).limit(1) for t in there
            ]
            shared = any(connection.scalar(select) is not None for select in others)
            statements: list[Any] = [
                sa.delete(t).where(t.c.source == self._source) if shared else sa.schema.DropTable(t)
                for t in there
            ]
            if TABLES in there:
                schemas = {n.partition(".")[0] for n in described(connection, self._source)}
                catalog = Catalog(self._server, connection, self._placement)
                statements += removal(connection, catalog, self._source, schemas)
            if not dry_run:
                for statement in statements:
                    connection.execute(statement)
                connection.commit()
                if self._shared is not None:
                    self._shared.forget()
            self._plans = None
            dialect, binds = self._server.engine.dialect, {"literal_binds": True}
            return [
                str(s.compile(dialect=dialect, compile_kwargs=binds if s.is_delete else {})).strip()
                for s in statements
            ]

    # The checkpoint.

    def checkpoint(self) -> Offset | None:
        with self._connected() as connection:
            if not sa.inspect(connection).has_table(CHECKPOINT.name):
                raise self._unprepared()
            row = connection.execute(
                sa.select(CHECKPOINT.c.log_offset).where(of(self._source))
            ).one_or_none()
            if row is None:
                raise self._unprepared()
            if not self._rebuilds and is_marked(connection, self._source):
                raise Operator(
                    f"found a rebuild of target {self.name} that is under way, or was not ended",
                    hint=f"run: headwater rebuild {self.name}, which ends it",
                )
            return None if row[0] is None else Offset(row[0])

    def rebuild(self, start: Offset | None) -> None:
        self._rebuilds = True
        with self._connected() as connection:
            mark(connection, self._source, start)
            connection.commit()

    def rebuilt(self) -> None:
        with self._connected() as connection:
            unmark(connection, self._source)
            connection.commit()
        self._rebuilds = False

    def _unprepared(self) -> Operator:
        return Operator(
            f"found no checkpoint of source {self._source} in target {self.name}",
            hint=f"run: headwater prepare {self.name}",
        )

    # Applying.

    def apply(self, batch: Batch, *, expect: Offset | None) -> int:
        return self._planning(batch, expect, compare if batch.check else write)

    def merge(self, batch: Batch, tables: Collection[str], *, expect: Offset | None) -> int:
        return self._planning(batch, expect, partial(merge, tables=tables))

    def _planning(self, batch: Batch, expect: Offset | None, writes: Writes) -> int:
        parking = self._parking(batch)

        def write(connection: sa.Connection) -> int:
            move(connection, self._server, self._source, batch, expect, target=self.name)
            transaction = self._begin(connection, batch, parking)
            reach("before-target-write")
            sweeps = Sweeps(transaction, self._sweeping)
            written = writes(transaction, batch, self._waiting, sweeps)
            self._has_parked = parking.save(connection)
            self._wants = self._wants or transaction.ancestors.wants
            reach("after-target-write")
            reach("before-target-commit")
            self._commit(connection, parking)
            reach("after-target-commit")
            told.confirm(connection, transaction.referee, self._source)
            parking.tell(self.name)
            return written

        while True:
            try:
                return self._tried(parking, write)
            except Unplanned:
                self._prepare_unseen(batch)

    def retry(self, numbers: Collection[int] | None = None) -> Retried:
        def write(transaction: Transaction) -> Retried:
            release(transaction, self._waiting, Sweeps(transaction, self._sweeping))
            self._has_parked = transaction.parking.save(transaction.connection)
            return transaction.parking.retried

        return self._at_rest(write, asked=numbers) or Retried((), ())

    def remove_placeholders(self, tables: Collection[str] | None = None) -> list[Placeholder]:
        return self._at_rest(partial(remove, tables=tables)) or []

    def _at_rest(
        self, write: Callable[[Transaction], T], *, asked: Collection[int] | None = ()
    ) -> T | None:
        """Write where the target stands; None where it stands nowhere."""
        applied = self.applied()
        if applied is None:
            return None
        standing = AtRest(
            batch=applied.batch,
            position=Position(applied.position),
            committed_at=applied.committed_at,
        )
        parking = self._parking(standing, asked=asked)

        def locked(connection: sa.Connection) -> T:
            # The applier's compare-and-set waits for this, or was before it.
            lock(connection, self._source)
            transaction = self._begin(connection, standing, parking)
            written = write(transaction)
            self._wants = self._wants or transaction.ancestors.wants
            self._commit(connection, parking)
            told.confirm(connection, transaction.referee, self._source)
            return written

        return self._tried(parking, locked)

    def _parking(self, standing: Standing, asked: Collection[int] | None = ()) -> Parking:
        return Parking(self._source, self._placement.parked_limit, standing, asked=asked)

    def _begin(
        self, connection: sa.Connection, standing: Standing, parking: Parking
    ) -> Transaction:
        if parking.checks_at_once:
            self._server.check_at_once(connection)
        # Others may have released or skipped some since the last batch.
        parking.begin(parked.read(connection, self._source) if self._has_parked else [])
        plans = self._planned(connection, parking.descriptions)
        if self._shared is not None and not self._is_settled:
            told.settle(connection, self._shared, self._source)
            self._is_settled = True
        assert self._session is not None, "_connected has opened it"
        args = (self._session, plans, self._statements, self._source, standing, parking)
        return Transaction(*args, self._shared)

    def _prepare_unseen(self, batch: Batch) -> None:
        """Prepare each description that the batch brings, in the order in which it brings them."""
        with self._connected() as connection:
            known = {n: t for n, (t, _) in described(connection, self._source).items()}
        brought = {
            rows.table.fingerprint: rows.table
            for block in batch.blocks()
            for rows in block
            if set(rows.ops) != {"s"}
        }
        newest = known | {t.full_name: t for t in brought.values()}
        gone = [t.table for t in batch.truncates if t.table not in newest]
        if gone:
            raise SchemaConflict(
                f"found a truncate of {gone[0]}, which is not described",
                hint=f"run: headwater prepare {self.name}",
            )
        older = [t for t in brought.values() if t != newest[t.full_name]]
        for table in older:
            if table != known.get(table.full_name):
                self.prepare([table])
        altered = {t.full_name for t in older}
        self.prepare([t for n, t in newest.items() if t != known.get(n) or n in altered])
        self._older = older

    def _planned(self, connection: sa.Connection, parked_of: Collection[str] = ()) -> Plans:
        """parked_of: descriptions by which parked rows are written."""
        had, now = self._exempt.number, monotonic()
        if self._plans is not None and had >= 0 and now - self._looked_at > exempt.LOOK_S:
            self._looked_at = now
            if exempt.number(connection, self._source) != had:
                self._plans = None
        if self._plans is None:
            known = {n: t for n, (t, _) in described(connection, self._source).items()}
            catalog = Catalog(self._server, connection, self._placement)
            others = {t.fingerprint: t for t in [*self._older, *map(Table.loads, parked_of)]}
            older = [t for t in others.values() if t != known.get(t.full_name)]
            args = (catalog, self._server, self._placement, known, older)
            plans = plan_all(*args, source=self._source)
            every = plans.newest.values()
            refuse_changed(connection, every, self._placement, self._source)
            self._plans = plans
            self._exempt, self._looked_at = exempt.read(connection, self._source), monotonic()
            self._exempt.into(self._plans)
            self._statements, self._recalled = {}, False
        if not self._recalled:
            mine = sa.select(WAITING.c.table_name).where(WAITING.c.source == self._source)
            self._waiting = set(connection.scalars(mine.distinct()))
            begun = sa.select(SWEEP.c.table_name, SWEEP.c.number)
            found = connection.execute(begun.where(SWEEP.c.source == self._source))
            self._sweeping = {row.table_name: row.number for row in found}
            self._recalled = True
        return self._plans

    # Reading.

    def rows(
        self, table: Table, *, limit: int = 10_000
    ) -> Iterator[tuple[list[str], list[list[Wire]]]]:
        plan = self._plan(table)
        chosen = read_back.selected(self._server, plan, read_back.kinds(plan))
        with self._mapped():
            for block in read_back.rows(self._server, chosen, limit):
                yield list(chosen.names), block

    def ranges(self, compared: Compared, *, excluded: bool = False) -> Ranges:
        plan = self._plan(compared.table)
        plan = replace(plan, view=None, sets=[]) if excluded else plan
        return TargetRanges(self._server, plan, compared, self._mapped)

    def kinds(self, table: Table) -> Mapping[str, Kind]:
        return read_back.kinds(self._plan(table))

    # Pairs.

    def pairs(self, table: str, *, ended: bool = False) -> Iterator[Pair]:
        name = self._refereed(table).name
        with self._connected() as connection:
            yield from pairs.read(connection, self._source, name, ended=ended)

    def assign(self, table: str, wanted: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return self._pairing(table, partial(pairs.assign, wanted=wanted))

    def end_pairs(self, table: str, source_keys: Sequence[int]) -> list[tuple[int, int]]:
        return self._pairing(table, partial(pairs.end, keys=source_keys))

    def _pairing(
        self, table: str, write: Callable[[sa.Connection, Paired], list[tuple[int, int]]]
    ) -> list[tuple[int, int]]:
        paired = self._refereed(table)
        with self._connected() as connection:
            lock(connection, self._source)
            ended = write(connection, paired)
            connection.commit()
            if self._shared is not None:
                told.tell(connection, self._shared, self._source)
            return ended

    def _refereed(self, name: str) -> Paired:
        table = next((t for t in self.tables() if t.full_name == name), None)
        if table is None or not has_referee(table, self._placement):
            raise Misconfigured(
                f"found no table {name} with a referee in target {self.name}",
                hint=f'targets.{self.name}.identity = {{ "schema.table" = "referee" }} in the '
                f"configuration, then headwater prepare {self.name}",
            )
        plan = self._plan(table)
        key = plan.target.c[str(plan.own_key)]
        return Paired(self._source, name, key, self._shared is not None)

    def _plan(self, table: Table) -> Plan:
        with self._connected() as connection:
            plans = self._planned(connection)
            plans.refuse(table.full_name)
            plan = plans.newest.get(table.full_name)
            connection.commit()
        if plan is None:
            raise SchemaConflict(
                f"found no table for {table.full_name} in target {self.name}",
                hint=f"run: headwater prepare {self.name}",
            )
        return plan
