"""Column types of tables that Headwater creates, from kinds; every value of the kind fits or is
refused by name.

| kind               | PostgreSQL                        | MySQL, MariaDB                         |
|--------------------|-----------------------------------|----------------------------------------|
| int 8, 16          | smallint                          | tinyint, smallint                      |
| int 24, 32, 64     | integer, integer, bigint          | mediumint, int, bigint                 |
| int 8, 16 unsigned | smallint, integer                 | the same, unsigned                     |
| int 24, 32, 64 uns.| integer, bigint, numeric(20,0)    | the same, unsigned                     |
| decimal(p,s)       | numeric(p,s)                      | decimal(p,s), at most (65,30)          |
| decimal            | numeric                           | decimal(65,30): more digits refused    |
| float 32, 64       | real, double precision            | float, double                          |
| bool               | boolean: 0 and 1 only             | tinyint(1)                             |
| text(n)            | varchar(n)                        | varchar(n) to n = 1,000, else longtext |
| text               | text                              | longtext; a key: varchar(255)          |
| binary             | bytea                             | varbinary(n) to 1,000, else longblob   |
| date, time         | date, time(f)                     | date, time(f)                          |
| datetime           | timestamp(f)                      | datetime(f)                            |
| timestamp          | timestamptz(f)                    | datetime(f), UTC; of MySQL timestamp(f)|
| json               | jsonb; of PostgreSQL's json json  | json                                   |
| uuid               | uuid                              | char(36) ascii; MariaDB: uuid          |
| enum               | text                              | varchar(255); of MySQL the same enum   |

SQLite has INTEGER for integers and booleans, REAL for floats, BLOB for binary and TEXT for all
others, as the wire has them (docs/operating-sqlite.md); int 64 unsigned is TEXT too.

A source of the same family keeps its native type's text where the target surely knows it (BUILTIN).
Text on MySQL and MariaDB is utf8mb4 under a binary collation without padding, so that only equal
text is equal.
"""

import re
from collections.abc import Callable

from schemas.kinds import Kind
from schemas.table import Column

_MYSQL_BUILTIN = re.compile(
    r"(tinyint|smallint|mediumint|int|bigint|decimal|float|double|enum|binary|varbinary"
    r"|(tiny|medium|long)?blob|date|time|datetime|timestamp|year|bit)\b.*"
)
_POSTGRES_BUILTIN = re.compile(
    r"(smallint|integer|bigint|numeric|real|double precision|boolean|text|character varying"
    r"|character|varchar|char|bytea|date|time|timestamp|jsonb?|uuid)"
    r"( ?\(\d+(,-?\d+)?\))?( with(out)? time zone)?"
)
_ROOMY = 1000
"""Longer columns live outside the row, whose limit is 65,535 bytes for all columns together."""


def postgres_type(column: Column, family: str, key: bool) -> str:
    """The type of a new column on PostgreSQL; `key`: it will be indexed."""
    kind = column.kind
    if family == "postgres" and kind.name != "enum" and _POSTGRES_BUILTIN.fullmatch(column.native):
        return column.native
    return _POSTGRES[kind.name](kind)


def mysql_type(column: Column, family: str, key: bool, *, mariadb: bool) -> str:
    """The type of a new column on MySQL or MariaDB; `key`: it will be indexed."""
    kind = column.kind
    if kind.name == "text":
        return _mysql_text(kind.length, key, mariadb)
    if kind.name == "uuid":
        return "uuid" if mariadb else "char(36) character set ascii collate ascii_bin"
    if family != "postgres" and _MYSQL_BUILTIN.fullmatch(column.native):
        return column.native + (_binary(mariadb) if kind.name == "enum" else "")
    if kind.name == "enum":
        return _mysql_text(255, key, mariadb)
    if kind.name == "binary" and key and kind.length is None:
        return "varbinary(255)"
    return _MYSQL[kind.name](kind)


def sqlite_type(kind: Kind) -> str:
    """The type of a new column on SQLite."""
    if kind.name == "int" and kind.unsigned and kind.bits == 64:
        return "TEXT"
    return _SQLITE.get(kind.name, "TEXT")


def _binary(mariadb: bool) -> str:
    return " character set utf8mb4 collate " + (
        "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    )


def _mysql_text(length: int | None, key: bool, mariadb: bool) -> str:
    if key:
        length = min(length or 255, 700)
    if length is None or length > _ROOMY:
        return "longtext" + _binary(mariadb)
    return f"varchar({length})" + _binary(mariadb)


def _postgres_int(kind: Kind) -> str:
    if kind.bits == 64 and kind.unsigned:
        return "numeric(20,0)"
    bits = kind.bits + kind.unsigned
    return "smallint" if bits <= 16 else "integer" if bits <= 32 else "bigint"


def _postgres_decimal(kind: Kind) -> str:
    return "numeric" if kind.precision is None else f"numeric({kind.precision},{kind.scale or 0})"


def _mysql_int(kind: Kind) -> str:
    name = {8: "tinyint", 16: "smallint", 24: "mediumint", 32: "int", 64: "bigint"}[kind.bits]
    return name + (" unsigned" if kind.unsigned else "")


def _mysql_decimal(kind: Kind) -> str:
    if kind.precision is None or kind.precision > 65 or not 0 <= (kind.scale or 0) <= 30:
        return "decimal(65,30)"
    return f"decimal({kind.precision},{kind.scale or 0})"


_POSTGRES: dict[str, Callable[[Kind], str]] = {
    "int": _postgres_int,
    "decimal": _postgres_decimal,
    "float": lambda k: "real" if k.bits == 32 else "double precision",
    "bool": lambda k: "boolean",
    "text": lambda k: f"varchar({k.length})" if k.length and k.length <= 10_485_760 else "text",
    "binary": lambda k: "bytea",
    "date": lambda k: "date",
    "time": lambda k: f"time({k.fraction})",
    "datetime": lambda k: f"timestamp({k.fraction})",
    "timestamp": lambda k: f"timestamptz({k.fraction})",
    "json": lambda k: "jsonb",
    "uuid": lambda k: "uuid",
    "enum": lambda k: "text",
}
_MYSQL: dict[str, Callable[[Kind], str]] = {
    "int": _mysql_int,
    "decimal": _mysql_decimal,
    "float": lambda k: "float" if k.bits == 32 else "double",
    "bool": lambda k: "tinyint(1)",
    "binary": lambda k: f"varbinary({k.length})" if k.length and k.length <= _ROOMY else "longblob",
    "date": lambda k: "date",
    "time": lambda k: f"time({k.fraction})",
    "datetime": lambda k: f"datetime({k.fraction})",
    "timestamp": lambda k: f"datetime({k.fraction})",
    "json": lambda k: "json",
}
_SQLITE = {"int": "INTEGER", "bool": "INTEGER", "float": "REAL", "binary": "BLOB"}
