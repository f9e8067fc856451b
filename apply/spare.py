"""Values that a unique column takes for a moment, while rows exchange theirs.

Made from a row's ordinal, of the column's type and length on every server, and such as no row is
likely to have; if one does, the unique key says so and nothing is lost. None fits an enum or a
boolean; a check constraint may refuse any.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import types as t
from sqlalchemy.dialects import mysql

from apply.server import Server

Make = Callable[[Any], Any]
"""An ordinal's column -> the expression of the value."""

_BITS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "BIGINT": 64}


def spare_value(kind: Any, server: Server) -> Make | None:
    """How to make values of a type; None where every value may be a row's."""
    is_mysql = server.is_mysql
    if server.is_sqlite and not isinstance(kind, t.Integer | t.Float):
        return _sqlite_binary if isinstance(kind, t.LargeBinary) else _sqlite_text
    if isinstance(kind, t.Boolean | t.Enum):
        return None
    if isinstance(kind, t.Uuid):
        return lambda at: _uuid(at) if is_mysql else sa.cast(_uuid(at), kind)
    if isinstance(kind, t.Float):
        far = "1e290" if "DOUBLE" in str(kind).upper() else "1e30"
        sign = "" if getattr(kind, "unsigned", False) else "-"
        return lambda at: sa.literal_column(sign + far) * (at + 1)
    if isinstance(kind, t.Integer | t.Numeric):
        return _number(kind)
    if isinstance(kind, t.Date | t.DateTime | t.Time):
        return _mysql_clock(kind) if is_mysql else _postgres_clock(kind)
    if isinstance(kind, t.String):
        return lambda at: _text(kind, at)
    if isinstance(kind, t.LargeBinary | t._Binary):
        if is_mysql:
            return lambda at: _text(kind, at)
        return lambda at: sa.func.convert_to(_text(kind, at), "UTF8")
    return None


def _number(kind: Any) -> Make:
    """From the lowest value upwards, or from the highest downwards where none is negative."""
    step = "1"
    if isinstance(kind, t.Integer):
        name = str(kind).upper().split("(")[0].split(" ")[0]
        top = str(2 ** (_BITS.get(name, 32) - 1) - 1)
        if getattr(kind, "unsigned", False):
            top = str(2 * int(top))
    elif kind.precision is None:
        top = "1e100"
    else:
        scale = max(kind.scale or 0, 0)
        digits = "9" * kind.precision
        whole = digits[: kind.precision - scale] or "0"
        top = f"{whole}.{digits[:scale]}" if scale else whole
        step = f"0.{'0' * (scale - 1)}1" if scale else "1"
    if getattr(kind, "unsigned", False):
        return lambda at: sa.literal_column(top) - at * sa.literal_column(step)
    return lambda at: sa.literal_column(f"(-{top})") + at * sa.literal_column(step)


def _mysql_clock(kind: Any) -> Make:
    def before(unit: str, clock: str) -> Make:
        return lambda at: sa.func.timestampadd(sa.literal_column(unit), -at, clock)

    if isinstance(kind, t.Time):
        return lambda at: sa.func.sec_to_time(sa.literal_column("3011111") - at)
    if isinstance(kind, t.DateTime):
        is_instant = isinstance(kind, mysql.TIMESTAMP)
        return before("SECOND", "2037-11-23 07:11:13" if is_instant else "9871-03-05 07:11:13")
    return before("DAY", "9871-03-05")


def _postgres_clock(kind: Any) -> Make:
    if isinstance(kind, t.Time):
        precision = 6 if kind.precision is None else kind.precision  # type: ignore[attr-defined]
        step: sa.ColumnElement[Any] = sa.literal_column(
            f"interval '{10 ** (6 - precision)} microseconds'"
        )
        return lambda at: sa.literal_column("time '23:59:59'") - at * step
    if isinstance(kind, t.DateTime):
        name = "timestamptz" if kind.timezone else "timestamp"
        second: sa.ColumnElement[Any] = sa.literal_column("interval '1 second'")
        return lambda at: sa.literal_column(f"{name} '290871-03-05 07:11:13'") - at * second
    return lambda at: sa.literal_column("date '290871-03-05'") - sa.cast(at, sa.Integer)


def _sqlite_text(at: Any) -> Any:
    """Of any length: SQLite minds none, and no date's form either."""
    # The cast, because || binds closer than arithmetic there.
    return sa.literal_column("'~'", sa.Text) + sa.cast(at, sa.Text)


def _sqlite_binary(at: Any) -> Any:
    return sa.cast(_sqlite_text(at), sa.LargeBinary)


def _uuid(at: Any) -> Any:
    """Of a version and a variant that MariaDB takes."""
    return sa.func.concat("ffffffff-ffff-4fff-bfff-", _filled("000000000000", at, 12))


def _text(kind: Any, at: Any) -> Any:
    return _filled("~~~~~~~~", at, kind.length) if (kind.length or 99) < 20 else _filled("~", at)


def _filled(start: str, at: Any, length: int | None = None) -> Any:
    """The start, then the ordinal; of the last `length` characters."""
    whole = sa.func.concat(start, at)
    return whole if length is None else sa.func.right(whole, length)
