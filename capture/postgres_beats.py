"""How beats (capture/beats.py) are kept in PostgreSQL."""

from capture.beats import Beats
from capture.postgres_session import Session, quoted

_CREATE = (
    "CREATE TABLE IF NOT EXISTS {table} (number bigint PRIMARY KEY, source text NOT NULL, "
    "dumped text NOT NULL, position text NOT NULL, noted_at bigint NOT NULL)",
    # pg_dump locks every table of the database, and ends where it may not read one.
    "GRANT SELECT ON {table} TO PUBLIC",
)
_LOCK = 4_715_390_271
"""Drawn at random, for pg_advisory_lock."""


def of(source: str, session: Session) -> Beats:
    """The beats of a source."""
    return Beats(
        source=source,
        run=session.query,
        quote=quoted,
        create=_CREATE,
        lock=f"SELECT pg_catalog.pg_advisory_lock({_LOCK})",
        unlock=f"SELECT pg_catalog.pg_advisory_unlock({_LOCK})",
    )
