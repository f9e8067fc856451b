"""Which rows of a table a chunk reads: SQL over the identity's columns, in the identity's order.

Paging is by the identity, not by the primary key. A row moved by an update of the paging key
between two chunks would be read twice or never; the stream repairs that only where the update
carries the whole row. An update that changes the identity always does (a delete and a full insert,
see postgres_rows.py); one that changes another key may lack its unchanged long values.

A key is the list of its columns' values as PostgreSQL prints them.
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import orjson

from capture.postgres_session import Session
from capture.postgres_session import quoted as _quote
from schemas.codec import Wire
from schemas.errors import Poison, Transient
from schemas.kinds import Kind
from schemas.table import Table

_KIND = """
    SELECT c.relkind::text FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s
"""


def rows_of(session: Session, table: Table) -> str:
    """What to read FROM: ONLY, because what is inherited is captured as tables of their own; not so
    partitions.
    """
    kind = session.one(_KIND, table.schema, table.name)
    if kind is None:
        raise Transient(f"found {table.full_name} gone since it was described")
    name = f"{_quote(table.schema)}.{_quote(table.name)}"
    return name if kind == "p" else f"ONLY {name}"


def order(table: Table) -> str:
    """The identity's columns, as SQL."""
    return ", ".join(map(_quote, table.identity))


def within(session: Session, table: Table, after: Any, until: Any) -> str:
    """The WHERE clause of (after, until]."""
    ends = ((">", after), ("<=", until))
    conditions = [
        f"({order(table)}) {sign} ({', '.join(map(session.literal, key))})"
        for sign, key in ends
        if key is not None
    ]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def among(session: Session, table: Table, identities: Sequence[bytes]) -> str:
    """The WHERE clause of the rows that have one of these wire keys."""
    if not identities:
        return " WHERE false"
    rows = (orjson.loads(key) for key in identities)
    listed = (
        ", ".join(session.literal(_text(table.by_name[n].kind, row[n])) for n in table.identity)
        for row in rows
    )
    return f" WHERE ({order(table)}) IN (({'), ('.join(listed)}))"


def refuse_null_identity(session: Session, table: Table, source: str) -> None:
    """Raise Poison for a row without identity, which no page would ever show."""
    nullable = [n for n in table.identity if table.by_name[n].nullable]
    for name in nullable:
        if session.query(f"SELECT 1 FROM {source} WHERE {_quote(name)} IS NULL LIMIT 1"):
            raise null_identity(table)


def null_identity(table: Table) -> Poison:
    """The error for a row whose identity is null in part."""
    names = " or ".join(table.identity)
    return Poison(
        f"found a row of {table.full_name} whose {names} is null",
        hint="give every row a value and make the column NOT NULL, or exclude the table",
    )


def _text(kind: Kind, value: Wire) -> str | None:
    """A wire value as PostgreSQL reads it."""
    if value is None:
        return None
    if kind.name == "binary":
        return "\\x" + b64decode(str(value)).hex()
    if kind.name == "bool":
        return "true" if value else "false"
    return str(value)
