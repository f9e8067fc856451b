"""What a PostgreSQL source needs and how it is taken away: publication, replica identity, slot.

Plans first, as statements; running them is the caller's. Each plan names only what is missing, so
that running it twice changes nothing the second time.
"""

from collections.abc import Sequence

from capture import postgres_catalog, postgres_slot
from capture.postgres_catalog import Relation
from capture.postgres_session import Session
from capture.postgres_session import quoted as _quote
from schemas.errors import Operator
from schemas.selection import Selection

_PUBLICATION = """
    SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
    FROM pg_catalog.pg_publication WHERE pubname = %s
"""
_MEMBERS = """
    SELECT prrelid::bigint FROM pg_catalog.pg_publication_rel r
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = %s
"""
_MEMBER_SCHEMAS = """
    SELECT n.nspname::text FROM pg_catalog.pg_publication_namespace m
    JOIN pg_catalog.pg_namespace n ON n.oid = m.pnnspid
    JOIN pg_catalog.pg_publication p ON p.oid = m.pnpubid WHERE p.pubname = %s
"""


def selected(session: Session, selection: Selection) -> list[Relation]:
    """The tables to capture; unlogged ones write nothing that could be captured."""
    return [
        r
        for r in postgres_catalog.tables(session)
        if r.is_logged and selection.wants(r.schema, r.name)
    ]


def plan(session: Session, selection: Selection, slot: str, publication: str) -> list[str]:
    """The statements still needed, in the order in which they work.

    The publication comes before the slot: decoding looks it up as it was at each change.
    """
    statements = plan_tables(session, selection, publication)
    found = postgres_slot.find(session, slot)
    if found is None:
        statements.append(
            f"SELECT pg_catalog.pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        )
    else:
        postgres_slot.refuse_foreign(slot, found, postgres_slot.server(session).database)
    return statements


def plan_tables(session: Session, selection: Selection, publication: str) -> list[str]:
    """As `plan`, without the slot: publication and replica identities."""
    relations = selected(session, selection)
    statements = _publication(session, publication, relations)
    for relation in relations:
        identity = identity_of(selection, relation)
        below = postgres_catalog.partitions(session, relation.oid) if relation.kind == "p" else []
        for part in (relation, *below):
            if not logs_identity(part, identity):
                statements.append(f"ALTER TABLE {quoted(part)} {_replica_identity(part, identity)}")
    return statements


def plan_drop(session: Session, slot: str, publication: str) -> list[str]:
    """The statements that take everything away; raises Operator while the slot is being read."""
    statements = []
    found = postgres_slot.find(session, slot)
    if found is not None:
        postgres_slot.refuse_foreign(slot, found, postgres_slot.server(session).database)
        if found.active_pid is not None:
            raise Operator(
                f"found slot {slot} in use by process {found.active_pid}",
                hint="stop the capture of this source first",
            )
        statements.append(f"SELECT pg_catalog.pg_drop_replication_slot('{slot}')")
    if session.query(_PUBLICATION, publication):
        statements.append(f"DROP PUBLICATION {_quote(publication)}")
    return statements


def identity_of(selection: Selection, relation: Relation) -> tuple[str, ...]:
    """The columns that identify the table's rows; raises Misconfigured where it has none."""
    names = [n for n in relation.columns if selection.wants_column(*_names(relation), n)]
    return selection.identity_of(*_names(relation), names, relation.primary_key)


def logs_identity(relation: Relation, identity: Sequence[str]) -> bool:
    """Whether the log carries the identity's columns with updates and deletes."""
    logged = {
        "f": tuple(relation.columns),
        "d": relation.primary_key,
        "i": next((i.columns for i in relation.indexes if i.is_replica_identity), ()),
    }.get(relation.replica_identity, ())
    return set(identity) <= set(logged)


def published(session: Session, publication: str) -> tuple[bool, bool, bool] | None:
    """(all tables, all operations, partitions as their root); None without such a publication."""
    rows = session.query(_PUBLICATION, publication)
    return rows[0] if rows else None


def missing(session: Session, publication: str, relations: Sequence[Relation]) -> list[Relation]:
    """The tables that an existing publication does not cover."""
    members = {row[0] for row in session.query(_MEMBERS, publication)}
    if session.one("SELECT pg_catalog.to_regclass('pg_catalog.pg_publication_namespace')"):
        schemas = {row[0] for row in session.query(_MEMBER_SCHEMAS, publication)}
    else:
        schemas = set()  # before PostgreSQL 15
    return [r for r in relations if r.oid not in members and r.schema not in schemas]


def quoted(relation: Relation) -> str:
    """The table's name for a statement."""
    return f"{_quote(relation.schema)}.{_quote(relation.name)}"


def _publication(session: Session, name: str, relations: Sequence[Relation]) -> list[str]:
    found = published(session, name)
    if found is None:
        tables = f" FOR TABLE {', '.join(map(quoted, relations))}" if relations else ""
        return [
            f"CREATE PUBLICATION {_quote(name)}{tables} WITH (publish_via_partition_root = true)"
        ]
    if found[0]:
        return []
    return [
        f"ALTER PUBLICATION {_quote(name)} ADD TABLE {quoted(r)}"
        for r in missing(session, name, relations)
    ]


def _replica_identity(relation: Relation, identity: Sequence[str]) -> str:
    """The cheapest setting that logs the identity: an index, else the whole old row."""
    if set(identity) <= set(relation.primary_key):
        return "REPLICA IDENTITY DEFAULT"
    for index in relation.indexes:
        usable = index.is_immediate and not any(relation.columns[c].nullable for c in index.columns)
        if usable and set(identity) <= set(index.columns):
            return f"REPLICA IDENTITY USING INDEX {_quote(index.name)}"
    return "REPLICA IDENTITY FULL"


def _names(relation: Relation) -> tuple[str, str]:
    return relation.schema, relation.name
