"""Which rows of a table a chunk reads: SQL over the paging columns, in the order of their index.

These are the primary key's columns, or the identity's where there is none. A key is the list of
their values as the text protocol prints them, binary ones in hex, an ENUM's number.
"""

from base64 import b64decode
from collections.abc import Sequence
from struct import pack, unpack
from typing import Any

import orjson

from capture.mysql_catalog import quoted
from schemas.codec import Wire, quote
from schemas.errors import Poison
from schemas.kinds import Kind
from schemas.mysql_text import expression
from schemas.table import Column, Table

_LABELS_OF_ONE_BYTE = 255


def name(text: str) -> str:
    """A name as SQL text."""
    return "`" + text.replace("`", "``") + "`"


def rows_of(table: Table) -> str:
    """What to read FROM."""
    return f"{name(table.schema)}.{name(table.name)}"


def paging_columns(table: Table) -> list[Column]:
    """The columns by which a table is read in pages."""
    return [table.by_name[n] for n in table.primary_key or table.identity]


def order(table: Table) -> str:
    """The paging columns, as SQL."""
    return ", ".join(name(c.name) for c in paging_columns(table))


def selected_key(table: Table) -> list[str]:
    """What to SELECT for a row's key."""
    return [
        # An ENUM sorts by its number, but is compared with a text as a text.
        f"({name(c.name)} + 0)" if c.kind.name == "enum" else expression(c.kind, name(c.name))
        for c in paging_columns(table)
    ]


def key_of(table: Table, values: Sequence[bytes | None]) -> list[str]:
    """A row's key, from the bytes that `selected_key` gave."""
    return [_text(table, c, v) for c, v in zip(paging_columns(table), values, strict=True)]


def within(table: Table, after: Any, until: Any) -> str:
    """The WHERE clause of (after, until].

    `(a, b) > (x, y)` is spelled out: servers use no index for the short form.
    """
    conditions = [
        _beyond(table, sign, last, key)
        for sign, last, key in ((">", ">", after), ("<", "<=", until))
        if key is not None
    ]
    return f" WHERE ({') AND ('.join(conditions)})" if conditions else ""


def nulls(table: Table) -> str | None:
    """A query for a row that no page would show, as a paging column of it is null; None where
    there is none.
    """
    nullable = [c for c in paging_columns(table) if c.nullable]
    if not nullable:
        return None
    wanted = " OR ".join(f"{name(c.name)} IS NULL" for c in nullable)
    return f"SELECT 1 FROM {rows_of(table)} WHERE {wanted} LIMIT 1"


def among(table: Table, identities: Sequence[bytes]) -> str:
    """The WHERE clause of the rows that have one of these wire keys."""
    if not identities:
        return " WHERE false"
    columns = [table.by_name[n] for n in table.identity]
    rows = [
        [_wire_literal(c.kind, row[c.name]) for c in columns]
        for row in map(orjson.loads, identities)
    ]
    names = [name(c.name) for c in columns]
    if len(names) == 1:
        return f" WHERE {names[0]} IN ({', '.join(row[0] for row in rows)})"
    # Spelled out: MariaDB uses no index for (a, b) IN (…).
    each = (" AND ".join(map(" = ".join, zip(names, row, strict=True))) for row in rows)
    return f" WHERE ({') OR ('.join(each)})"


def refuse_null(table: Table, keys: Sequence[bytes]) -> None:
    """Raise Poison for a wire key that is null in part: all such rows would be one in the log."""
    nullable = [table.by_name[n] for n in table.identity if table.by_name[n].nullable]
    # A text's own quotes are escaped: this is never part of a value.
    members = [f"{quote(c.name)}:null".encode() for c in nullable]
    if any(member in key for member in members for key in keys):
        raise null_key(table, nullable)


def null_key(table: Table, columns: Sequence[Column]) -> Poison:
    """The error for a row whose key is null in part."""
    return Poison(
        f"found a row of {table.full_name} whose {' or '.join(c.name for c in columns)} is null",
        hint="give every row a value and make the column NOT NULL, or exclude the table",
    )


def _beyond(table: Table, sign: str, last: str, key: Sequence[str]) -> str:
    """`(a, b) > (x, y)` as `a > x OR (a = x AND b > y)`; `last`: the last column's sign.

    In this form both servers see ranges over the index's columns. In a nested one MariaDB sees the
    first column's only, and reads all of its rows with that value again for each page.
    """
    columns = [(name(c.name), c.kind) for c in paging_columns(table)]
    signs = [sign] * (len(columns) - 1) + [last]
    same: list[str] = []
    ends = []
    for (column, kind), beyond, value in zip(columns, signs, key, strict=True):
        ends.append(" AND ".join([*same, _compared(column, kind, beyond, value)]))
        same.append(f"{column} = {_literal(kind, value)}")
    return "(" + ") OR (".join(ends) + ")"


def _compared(column: str, kind: Kind, sign: str, value: str) -> str:
    if kind.name != "enum" or len(kind.labels) > _LABELS_OF_ONE_BYTE:
        return f"{column} {sign} {_literal(kind, value)}"
    # By their order an ENUM's numbers are compared without the index, by equality with it. Those
    # without a label are there for labels added since.
    number = int(value)
    first, end = {
        ">": (number + 1, _LABELS_OF_ONE_BYTE + 1),
        "<": (0, number),
        "<=": (0, number + 1),
    }[sign]
    numbers = ", ".join(map(str, range(first, end)))
    return f"{column} IN ({numbers})" if numbers else "false"


def _text(table: Table, column: Column, value: bytes | None) -> str:
    if value is None:
        raise null_key(table, [column])
    return value.hex() if column.kind.name == "binary" else value.decode()


def _literal(kind: Kind, text: str) -> str:
    if kind.name == "binary":
        return f"x'{bytes.fromhex(text).hex()}'"
    if kind.name in ("int", "bool", "enum"):
        return str(int(text))
    if kind.name == "float":
        return repr(float(text))
    if kind.name == "decimal":
        return _digits(text)
    return quoted(text)


def _digits(text: str) -> str:
    """A DECIMAL as it is: compared with a text, both would become a DOUBLE of 53 bits."""
    if text.strip("0123456789.-"):
        raise ValueError("found a decimal that is none")
    return text


def _wire_literal(kind: Kind, value: Wire) -> str:
    """A wire value as SQL."""
    if value is None:
        return "NULL"
    if kind.name == "binary":
        return f"x'{b64decode(str(value)).hex()}'"
    if kind.name in ("int", "bool"):
        return str(int(value))
    if kind.name == "float":
        number = float(value)
        return repr(unpack("f", pack("f", number))[0] if kind.bits == 32 else number)
    if kind.name == "decimal":
        return _digits(str(value))
    if kind.name in ("datetime", "timestamp"):
        return quoted(str(value).removesuffix("Z").replace("T", " ", 1))
    return quoted(str(value))
