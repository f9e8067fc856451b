"""Whether a slot and a position belong together: everything that is asked before streaming starts.

A slot is never recreated in silence: what was written between the two would be missing.
A position is `LSN@system identifier`, because an LSN alone means nothing on another server.
"""

from dataclasses import dataclass

from capture.pgoutput import lsn_text, parse_lsn
from capture.postgres_session import Session
from schemas.change import Position
from schemas.errors import Misconfigured, SourceLost

_SLOT = """
    SELECT plugin::text, database::text, wal_status,
           pg_catalog.pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::bigint,
           pg_catalog.to_jsonb(s)->>'invalidation_reason', active_pid
    FROM pg_catalog.pg_replication_slots s WHERE slot_name = %s
"""
_SERVER = """
    SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),
           pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0')::bigint,
           pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint,
           pg_catalog.current_database()::text
"""
_FRESH = (
    "start over: headwater drop SOURCE --yes, headwater drop SOURCE --log --yes, headwater drop "
    "TARGET --yes, headwater run; then headwater snapshot SOURCE, which deletes in the targets "
    "what the source no longer has"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot as the server shows it; lost: why it cannot be used, or None."""

    plugin: str | None
    database: str | None
    confirmed: int
    lost: str | None
    active_pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which server this is, and how far it is; recent_xid: the next transaction's 64-bit id."""

    identifier: int
    flushed: int
    recent_xid: int
    database: str

    def position(self, lsn: int) -> Position:
        """The text of a place in this server's log."""
        return Position(f"{lsn_text(lsn)}@{self.identifier}")


def lsn_of(position: Position) -> int:
    """A position's LSN; raises Misconfigured for a text that is none."""
    try:
        return parse_lsn(position.partition("@")[0])
    except ValueError as error:
        raise Misconfigured(
            f"cannot read {position!r} as a PostgreSQL position",
            hint="a position looks like 0/16B3748; headwater position prints one",
        ) from error


def server(session: Session) -> Server:
    """Ask the server who it is."""
    identifier, flushed, recent_xid, database = session.query(_SERVER)[0]
    return Server(identifier=identifier, flushed=flushed, recent_xid=recent_xid, database=database)


def find(session: Session, name: str) -> Slot | None:
    """The slot, None where there is none."""
    rows = session.query(_SLOT, name)
    if not rows:
        return None
    plugin, database, wal_status, confirmed, reason, active_pid = rows[0]
    lost = None
    if wal_status == "lost" or reason:
        lost = reason or "wal_removed"
    return Slot(
        plugin=plugin,
        database=database,
        confirmed=confirmed or 0,
        lost=lost,
        active_pid=active_pid,
    )


def refuse_foreign(name: str, slot: Slot, database: str) -> None:
    """Raise Misconfigured for a slot of somebody else's; names are shared by a whole server."""
    if slot.plugin != "pgoutput" or slot.database != database:
        raise Misconfigured(
            f"found slot {name} made for {slot.plugin} in database {slot.database}",
            hint="give the source another slot name",
        )


def start_of(name: str, slot: Slot | None, at: Server, after: Position | None) -> int:
    """Where streaming starts: `after`, or the slot's own start. Raises when it cannot be exact."""
    if slot is None:
        if after is None:
            raise Misconfigured(
                f"found no replication slot {name}", hint="run headwater prepare for this source"
            )
        raise SourceLost(
            f"found slot {name} dropped, while the log ends at {after}: what was written since "
            "cannot be read",
            hint=_FRESH,
        )
    refuse_foreign(name, slot, at.database)
    if slot.lost:
        raise SourceLost(
            f"found slot {name} lost ({slot.lost}): the server removed WAL that was not yet read",
            hint=f"{_FRESH}; raise max_slot_wal_keep_size or idle_replication_slot_timeout",
        )
    if after is None:
        return slot.confirmed
    lsn, _, identifier = after.partition("@")
    if identifier and identifier != str(at.identifier):
        raise SourceLost(
            f"found another server (system identifier {at.identifier}) than our position is of",
            hint=_FRESH,
        )
    start = lsn_of(after)
    if start > at.flushed:
        raise SourceLost(
            f"found the server at {lsn_text(at.flushed)}, before our position {lsn}: it was "
            "restored from a backup",
            hint=_FRESH,
        )
    if slot.confirmed > start:
        raise SourceLost(
            f"found slot {name} confirmed to {lsn_text(slot.confirmed)}, beyond our position "
            f"{lsn}: what lies between cannot be read any more",
            hint=f"another program may read this slot, or the log is an older one; {_FRESH}",
        )
    return start
