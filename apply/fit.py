"""Whether an adopted column can take every value of a kind; what prepare refuses, and why.

Servers round fractions and scales, cut blanks and convert clocks without a word: a column that
would let them is refused here, by type. What a server itself refuses by value (too long, out of
range, not a number) may pass: it stops the row as Poison. The tables in `_ACCEPTS` are the whole
rule.
"""

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy import types as t
from sqlalchemy.dialects import mysql

from apply import uuids
from apply.fields import Fields
from apply.server import DECLARED, Server
from schemas.kinds import Kind
from schemas.table import Table

_MYSQL_BITS = {
    "TINYINT": 8,
    "SMALLINT": 16,
    "MEDIUMINT": 24,
    "INTEGER": 32,
    "INT": 32,
    "BIGINT": 64,
}
_BITS = {"SMALLINT": 16, "INTEGER": 32, "INT": 32, "BIGINT": 64}


def unfit(
    kind: Kind, column: sa.Column[Any], *, is_mysql: bool, is_key: bool, is_identity: bool = False
) -> str | None:
    """Why the column cannot take the kind's values ("is narrower: …"), or None where it can.

    is_identity: text or bytes there may be a UUID.
    """
    family = family_of(column.type)
    if is_identity or kind.name == "uuid" or (kind.name == "binary" and kind.length == 16):
        is_text = uuids.is_text_elsewhere(kind, family) and (is_identity or family == "uuid")
        if is_text or uuids.is_bytes_elsewhere(kind, family):
            return None if _holds_uuids(column.type) else f"does not hold UUIDs: {_text(column)}"
    wider = _ACCEPTS.get(kind.name, ())
    if family not in wider:
        return f"is {_text(column)}, which does not hold {kind.name} values exactly"
    narrower = _narrower(kind, column.type, family, is_mysql, is_key)
    return f"is narrower: {_text(column)} for {_kind_text(kind)}" if narrower else None


def _text(column: sa.Column[Any]) -> str:
    if DECLARED in column.info:
        return str(column.info[DECLARED] or "of no type")
    return repr(column.type) if isinstance(column.type, t.NullType) else str(column.type).lower()


def _kind_text(kind: Kind) -> str:
    parts = {k: v for k, v in kind.to_json().items() if k not in ("name", "labels")}
    return f"{kind.name} {parts}" if parts else kind.name


def _holds_uuids(column: Any) -> bool:
    """Whether the text of a UUID fits, or its bytes, without blanks or zeros behind them."""
    length = getattr(column, "length", None)
    if isinstance(column, mysql.BINARY):
        return bool(length == 16)
    least = 36 if isinstance(column, t.String) else 16
    return length is None or bool(length >= least)


_ACCEPTS: dict[str, tuple[str, ...]] = {
    "int": ("int", "decimal", "text", "float", "bool"),
    "decimal": ("decimal", "text"),
    "float": ("float", "text"),
    "bool": ("bool", "int", "text"),
    "text": ("text", "uuid", "enum"),
    "binary": ("binary",),
    "date": ("date", "text"),
    "time": ("time", "text"),
    "datetime": ("datetime", "text"),
    "timestamp": ("timestamp", "datetime", "text"),
    "json": ("json", "text"),
    "uuid": ("uuid", "text"),
    "enum": ("enum", "text"),
}


def family_of(kind: Any) -> str:
    if isinstance(kind, t.Boolean):
        return "bool"
    if isinstance(kind, mysql.BIT):
        return "bit"
    if isinstance(kind, t.Integer):
        return "year" if isinstance(kind, mysql.YEAR) else "int"
    if isinstance(kind, t.Float):
        return "float"
    if isinstance(kind, t.Numeric):
        return "decimal"
    if isinstance(kind, t.JSON):
        return "json"
    if isinstance(kind, t.Enum):
        return "enum"
    if isinstance(kind, t.Uuid):
        return "uuid"
    if isinstance(kind, t.String):
        return "text"
    if isinstance(kind, t.LargeBinary | t._Binary):
        return "binary"
    if isinstance(kind, t.DateTime):
        zoned = isinstance(kind, mysql.TIMESTAMP) or kind.timezone
        return "timestamp" if zoned else "datetime"
    return {t.Date: "date", t.Time: "time"}.get(
        next((c for c in (t.Date, t.Time) if isinstance(kind, c)), type(kind)), "other"
    )


def _narrower(kind: Kind, column: Any, family: str, is_mysql: bool, is_key: bool) -> bool:
    if family == "int":
        return _narrow_int(kind, column, is_mysql)
    if family == "decimal":
        return _narrow_decimal(kind, column)
    if family == "float":
        is_short = str(column).upper().split("(")[0] in ("REAL", "FLOAT")
        bits, exact = (32, 24) if is_short else (64, 53)
        rounds = getattr(column, "scale", None) is not None
        return rounds or kind.bits > (bits if kind.name == "float" else exact)
    if family in ("time", "datetime", "timestamp"):
        given = getattr(column, "fsp", None) if is_mysql else getattr(column, "precision", None)
        fraction: int = given if given is not None else (0 if is_mysql else 6)
        return kind.fraction > fraction
    if family in ("text", "binary") and kind.name in ("text", "binary") and not is_key:
        length = getattr(column, "length", None)
        return bool(length is not None and (kind.length is None or kind.length > length))
    return False


def _narrow_int(kind: Kind, column: Any, is_mysql: bool) -> bool:
    if kind.name == "bool":
        return False
    name = str(column).upper().split("(")[0].split(" ")[0]
    bits = (_MYSQL_BITS if is_mysql else _BITS)[name]
    is_unsigned = bool(getattr(column, "unsigned", False))
    if kind.unsigned:
        return kind.bits > bits - (not is_unsigned)
    return is_unsigned or bool(kind.bits > bits)


def _narrow_decimal(kind: Kind, column: Any) -> bool:
    if column.precision is None:
        return False
    scale = column.scale or 0
    if kind.name == "int":
        digits = len(str(2 ** (kind.bits - (not kind.unsigned))))
        return bool(digits > column.precision - scale)
    if kind.precision is None:
        return not (column.precision == 65 and scale == 30)
    mine = kind.scale or 0
    # decimal(65,30) is the widest that MySQL has: its server refuses by value what does not fit.
    widest = column.precision == 65 and scale == 30
    return not widest and bool(mine > scale or kind.precision - mine > column.precision - scale)


_INTEGER = re.compile(r"((?:tiny|small|medium|big)?int)(?:eger)?(?:\(\d+\))?( unsigned)?")


def integer_of(text: str) -> tuple[str, bool] | None:
    """An integer type's name and whether it is unsigned; None for other types."""
    found = _INTEGER.match(text)
    return (found[1], bool(found[2])) if found else None


def staged_as(server: Server, parent: Table, target: sa.Table) -> Fields | None:
    """How texts of the parent's identities are staged for the target's column; None for kinds
    whose text is not their field.
    """
    column = target.c[parent.identity[0]]
    kind = parent.by_name[parent.identity[0]].kind
    if kind.name not in ("int", "text", "uuid", "binary"):
        return None
    return server.fields(kind, family_of(column.type))
