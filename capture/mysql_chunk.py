"""Chunks of a table, read so that they can stand in the stream; text-protocol bytes to wire bytes.

A commit can be in the binlog, and streamed, before any read sees it. What a read has seen is thus
noted in the server's own terms, and the log's end only after the read.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from capture.mysql_catalog import quoted
from capture.mysql_flavour import Flavour
from capture.mysql_position import Files, Gtids, MariaGtids
from capture.source import Chunk
from schemas.codec import Wire, image_template
from schemas.kinds import Kind
from schemas.mysql_text import expression, fragment
from schemas.table import Table


def read_chunk(
    flavour: Flavour, cursor: Any, raw: Any, table: Table, after_key: Any, limit: int
) -> Chunk:
    """Read up to `limit` rows after `after_key` over `raw`, a cursor that converts nothing."""
    columns = [c for c in table.columns if not c.generated]
    order = [table.by_name[name] for name in table.primary_key or table.identity]
    keys = [_key_expression(c.kind, _name(c.name)) for c in order]
    kinds = [c.kind for c in order]
    selected = [expression(c.kind, _name(c.name)) for c in columns] + keys
    where = f" WHERE {_after(keys, kinds, after_key)}" if after_key is not None else ""
    sql = (
        f"SELECT {', '.join(selected)} FROM {_name(table.schema)}.{_name(table.name)}{where} "
        f"ORDER BY {', '.join(keys)} LIMIT {limit}"
    )
    seen, rows = _READS[type(flavour)](flavour, cursor, raw, sql)
    high = flavour.now(cursor)
    cursor.execute("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)")
    read_at = int(cursor.fetchone()[0])
    count = len(columns)
    makers = [fragment(c.kind) for c in columns]
    fragments = [
        tuple("null" if v is None else make(v) for make, v in zip(makers, row, strict=False))
        for row in rows
    ]
    names = [c.name for c in columns]
    template = image_template(names)
    places = [names.index(name) for name in table.identity]
    key_template = image_template(table.identity)
    next_key = None
    if len(rows) == limit:
        next_key = [_key_text(k, v) for k, v in zip(kinds, rows[-1][count:], strict=True)]
    return Chunk(
        table=table,
        keys=[(key_template % tuple(row[i] for i in places)).encode() for row in fragments],
        images=[template % row for row in fragments],
        source_keys=_source_keys(table, names, fragments),
        next_key=next_key,
        seen=seen,
        high=high,
        read_at=read_at,
    )


def _source_keys(
    table: Table, names: Sequence[str], fragments: Sequence[tuple[str, ...]]
) -> list[Wire]:
    if len(table.primary_key) != 1:
        return []
    place = names.index(table.primary_key[0])
    return [orjson.loads(row[place]) for row in fragments]


def _read_gtids(flavour: Flavour, cursor: Any, raw: Any, sql: str) -> tuple[str, Any]:
    """What is in gtid_executed is visible to every read that begins later."""
    seen = str(flavour.now(cursor))
    raw.execute(sql)
    return seen, raw.fetchall()


def _read_snapshot(flavour: Flavour, cursor: Any, raw: Any, sql: str) -> tuple[str, Any]:
    """MariaDB says which place of the binlog a snapshot stands for, under REPEATABLE READ only."""
    raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    raw.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    raw.execute("SHOW STATUS LIKE 'binlog_snapshot_%'")
    status = {k.decode().lower(): v.decode() for k, v in raw.fetchall()}
    raw.execute(sql)
    rows = raw.fetchall()
    raw.execute("COMMIT")
    return f"{status['binlog_snapshot_file']}:{status['binlog_snapshot_position']}", rows


def _read_shared(flavour: Flavour, cursor: Any, raw: Any, sql: str) -> tuple[str, Any]:
    """A locking read waits for transactions that are in the binlog but not yet visible."""
    raw.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    raw.execute("START TRANSACTION")
    raw.execute(sql + " FOR SHARE")
    rows = raw.fetchall()
    raw.execute("COMMIT")
    return "", rows


_READS: dict[type[Flavour], Any] = {
    Gtids: _read_gtids,
    MariaGtids: _read_snapshot,
    Files: _read_shared,
}


def _name(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"


def _key_expression(kind: Kind, column: str) -> str:
    # An ENUM sorts by number but compares with a text as a text.
    return f"({column} + 0)" if kind.name == "enum" else expression(kind, column)


def _after(keys: Sequence[str], kinds: Sequence[Kind], values: Sequence[str]) -> str:
    """`(a, b) > (x, y)`, spelled out: servers do not use an index for the short form."""
    literals = [_literal(k, v) for k, v in zip(kinds, values, strict=True)]
    condition = f"{keys[-1]} > {literals[-1]}"
    for key, literal in reversed(list(zip(keys[:-1], literals[:-1], strict=True))):
        condition = f"{key} >= {literal} AND ({key} > {literal} OR ({condition}))"
    return condition


def _key_text(kind: Kind, value: bytes) -> str:
    return value.hex() if kind.name == "binary" else value.decode()


def _literal(kind: Kind, text: str) -> str:
    if kind.name == "binary":
        return f"x'{bytes.fromhex(text).hex()}'"
    if kind.name in ("int", "bool", "enum"):
        return str(int(text))
    if kind.name == "float":
        return repr(float(text))
    return quoted(text)
