"""A transaction tried until nothing is refused that is not parked."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from apply.halving import ROWS
from apply.kept import Kept
from apply.parking import Parking
from apply.refused import Refused
from apply.server import Server
from apply.target import Placement

T = TypeVar("T")


class _RefusedLate(Exception):
    """A commit failed by a constraint, which names no row there."""


class Tries(Kept):
    """The part of DatabaseTarget that begins again."""

    def __init__(self, name: str, server: Server, source: str, placement: Placement) -> None:
        super().__init__(name, server, source, placement)
        self._recalled = False
        """Whether what a connection's batches learn of the target stands for the next one."""
        self._is_settled = False
        """Whether a shared referee knows what is durable, and nothing else (apply/told.py)."""

    def _tried(self, parking: Parking, write: Callable[[sa.Connection], T]) -> T:
        while True:
            with self._connected() as connection:
                try:
                    return write(connection)
                except Refused as error:
                    parking.refuse(error)
                except _RefusedLate:
                    parking.checks_at_once = True
                # What was staged and learned goes with the connection; plans stay.
                self._disconnect()
                self._recalled = self._is_settled = False

    def _commit(self, connection: sa.Connection, parking: Parking) -> None:
        """Where a constraint that is checked only now refuses a row, the next try finds which."""
        try:
            connection.commit()
        except sa.exc.DBAPIError as error:
            if parking.checks_at_once or self._server.cause(error) not in ROWS:
                raise
            raise _RefusedLate from error
