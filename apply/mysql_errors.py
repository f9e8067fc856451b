"""What MySQL's and MariaDB's error numbers and messages mean for a batch.

Numbers: https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html and
https://mariadb.com/kb/en/mariadb-error-code-reference/. The transient ones are kept few; what is
not listed is fatal.
"""

import re

import pymysql
import sqlalchemy as sa

from apply.server import Cause

_LOST = {1040, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1213, 1021, 1114, 1317, 1927}
_LOST |= {2000, 2002, 2003, 2006, 2012, 2013, 2014, 2055, 3168, 4031}
_DENIED = {1044, 1045, 1049, 1142, 1143, 1227, 1251, 1290, 1698, 1792, 1820, 1836, 1862, 1130, 3118}
_FOREIGN = {1216, 1217, 1451, 1452}
_ROW = {1048, 1138, 1263, 1264, 1265, 1292, 1300, 1364, 1365, 1366, 1367, 1406, 1411}
_ROW |= {
    1416,
    1423,
    1425,
    1441,
    1526,
    1644,
    1690,
    1748,
    3105,
    3140,
    3141,
    3156,
    3157,
    3819,
    3903,
    4025,
}
_AT_ROW = re.compile(r"at row (\d+)")
_COLUMN = re.compile(
    r"column [`']?(?:[^`'.]*[`']?\.[`']?){0,2}([^`'.]+)[`']?(?: at row|\.?$)", re.IGNORECASE
)


def code(error: BaseException | None) -> int:
    """The server's or client's number; 0 where the error has none."""
    first = error.args[0] if error is not None and error.args else 0
    return first if isinstance(first, int) else 0


def message(error: pymysql.Error) -> str:
    """What the server said."""
    return str(error.args[1]) if len(error.args) > 1 else ""


def cause(error: sa.exc.DBAPIError) -> Cause:
    """Why the statement failed."""
    number = code(error.orig)
    if (
        number in _LOST
        or error.connection_invalidated
        or isinstance(error.orig, pymysql.InterfaceError)
    ):
        return Cause.LOST
    if number in _DENIED:
        return Cause.DENIED
    if number in _FOREIGN:
        return Cause.FOREIGN
    named = {
        1197: Cause.TOO_LARGE,
        1205: Cause.LOCKED,
        3572: Cause.LOCKED,
        1062: Cause.UNIQUE,
        1586: Cause.UNIQUE,
    }
    return named.get(number, Cause.ROW if number in _ROW else Cause.UNKNOWN)


def is_of_row(error: pymysql.Error) -> bool:
    """Whether a row's values caused it."""
    return code(error) in _ROW


def row(said: str) -> int | None:
    """The row that a message or warning names, counted from 0."""
    found = _AT_ROW.search(said)
    return int(found[1]) - 1 if found else None


def column(said: str) -> str | None:
    """The column that a message or warning names."""
    found = _COLUMN.search(said)
    return found[1] if found else None
