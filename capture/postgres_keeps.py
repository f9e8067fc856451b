"""How much WAL a slot holds back, and how near it is to being dropped by the server's limits."""

from collections.abc import Iterator
from typing import NamedTuple

from capture import postgres_slot
from capture.postgres_session import Session
from capture.source import Keeps
from schemas.change import Position
from schemas.errors import SourceLost
from schemas.finding import Finding

_STATE = """
    SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint,
           safe_wal_size, wal_status, active_pid IS NOT NULL,
           extract(epoch FROM pg_catalog.now()
                   - (pg_catalog.to_jsonb(s)->>'inactive_since')::timestamptz)::float8,
           (SELECT setting::float8 FROM pg_catalog.pg_settings
            WHERE name = 'idle_replication_slot_timeout'),
           (SELECT unit FROM pg_catalog.pg_settings WHERE name = 'idle_replication_slot_timeout')
    FROM pg_catalog.pg_replication_slots s WHERE slot_name = %s
"""
_SECONDS = {"min": 60.0, "s": 1.0, None: 1.0}


class _State(NamedTuple):
    held: int | None
    spare: int | None
    wal_status: str | None
    is_active: bool
    idle_s: float | None
    timeout: float | None
    unit: str | None

    @property
    def timeout_s(self) -> float | None:
        """After which an idle slot is dropped (PostgreSQL 18); None: never."""
        return self.timeout * _SECONDS[self.unit] if self.timeout else None


def keeps(session: Session, name: str, position: Position) -> Keeps:
    """See Source.keeps."""
    slot = postgres_slot.find(session, name)
    try:
        postgres_slot.start_of(name, slot, postgres_slot.server(session), position)
    except SourceLost as error:
        lost = Finding(where=f"slot {name}", problem=str(error), fix=error.hint)
        return Keeps(findings=(lost,))
    state = _State(*session.query(_STATE, name)[0])
    return Keeps(
        keeps_s=state.timeout_s,
        held_bytes=state.held,
        spare_bytes=state.spare,
        findings=tuple(_near(name, state)),
    )


def _near(name: str, state: _State) -> Iterator[Finding]:
    where, held = f"slot {name}", state.held or 0
    if state.wal_status == "unreserved":
        yield Finding(
            where=where,
            problem=f"holds back {held:,} bytes of WAL, more than max_slot_wal_keep_size: the next "
            "checkpoint of the server may take them, and the capture must start over then",
            fix="start the capture now, and raise max_slot_wal_keep_size",
            refused=False,
        )
    elif state.spare is not None and held > state.spare:
        yield Finding(
            where=where,
            problem=f"holds back {held:,} bytes of WAL, and is lost after {state.spare:,} more "
            "(max_slot_wal_keep_size)",
            fix="start the capture, or find out what holds it up; raise max_slot_wal_keep_size",
            refused=False,
        )
    timeout_s = None if state.is_active else state.timeout_s
    if timeout_s is not None and (state.idle_s or 0) > timeout_s / 2:
        yield Finding(
            where=where,
            problem=f"was not read for {state.idle_s:,.0f} s, and is lost after {timeout_s:,.0f} "
            "(idle_replication_slot_timeout)",
            fix="start the capture, or raise idle_replication_slot_timeout",
            refused=False,
        )
