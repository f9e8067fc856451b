"""A target's one connection: opened at need, thrown away after any error, driver errors as ours.

With the connection go its staging tables and whatever was read in its transaction: the next use
starts from what is durable.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from apply.server import Cause, Server
from apply.session import Session
from schemas.errors import Misconfigured, Operator, Poison, Transient


class Connected:
    """What DatabaseTarget stands on."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self._server = name, server
        self._session: Session | None = None
        self._held = ""

    def close(self) -> None:
        """Close every connection; idempotent."""
        self._disconnect()
        self._server.engine.dispose()

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.connection.invalidate()
            session.connection.close()

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """The connection; any error ends it, and driver errors become ours."""
        with self._mapped():
            try:
                if self._session is None:
                    self._session = Session(self._server, self._server.engine.connect())
                    if self._held:
                        self._server.hold(self._session.connection, self._held)
                yield self._session.connection
                if self._session is not None:
                    self._session.connection.rollback()
            except BaseException:
                self.close()
                raise

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            cause, why = self._server.cause(error), self._server.explain(error)
            if cause in (Cause.LOST, Cause.LOCKED):
                raise Transient(f"lost target {self.name}: {why}") from error
            if cause is Cause.TOO_LARGE:
                raise Operator(
                    f"cannot write a batch in one transaction of target {self.name}: {why}",
                    hint="raise max_binlog_cache_size there to more than the source's largest "
                    "transaction",
                ) from error
            if cause is Cause.DENIED:
                raise Misconfigured(
                    f"cannot use target {self.name}: {why}",
                    hint="check the target's url, the account's password and grants, and that the "
                    "database accepts writes",
                ) from error
            if cause in (Cause.UNIQUE, Cause.FOREIGN, Cause.ROW):
                # A trigger, or a deferred constraint at COMMIT, which does not name the row.
                raise Poison(
                    f"cannot write a batch to target {self.name}: {why}",
                    hint="a trigger or a deferred constraint of the target refuses it: mend it, or "
                    "make the constraint NOT DEFERRABLE, which names the row",
                ) from error
            raise
