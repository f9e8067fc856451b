"""The replication connection: raw libpq, polled in batches; only our own code sends feedback.

psycopg2's replication cursor answers keepalives by itself with the server's WAL end, which can
confirm transactions that are not yet in the log (tests/conformance/test_source_postgres.py shows
the loss). Here the server is told `acknowledge`d positions and nothing else.
"""

import select
from contextlib import suppress
from time import time_ns
from typing import Any

import psycopg
from psycopg import pq

from capture import pgoutput
from capture.postgres_errors import connection_error, first_line
from schemas.errors import HeadwaterError, Operator, SourceLost, Transient

POLL_BYTES = 1 << 20
"""One poll returns at most about this much, so that memory stays bounded in a backlog."""

_TRANSIENT_CLASSES = ("08", "53", "57")
_LOST = {"58P01", "55000", "42704"}
"""WAL segment gone, slot cannot be used any more, slot or publication does not exist."""


def connected(conninfo: str) -> Any:
    """A replication connection; raises Transient when the server cannot be reached."""
    try:
        connection = pq.PGconn.connect(conninfo.encode())
    except psycopg.Error as error:
        raise Transient("could not open the replication connection") from error
    if connection.status != pq.ConnStatus.OK:
        message = connection.get_error_message()
        connection.finish()
        raise connection_error(message)
    return connection


class Wal:
    """One slot being read; closing it lets the server's process go."""

    def __init__(self, conninfo: str, slot: str) -> None:
        """Connect; raises Transient when the server cannot be reached."""
        self._slot = slot
        self._acknowledged = 0
        self._connection = connected(conninfo)
        self.pid = self._connection.backend_pid

    def start(self, lsn: int, publication: str) -> None:
        """Ask for everything that commits after `lsn`; the server goes on at the slot's own
        confirmed position if that is later.

        Protocol version 1: transactions come whole, after their commit, text only.
        """
        name = publication.replace("'", "''").replace('"', '""')
        command = (
            f"START_REPLICATION SLOT {self._slot} LOGICAL {pgoutput.lsn_text(lsn)} "
            f"(proto_version '1', publication_names '\"{name}\"')"
        )
        self._acknowledged = lsn
        result = self._connection.exec_(command.encode())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._error(result)
        self._connection.nonblocking = 1

    def poll(self) -> list[bytes]:
        """Whatever has arrived, whole messages only; [] when nothing waits."""
        messages: list[bytes] = []
        get, append, size = self._connection.get_copy_data, messages.append, 0
        try:
            while size < POLL_BYTES:
                length, data = get(1)
                if length == 0:
                    self._connection.consume_input()
                    length, data = get(1)
                    if length == 0:
                        break
                if length < 0:
                    raise self._error(self._connection.get_result())
                size += length
                append(data.tobytes())
        except psycopg.OperationalError as error:
            raise Transient("lost the replication connection") from error
        return messages

    def wait(self, seconds: float) -> bool:
        """Wait until something can be read; False after `seconds` of silence."""
        readable, _, _ = select.select([self._connection.socket], [], [], max(0.0, seconds))
        return bool(readable)

    def acknowledge(self, lsn: int) -> None:
        """Let the server forget everything that commits up to lsn; never goes back."""
        self._acknowledged = max(self._acknowledged, lsn)
        self.feedback()

    def feedback(self, *, reply: bool = False) -> None:
        """Repeat what was acknowledged; `reply` asks for a keepalive, which an idle slot needs."""
        message = pgoutput.status_update(self._acknowledged, time_ns() // 1000, reply=reply)
        try:
            # A full socket buffer drops this one: the next says the same or more.
            self._connection.put_copy_data(message)
            self._connection.flush()
        except psycopg.OperationalError as error:
            raise Transient("lost the replication connection") from error

    def answer(self, keepalive: pgoutput.Keepalive) -> None:
        """Reply with what was acknowledged, never with the keepalive's own position."""
        if keepalive.reply_requested:
            self.feedback()

    def close(self) -> None:
        """Close the socket; idempotent."""
        with suppress(psycopg.Error):
            self._connection.finish()

    def _error(self, result: Any) -> HeadwaterError:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = first_line(
            (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()
        )
        if state == "55006":
            return Transient(
                f"found slot {self._slot} in use: {message}",
                hint="end the other process; a capture that lost its log ends by itself",
            )
        if state in _LOST:
            return SourceLost(
                f"could not read slot {self._slot}: {message}",
                hint="run headwater preflight; a lost slot needs a new first copy",
            )
        if not state or state[:2] in _TRANSIENT_CLASSES:
            return Transient(f"lost the replication connection: {message or 'it was closed'}")
        return Operator(
            f"failed to read slot {self._slot}: {message} ({state})", hint="see the server's log"
        )
