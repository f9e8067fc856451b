"""What a target keeps of Headwater's own for people to see, and what they say of it: the seam's
methods that no row is written by.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from time import sleep

import sqlalchemy as sa

from apply import (
    ancestors,
    checked,
    exempt,
    parked,
    pause,
    placeholders,
    recorded,
    sessions,
    told,
    verified,
)
from apply.beats import newest
from apply.catalog import Catalog
from apply.checked import Checked
from apply.checkpoint import begin, lock, of
from apply.connected import Connected
from apply.mark import is_marked
from apply.opened import opened
from apply.own import CHECKED, CHECKPOINT, TABLES, described
from apply.parked import Parked
from apply.placeholders import Placeholder
from apply.recorded import Recorded
from apply.server import Server
from apply.shared import Shared
from apply.target import Applied, Exempted, Exemption, Mapped, Paused, Placement, Verified
from schemas.beat import Beat
from schemas.change import Offset, Position
from schemas.codec import Wire
from schemas.errors import Misconfigured
from schemas.table import Table


class Kept(Connected):
    """The readable part of DatabaseTarget."""

    def __init__(self, name: str, server: Server, source: str, placement: Placement) -> None:
        super().__init__(name, server)
        self._source, self._placement = source, placement
        # Whether ancestors may be noted that nobody has asked for.
        self._wants = True
        at = placement.shared
        self._shared = at and Shared(opened(at.url, at.family), source, at.environment)

    def close(self) -> None:
        super().close()
        if self._shared is not None:
            self._shared.close()

    def tables(self) -> list[Table]:
        with self._connected() as connection:
            if not sa.inspect(connection).has_table(TABLES.name):
                return []
            return [table for table, _ in described(connection, self._source).values()]

    def applied(self) -> Applied | None:
        with self._connected() as connection:
            if not sa.inspect(connection).has_table(CHECKPOINT.name):
                return None
            row = connection.execute(sa.select(CHECKPOINT).where(of(self._source))).one_or_none()
            if row is None or row.log_offset is None:
                return None
            return Applied(
                offset=Offset(row.log_offset),
                position=row.position,
                batch=row.batch,
                committed_at=row.committed_at,
                applied_at=row.applied_at,
                rows=row.rows_applied,
            )

    def begin(self, start: Offset, position: Position, batch: int) -> None:
        with self._connected() as connection:
            begin(connection, self._source, start, position, batch)
            connection.commit()

    def is_rebuilding(self) -> bool:
        with self._connected() as connection:
            return is_marked(connection, self._source)

    def filled(self, tables: Sequence[Table]) -> list[str]:
        with self._connected() as connection:
            catalog = Catalog(self._server, connection, self._placement)
            return [t.full_name for t in tables if catalog.holds_rows(t)]

    def beats(self, schemas: Sequence[str]) -> Mapping[str, Beat | None]:
        with self._connected() as connection:
            catalog = Catalog(self._server, connection, self._placement)
            return newest(connection, catalog, self._source, schemas)

    def hold(self) -> bool:
        with self._connected() as connection:
            # A connection that is opened anew takes it again, where nobody else has.
            self._held = self._source
            is_held = self._server.hold(connection, self._source)
            # An applier that begins finds what one that died has left.
            if is_held and self._shared is not None and told.has_news(connection, self._source):
                lock(connection, self._source)
                told.settle(connection, self._shared, self._source)
                connection.commit()
            return is_held

    def pause(self, reason: str) -> None:
        with self._connected() as connection:
            pause.begin(connection, self._source, reason)
            connection.commit()

    def resume(self) -> bool:
        with self._connected() as connection:
            was = pause.end(connection, self._source)
            connection.commit()
            return was

    def paused(self) -> Paused | None:
        with self._connected() as connection:
            return pause.lasting(connection, self._source)

    def checked(self) -> list[Checked]:
        with self._connected() as connection:
            has = sa.inspect(connection).has_table(CHECKED.name)
            return checked.read(connection, self._source) if has else []

    def parked(self, *, skipped: bool = False) -> list[Parked]:
        with self._connected() as connection:
            return parked.read(connection, self._source, skipped=skipped)

    def placeholders(self) -> list[Placeholder]:
        with self._connected() as connection:
            return placeholders.read(connection, self._source)

    def conflicts(self) -> list[Recorded]:
        with self._connected() as connection:
            return recorded.read(connection, self._source)

    def skip(self, numbers: Collection[int], reason: str) -> None:
        with self._connected() as connection:
            lock(connection, self._source)
            parked.skip(connection, self._source, numbers, reason)
            connection.commit()

    def edit(self, number: int, columns: Mapping[str, Wire]) -> None:
        with self._connected() as connection:
            lock(connection, self._source)
            parked.edit(connection, self._source, number, columns)
            connection.commit()

    def exempt(self, table: str, what: Exemption, keys: Sequence[bytes]) -> None:
        with self._connected() as connection:
            exempt.change(connection, self._source, table, what, keys)
            connection.commit()
            # The applier has looked by then, but for the batch that it is writing.
            sleep(2 * exempt.LOOK_S)
            lock(connection, self._source)

    def exempted(self) -> Exempted:
        with self._connected() as connection:
            return exempt.read(connection, self._source).rows

    def mappings(
        self, table: str, source_keys: Sequence[int] = (), *, ended: bool = False
    ) -> Iterator[Mapped]:
        if self._shared is None:
            raise Misconfigured(
                f"found no shared referee of target {self.name}",
                hint=f"targets.{self.name}.referee in the configuration, then headwater prepare",
            )
        yield from self._shared.mappings(table, source_keys, ended=ended)

    def wanted(self) -> Mapping[str, Sequence[str]]:
        if not self._wants:
            return {}
        with self._connected() as connection:
            found = ancestors.wanted(connection, self._source)
        self._wants = bool(found)
        return found

    def was_asked(self, table: str, identities: Sequence[str], number: int) -> None:
        with self._connected() as connection:
            ancestors.was_asked(connection, self._source, table, identities, number)
            connection.commit()

    def ask_again(self, upto: int, copying: Collection[int]) -> None:
        with self._connected() as connection:
            self._wants |= ancestors.ask_again(connection, self._source, upto, copying) > 0
            connection.commit()

    def ancestors(self) -> Mapping[str, Sequence[str]]:
        with self._connected() as connection:
            return ancestors.noted(connection, self._source)

    def awaited(self) -> int:
        with self._connected() as connection:
            return ancestors.awaited(connection, self._source)

    def sessions(self) -> list[str]:
        with self._connected() as connection:
            return sessions.read(connection, self._source)

    def add_session(self, name: str, *, kept: int) -> list[str]:
        with self._connected() as connection:
            names = sessions.add(connection, self._source, name, kept)
            connection.commit()
        return names

    def verified(self) -> list[Verified]:
        with self._connected() as connection:
            return verified.read(connection, self._source)

    def keep(self, found: Sequence[Verified], *, only: bool = False) -> None:
        with self._connected() as connection:
            verified.keep(connection, self._source, found, only=only)
            connection.commit()
