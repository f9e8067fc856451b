"""Headwater's own tables in a target: made by `prepare`, removed by `drop`, never captured
(`headwater_*`).
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from schemas.table import Table

STREAM = "commits"
"""The one stream of a source, until streams can be configured."""

KEY_LENGTH = 255


def name_type(length: int = KEY_LENGTH) -> sa.types.TypeEngine[str]:
    """Text that is compared byte by byte on every server, and may be part of a key."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql")


def text_type() -> sa.types.TypeEngine[str]:
    """Text of any length."""
    exact = mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")
    return sa.Text().with_variant(exact, "mysql")


METADATA = sa.MetaData()

CHECKPOINT = sa.Table(
    "headwater_checkpoint",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("stream", name_type(128), primary_key=True),
    sa.Column("log_offset", text_type()),
    sa.Column("position", text_type()),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("committed_at", sa.BigInteger),
    sa.Column("applied_at", sa.BigInteger, nullable=False),
    sa.Column("rows_applied", sa.BigInteger, nullable=False),
)
"""Where the target stands; offsets are compared as text, exactly. Instants are microseconds
since 1970 UTC.
"""

IDENTITY = sa.Table(
    "headwater_identity",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("source_key", name_type(), primary_key=True),
    sa.Column("from_batch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("from_ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("to_batch", sa.BigInteger),
    sa.Column("to_ordinal", sa.BigInteger),
    sa.Column("identity", name_type(), nullable=False),
    sa.Index("headwater_identity_by_identity", "source", "table_name", "identity"),
)
"""Which identity a source's primary key meant, and from when to when; closed, never deleted."""

WAITING = sa.Table(
    "headwater_waiting",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("column_name", name_type(64), primary_key=True),
    sa.Column("identity", name_type(), primary_key=True),
    sa.Column("source_key", name_type(), nullable=False),
    sa.Index("headwater_waiting_by_key", "source", "table_name", "source_key"),
)
"""Foreign keys left NULL until the parent has come: during a first copy by its own chunk, and where
it is not among the target's rows.
"""

PLACEHOLDER = sa.Table(
    "headwater_placeholder",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("identity", name_type(), primary_key=True),
    sa.Column("source_key", name_type(), nullable=False),
    sa.Column("is_named", sa.Integer, nullable=False),
    sa.Column("wanted_by", name_type(), nullable=False),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Index("headwater_placeholder_by_key", "source", "table_name", "source_key"),
)
"""Rows that stand for parents which have not come (apply/placeholders.py)."""

SWEEP = sa.Table(
    "headwater_sweep",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("number", name_type(64), nullable=False),
)
"""The copy of a whole table during which identities are kept (apply/sweep.py)."""

SEEN = sa.Table(
    "headwater_seen",
    METADATA,
    sa.Column("source", name_type(128), nullable=False),
    sa.Column("table_name", name_type(192), nullable=False),
    sa.Column("identity", name_type(), nullable=False),
    sa.Index("headwater_seen_by_identity", "source", "table_name", "identity"),
)
"""The identities that came since that copy began, some of them twice."""

PARKED = sa.Table(
    "headwater_parked",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("state", name_type(16), nullable=False),
    sa.Column("table_name", name_type(192), nullable=False),
    sa.Column("row_key", text_type(), nullable=False),
    sa.Column("op", name_type(1), nullable=False),
    sa.Column("value", text_type(), nullable=False),
    sa.Column("is_partial", sa.Integer, nullable=False),
    sa.Column("description", text_type(), nullable=False),
    sa.Column("reason", name_type(16), nullable=False),
    sa.Column("problem", text_type(), nullable=False),
    sa.Column("hint", text_type(), nullable=False),
    sa.Column("waits_table", name_type(192)),
    sa.Column("waits_key", text_type()),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("ordinal", sa.BigInteger, nullable=False),
    sa.Column("at_batch", sa.BigInteger, nullable=False),
    sa.Column("at_ordinal", sa.BigInteger, nullable=False),
    sa.Column("position", text_type(), nullable=False),
    sa.Column("committed_at", sa.BigInteger),
    sa.Column("parked_at", sa.BigInteger, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("note", text_type()),
)
"""Changes that could not be applied, and later ones of their rows (apply/parked.py)."""

CONFLICT = sa.Table(
    "headwater_conflict",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("table_name", name_type(192), nullable=False),
    sa.Column("row_key", text_type(), nullable=False),
    sa.Column("images", text_type(), nullable=False),
    sa.Column("rule", text_type(), nullable=False),
    sa.Column("outcome", name_type(16), nullable=False),
    sa.Column("written", text_type()),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Column("ordinal", sa.BigInteger, nullable=False),
    sa.Column("position", text_type(), nullable=False),
    sa.Column("committed_at", sa.BigInteger),
    sa.Column("decided_at", sa.BigInteger, nullable=False),
)
"""Rows that both sides had changed, and what was decided (apply/recorded.py)."""

ALIAS = sa.Table(
    "headwater_alias",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("alias", name_type(), primary_key=True),
    sa.Column("identity", name_type(), nullable=False),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Index("headwater_alias_by_identity", "source", "table_name", "identity"),
)
"""Identities that rows had before they turned out to be other ones (apply/aliases.py)."""

CHECKED = sa.Table(
    "headwater_checked",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("number", name_type(64), nullable=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("different", sa.BigInteger, nullable=False),
    sa.Column("extra", sa.BigInteger),
    sa.Column("listed", text_type(), nullable=False),
    sa.Column("position", text_type()),
)
"""What the newest check in the stream found (apply/barrier.py); extra: null until its end."""

VERIFIED = sa.Table(
    "headwater_verified",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("verdict", sa.String(16)),
    sa.Column("checked_at", sa.BigInteger),
    sa.Column("differences", sa.BigInteger),
    sa.Column("held_from", sa.BigInteger),
    sa.Column("held_at", sa.BigInteger),
    sa.Column("position", text_type()),
    sa.Column("progress", text_type()),
)
"""What verify last found of each table (apply/target.py, Verified)."""

EXEMPT = sa.Table(
    "headwater_exempt",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("identity", name_type(), primary_key=True),
    sa.Column("what", sa.String(16), nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
)
"""Rows that are left as they are here, or here whatever a condition says (apply/exempt.py)."""

ANCESTOR = sa.Table(
    "headwater_ancestor",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("identity", name_type(), primary_key=True),
    sa.Column("is_here", sa.Integer, nullable=False),
    sa.Column("asked", sa.BigInteger),
)
"""Rows that are here, or are to come, because others reference them, whatever a condition says
(apply/ancestors.py). asked: the number of the request for it; NULL: not asked yet.
"""

SESSION = sa.Table(
    "headwater_session",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("sessions", text_type(), nullable=False),
)
"""The names of the last sessions in which the source's changes were applied, newest last, as JSON
(ops/readers.py).
"""

PAUSED = sa.Table(
    "headwater_paused",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("paused_at", sa.BigInteger, nullable=False),
    sa.Column("reason", text_type(), nullable=False),
)
"""Whose changes are not applied for now, since when and why (apply/pause.py)."""

ENROLLED = sa.Table(
    "headwater_enrolled",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("identity", name_type(64), primary_key=True),
    sa.Column("enrolled_at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("local_key", text_type(), nullable=False),
    sa.Column("source_key", text_type(), nullable=False),
    sa.Column("rule", text_type(), nullable=False),
    sa.Column("undone_at", sa.BigInteger),
)
"""Which row of the target was given which id of the source's, by which rule and when; never
deleted: what was undone keeps its line. Keys are primary keys as JSON.
"""

REFEREE = sa.Table(
    "headwater_referee",
    METADATA,
    sa.Column("sync_id", name_type(36), primary_key=True),
    sa.Column("source", name_type(128), nullable=False),
    sa.Column("table_name", name_type(192), nullable=False),
    sa.Column("source_key", sa.BigInteger, nullable=False),
    sa.Column("local_key", sa.BigInteger, nullable=False),
    sa.Column("live", sa.SmallInteger),
    sa.Column("since_batch", sa.BigInteger, nullable=False),
    sa.Column("until_batch", sa.BigInteger),
    sa.Column("until_ordinal", sa.BigInteger),
    sa.UniqueConstraint("source", "table_name", "source_key", "live"),
    sa.UniqueConstraint("source", "table_name", "local_key", "live"),
)
"""Which row of the target is which row of the source, where neither may be altered
(apply/referee.py). live: 1, and NULL once the pair has ended; it is never removed.
"""

UNTOLD = sa.Table(
    "headwater_untold",
    METADATA,
    sa.Column("source", name_type(128), nullable=False),
    sa.Column("sync_id", name_type(36), nullable=False),
    sa.Index("headwater_untold_by_sync_id", "source", "sync_id"),
)
"""Pairs that began or ended, which a shared referee has not been told yet (apply/told.py), some
twice; always empty without one.
"""

TABLES = sa.Table(
    "headwater_table",
    METADATA,
    sa.Column("source", name_type(128), primary_key=True),
    sa.Column("table_name", name_type(192), primary_key=True),
    sa.Column("description", text_type(), nullable=False),
    sa.Column("created", sa.Integer, nullable=False),
)
"""The newest description of each prepared table, and whether Headwater made the target's table
(MADE), found it there (ADOPTED), or began to make it and may have been stopped (MAKING).
"""

ADOPTED, MADE, MAKING = 0, 1, 2


def described(connection: sa.Connection, source: str) -> dict[str, tuple[Table, bool]]:
    """Every prepared table by full name: its newest description, and whether we created it."""
    found = connection.execute(
        sa.select(TABLES.c.description, TABLES.c.created).where(TABLES.c.source == source)
    )
    tables = [(Table.loads(text), bool(created)) for text, created in found]
    return {table.full_name: (table, created) for table, created in tables}


def half_made(connection: sa.Connection, source: str) -> set[str]:
    """Full names of the tables that Headwater began to make, and may lack something."""
    mine = (TABLES.c.source == source) & (TABLES.c.created == MAKING)
    return set(connection.scalars(sa.select(TABLES.c.table_name).where(mine)))


def describe(connection: sa.Connection, source: str, tables: Iterable[tuple[Table, int]]) -> None:
    """Keep the newest descriptions, each with ADOPTED, MADE or MAKING."""
    for table, created in tables:
        row: dict[str, Any] = {"description": table.dumps(), "created": created}
        mine = (TABLES.c.source == source) & (TABLES.c.table_name == table.full_name)
        if not connection.execute(sa.update(TABLES).where(mine).values(row)).rowcount:
            place = {"source": source, "table_name": table.full_name}
            connection.execute(sa.insert(TABLES).values(place | row))
