"""What `capture/ranges.py` needs of PostgreSQL."""

from collections.abc import Callable, Sequence
from typing import Any

from capture.postgres_session import Session, quoted
from schemas import postgres_checksum
from schemas.codec import Wire
from schemas.errors import Transient
from schemas.kinds import Kind
from schemas.postgres_text import fragment
from schemas.table import Column, Table

_KIND = """
    SELECT c.relkind::text FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s
"""


class PostgresDialect:
    """Implements capture.ranges.Dialect over a session of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def query(self, sql: str) -> Sequence[Sequence[bytes | None]]:
        """See Dialect.query."""
        return [list(map(_bytes, row)) for row in self._session.query(sql)]

    def quoted(self, name: str) -> str:
        """See Dialect.quoted."""
        return quoted(name)

    def relation(self, table: Table) -> str:
        """ONLY, because what is inherited is captured as tables of their own; not so partitions."""
        kind = self._session.one(_KIND, table.schema, table.name)
        if kind is None:
            raise Transient(f"found {table.full_name} gone since it was described")
        name = f"{quoted(table.schema)}.{quoted(table.name)}"
        return name if kind == "p" else f"ONLY {name}"

    def printed(self, column: Column, sql: str) -> str:
        """See Dialect.printed; blanks that pad character(n) are not printed."""
        return f"{sql}::text"

    def fragment(self, kind: Kind) -> Callable[[bytes], str]:
        """See Dialect.fragment."""
        return fragment(kind)

    def literal(self, kind: Kind, value: Wire) -> str:
        """See Dialect.literal; the column's type reads it."""
        text = self._session.literal(str(value))
        return f"decode({text}, 'base64')" if kind.name == "binary" else text

    def ordered(self, column: Column, sql: str) -> str:
        """See Dialect.ordered."""
        return sql

    def field(self, kind: Kind, column: Column, sql: str) -> str | None:
        """See Dialect.field."""
        return postgres_checksum.field(kind, column.kind.name, sql)

    def reference(self, column: str, field: str, dangling: str) -> str:
        """See Dialect.reference."""
        return postgres_checksum.reference(column, field, dangling)

    def total(self, fields: Sequence[str], key: Sequence[str]) -> str:
        """See Dialect.total; no row is too long for its line."""
        return postgres_checksum.total(fields)

    def close(self) -> None:
        """See Dialect.close."""
        self._session.close()


def _bytes(value: Any) -> bytes | None:
    return None if value is None else str(value).encode()
