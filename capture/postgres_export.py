"""A slot and a snapshot of the same moment: what a dump under that snapshot lacks, the slot gives.

Both are made by one command of a replication connection, and the snapshot lives as long as that
connection is open and does nothing else (https://www.postgresql.org/docs/current/
protocol-replication.html#PROTOCOL-REPLICATION-CREATE-REPLICATION-SLOT). The slot stays.
"""

import select
from collections.abc import Generator
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import pq

from capture.pgoutput import parse_lsn
from capture.postgres_errors import first_line
from capture.postgres_wal import connected
from schemas.errors import HeadwaterError, Misconfigured, Operator, Transient

BEAT_S = 1.0

# A connection that holds a snapshot is idle, inside a transaction, for as long as a dump needs.
_NO_TIMEOUTS = (
    b"SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN "
    b"('idle_in_transaction_session_timeout', 'idle_session_timeout', 'statement_timeout', "
    b"'transaction_timeout')"
)
_SETTING_STATES = ("53400", "55000", "42501")
"""All slots in use, wal_level too low, not allowed."""


class Export(NamedTuple):
    """lsn: where the slot stands; snapshot: what was visible there, by its name."""

    lsn: int
    snapshot: str


def exported(conninfo: str, slot: str) -> Generator[Export | None, None, None]:
    """Make the slot, and hold its snapshot until the iterator is closed.

    Gives None about once a second while the server waits for transactions that were running, then
    the export about once a second. Closed before that, it leaves no slot. Raises Misconfigured when
    the server refuses, Transient when the connection goes.
    """
    connection, made = connected(conninfo), None
    try:
        connection.exec_(_NO_TIMEOUTS)
        connection.send_query(
            f'CREATE_REPLICATION_SLOT "{slot}" LOGICAL pgoutput EXPORT_SNAPSHOT'.encode()
        )
        while connection.is_busy():
            if _is_readable(connection):
                connection.consume_input()
            else:
                yield None
        made = _export(connection.get_result(), slot)
        while connection.get_result() is not None:
            pass
        while True:
            yield made
            if _is_readable(connection):
                connection.consume_input()
    except psycopg.OperationalError as error:
        raise Transient(
            f"lost the connection that held the snapshot of slot {slot}",
            hint="if the dump had not begun to copy rows: headwater drop the source, and note a "
            "position anew",
        ) from error
    finally:
        with suppress(psycopg.Error):
            if made is None:
                connection.get_cancel().cancel()
            connection.finish()


def _is_readable(connection: Any) -> bool:
    return bool(select.select([connection.socket], [], [], BEAT_S)[0])


def _export(result: Any, slot: str) -> Export:
    if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
        return Export(parse_lsn(result.get_value(0, 1).decode()), result.get_value(0, 2).decode())
    raise _refused(result, slot)


def _refused(result: Any, slot: str) -> HeadwaterError:
    state, message = "", ""
    if result is not None:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        field = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        message = first_line(field.decode())
    if state in _SETTING_STATES:
        return Misconfigured(
            f"was refused by PostgreSQL: {message}", hint="run headwater preflight for this source"
        )
    if not state or state[:2] in ("08", "53", "57"):
        return Transient(f"lost the connection that was to make slot {slot}: {message}")
    return Operator(f"could not make slot {slot}: {message} ({state})", hint="see the server's log")
