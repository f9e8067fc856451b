"""What a target keeps of Headwater's own for people to see, and what they say of it: the seam's
methods that no row is written by.
"""

from collections.abc import Collection, Mapping, Sequence
from time import sleep

import sqlalchemy as sa

from apply import checked, exempt, parked, pause, placeholders, recorded, verified
from apply.checked import Checked
from apply.checkpoint import lock, of
from apply.connected import Connected
from apply.own import CHECKED, CHECKPOINT, described
from apply.parked import Parked
from apply.placeholders import Placeholder
from apply.recorded import Recorded
from apply.server import Server
from apply.target import Applied, Exempted, Exemption, Paused, Verified
from schemas.change import Offset
from schemas.codec import Wire
from schemas.table import Table


class Kept(Connected):
    """The readable part of DatabaseTarget."""

    def __init__(self, name: str, server: Server, source: str) -> None:
        super().__init__(name, server)
        self._source = source

    def tables(self) -> list[Table]:
        with self._connected() as connection:
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

    def hold(self) -> bool:
        with self._connected() as connection:
            # A connection that is opened anew takes it again, where nobody else has.
            self._held = self._source
            return self._server.hold(connection, self._source)

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

    def verified(self) -> list[Verified]:
        with self._connected() as connection:
            return verified.read(connection, self._source)

    def keep(self, found: Sequence[Verified], *, only: bool = False) -> None:
        with self._connected() as connection:
            verified.keep(connection, self._source, found, only=only)
            connection.commit()
