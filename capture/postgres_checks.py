"""Preflight of a PostgreSQL source: what would lose data or stop the capture, and what to run."""

from collections.abc import Iterator, Sequence

from capture import postgres_catalog, postgres_prepare, postgres_slot, postgres_tables
from capture.postgres_catalog import Relation
from capture.postgres_session import Session
from schemas.errors import Operator
from schemas.finding import Finding
from schemas.selection import Selection

_SETTINGS = """
    SELECT name, setting, unit FROM pg_catalog.pg_settings
    WHERE name IN ('wal_level', 'max_replication_slots', 'max_wal_senders', 'server_encoding',
                   'max_slot_wal_keep_size', 'logical_decoding_work_mem', 'server_version_num')
"""
_USER = """
    SELECT r.rolsuper OR r.rolreplication
           OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles m
                      WHERE m.rolname = 'rds_replication'
                        AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER')),
           r.rolname::text, pg_catalog.pg_is_in_recovery()
    FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""
_IN_USE = """
    SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots),
           (SELECT count(*) FROM pg_catalog.pg_stat_replication)
"""
_FILTERED = """
    SELECT t.schemaname || '.' || t.tablename FROM pg_catalog.pg_publication_tables t
    WHERE t.pubname = %s AND (t.rowfilter IS NOT NULL OR cardinality(t.attnames) <> (
        SELECT count(*) FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = t.schemaname AND c.relname = t.tablename
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''))
    ORDER BY 1
"""
_UNREADABLE = """
    SELECT oid::bigint FROM pg_catalog.pg_class
    WHERE oid = ANY(%s::oid[]) AND NOT pg_catalog.has_table_privilege(oid, 'SELECT')
"""
_DATABASE = "SELECT pg_catalog.current_database()::text"
_OLDEST_VERSION = 140000


def findings(session: Session, selection: Selection, slot: str, publication: str) -> list[Finding]:
    """Everything found, refusals and warnings; nothing is changed."""
    settings = {name: value for name, value, _ in session.query(_SETTINGS)}
    relations = postgres_prepare.selected(session, selection)
    return [
        *_server(session, settings),
        *_slot(session, settings, slot),
        *_publication(session, settings, publication, relations),
        *_unlogged(session, selection),
        *(f for r in relations for f in _table(session, selection, r)),
        *_privileges(session, relations),
    ]


def _server(session: Session, settings: dict[str, str]) -> Iterator[Finding]:
    if int(settings["server_version_num"]) < _OLDEST_VERSION:
        yield _refusal("server_version", "is older than PostgreSQL 14", "upgrade the server")
    if settings["wal_level"] != "logical":
        yield _refusal(
            "wal_level",
            f"is {settings['wal_level']}: the log does not hold row changes",
            "ALTER SYSTEM SET wal_level = 'logical', then restart the server",
        )
    if settings["server_encoding"] == "SQL_ASCII":
        yield _refusal(
            "server_encoding",
            "is SQL_ASCII: nobody knows which characters the bytes are",
            "move the data to a database with encoding UTF8",
        )
    may_replicate, user, in_recovery = session.query(_USER)[0]
    if not may_replicate:
        yield _refusal(f"user {user}", "may not read the log", f'ALTER ROLE "{user}" REPLICATION')
    if in_recovery:
        yield _refusal(
            "server", "is a standby, from which no table can be copied", "use the primary's url"
        )
    if settings["max_slot_wal_keep_size"] != "-1":
        yield _warning(
            "max_slot_wal_keep_size",
            f"is {settings['max_slot_wal_keep_size']} MB: a capture that is down for longer than "
            "that much WAL loses its slot",
            "set it to what the disk can spare, and watch the lag",
        )
    if int(settings["logical_decoding_work_mem"]) < 65536:
        yield _warning(
            "logical_decoding_work_mem",
            f"is {settings['logical_decoding_work_mem']} kB: larger transactions are written to "
            "the server's disk before they are sent",
            "ALTER SYSTEM SET logical_decoding_work_mem = '64MB'",
        )


def _slot(session: Session, settings: dict[str, str], name: str) -> Iterator[Finding]:
    slot = postgres_slot.find(session, name)
    slots, senders = session.query(_IN_USE)[0]
    if slot is None:
        yield _refusal(f"slot {name}", "does not exist", "headwater prepare")
        if slots >= int(settings["max_replication_slots"]):
            yield _refusal(
                "max_replication_slots",
                f"is {settings['max_replication_slots']}, and all are taken",
                "raise it and restart the server, or drop a slot that nobody reads",
            )
    elif slot.lost:
        yield _refusal(
            f"slot {name}",
            f"is lost ({slot.lost}): WAL that was not yet read is gone",
            "headwater drop, headwater prepare, then a new log and first copy",
        )
    elif slot.plugin != "pgoutput" or slot.database != session.one(_DATABASE):
        yield _refusal(
            f"slot {name}",
            f"was made for {slot.plugin} in database {slot.database}",
            "give the source another slot name",
        )
    if (slot is None or slot.active_pid is None) and senders >= int(settings["max_wal_senders"]):
        yield _refusal(
            "max_wal_senders",
            f"is {settings['max_wal_senders']}, and all are taken",
            "raise it and restart the server",
        )


def _publication(
    session: Session, settings: dict[str, str], name: str, relations: Sequence[Relation]
) -> Iterator[Finding]:
    found = postgres_prepare.published(session, name)
    where = f"publication {name}"
    if found is None:
        yield _refusal(where, "does not exist", "headwater prepare")
        return
    all_tables, all_operations, via_root = found
    if not all_operations:
        yield _refusal(
            where,
            "leaves out some operations",
            f"ALTER PUBLICATION \"{name}\" SET (publish = 'insert, update, delete, truncate')",
        )
    if not all_tables:
        for relation in postgres_prepare.missing(session, name, relations):
            yield _refusal(relation.full_name, f"is not in {where}", "headwater prepare")
    if not via_root and any(r.kind == "p" for r in relations):
        yield _refusal(
            where,
            "publishes partitions under their own names",
            f'ALTER PUBLICATION "{name}" SET (publish_via_partition_root = true)',
        )
    if int(settings["server_version_num"]) >= 150000:
        for (table,) in session.query(_FILTERED, name):
            yield _warning(
                str(table),
                f"is in {where} with a row filter or a column list: what it hides is not captured",
                f'ALTER PUBLICATION "{name}" SET TABLE … without them',
            )


def _unlogged(session: Session, selection: Selection) -> Iterator[Finding]:
    for relation in postgres_catalog.tables(session):
        if not relation.is_logged and selection.wants(relation.schema, relation.name):
            name = postgres_prepare.quoted(relation)
            yield _warning(
                relation.full_name,
                "is unlogged: its changes are not captured",
                f"ALTER TABLE {name} SET LOGGED, or exclude it",
            )


def _table(session: Session, selection: Selection, relation: Relation) -> Iterator[Finding]:
    try:
        postgres_tables.from_catalog(selection, relation)
        identity = postgres_prepare.identity_of(selection, relation)
    except Operator as error:
        yield _refusal(relation.full_name, str(error), error.hint)
        return
    name = postgres_prepare.quoted(relation)
    for column in identity:
        if relation.columns[column].nullable:
            yield _refusal(
                f"{relation.full_name}.{column}",
                "identifies rows and may be null",
                f'ALTER TABLE {name} ALTER COLUMN "{column}" SET NOT NULL',
            )
    if not any(set(i.columns) <= set(identity) for i in relation.indexes):
        columns = ", ".join(f'"{c}"' for c in identity)
        yield _refusal(
            relation.full_name,
            f"has no unique index on {', '.join(identity)}, which identifies its rows",
            f"CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({columns})",
        )
    below = postgres_catalog.partitions(session, relation.oid) if relation.kind == "p" else []
    for part in (relation, *below):
        if not postgres_prepare.logs_identity(part, identity):
            yield _refusal(
                part.full_name,
                f"has a replica identity without {', '.join(identity)}: deletes would not name "
                "their row",
                "headwater prepare",
            )


def _privileges(session: Session, relations: Sequence[Relation]) -> Iterator[Finding]:
    denied = {row[0] for row in session.query(_UNREADABLE, [r.oid for r in relations])}
    for relation in relations:
        if relation.oid in denied:
            yield _refusal(
                relation.full_name,
                "cannot be read, which its first copy needs",
                f"GRANT SELECT ON {postgres_prepare.quoted(relation)} TO the source's user",
            )


def _refusal(where: str, problem: str, fix: str) -> Finding:
    return Finding(where=where, problem=problem, fix=fix)


def _warning(where: str, problem: str, fix: str) -> Finding:
    return Finding(where=where, problem=problem, fix=fix, refused=False)
