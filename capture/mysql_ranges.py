"""What `capture/ranges.py` needs of MySQL and MariaDB."""

from collections.abc import Callable, Sequence
from typing import Any

from capture.mysql_catalog import quoted
from capture.mysql_connection import connect, translated
from schemas import mysql_checksum
from schemas.codec import Wire
from schemas.kinds import Kind
from schemas.mysql_text import expression, fragment
from schemas.table import Column, Table


class MySQLDialect:
    """Implements capture.ranges.Dialect over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def query(self, sql: str) -> Sequence[Sequence[bytes | None]]:
        """See Dialect.query: the text protocol's bytes."""
        if self._connection is None:
            self._connection = connect(self._url, use_unicode=False, conv={})
        try:
            with translated("read the source"), self._connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()  # type: ignore[no-any-return]
        except BaseException:
            self.close()
            raise

    def quoted(self, name: str) -> str:
        """See Dialect.quoted."""
        return "`" + name.replace("`", "``") + "`"

    def relation(self, table: Table) -> str:
        """See Dialect.relation."""
        return f"{self.quoted(table.schema)}.{self.quoted(table.name)}"

    def printed(self, column: Column, sql: str) -> str:
        """See Dialect.printed."""
        return expression(column.kind, sql)

    def fragment(self, kind: Kind) -> Callable[[bytes], str]:
        """See Dialect.fragment."""
        return fragment(kind)

    def literal(self, kind: Kind, value: Wire) -> str:
        """See Dialect.literal; a number stays one, so that it is not compared as a double."""
        if kind.name in ("int", "bool", "decimal", "float"):
            return str(int(value)) if isinstance(value, bool) else str(value)
        if kind.name == "binary":
            return f"FROM_BASE64({quoted(str(value))})"
        if kind.name in ("datetime", "timestamp"):
            return quoted(str(value).replace("T", " ").removesuffix("Z"))
        return quoted(str(value))

    def ordered(self, column: Column, sql: str) -> str:
        """An ENUM sorts by number but compares with a text as a text."""
        return f"CONVERT({sql} USING utf8mb4)" if column.kind.name == "enum" else sql

    def field(self, kind: Kind, column: Column, sql: str) -> str | None:
        """See Dialect.field."""
        mine = column.kind
        places = (mine.scale or 0) if mine.name == "decimal" else mine.fraction
        return mysql_checksum.field(kind, mine.name, sql, places=places)

    def reference(self, column: str, field: str, dangling: str) -> str:
        """See Dialect.reference."""
        return mysql_checksum.reference(column, field, dangling)

    def total(self, fields: Sequence[str], key: Sequence[str]) -> str:
        """See Dialect.total."""
        return mysql_checksum.total(fields, key, "source")

    def close(self) -> None:
        """See Dialect.close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection._force_close()
