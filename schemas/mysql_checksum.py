"""A row's line (schemas/checksum.py) in the SQL of MySQL and MariaDB, for sessions in UTC.

Pure text. JSON is not here, whose canonical form no SQL writes: such tables are compared in Python.
"""

from collections.abc import Sequence

from schemas.kinds import Kind

_TEXT = "CONCAT(CHAR_LENGTH({0}),':',{0})"
# Which small numbers, and which from 1e15, are printed with an exponent differs from version to
# version, and with their digits. {0} is the number, {1} its size as text with all its digits: an
# expression is printed with 22 characters at most, a column with all (strings/dtoa.c, my_gcvt).
_FLOAT = (
    "IF({0} = 0, {0}, CONCAT(IF({0} < 0, '-', ''), "
    "CASE WHEN ABS({0}) >= 1e-4 AND ABS({0}) < 1e15 THEN {1} "
    "WHEN {1} LIKE '%e%' THEN CONCAT(REPLACE(SUBSTRING_INDEX({1},'e',1),'.',''),"
    "'e',SUBSTRING_INDEX({1},'e',-1)) "
    "WHEN ABS({0}) >= 1 THEN CONCAT(TRIM(TRAILING '0' FROM REPLACE({1},'.','')),'e',"
    "CHAR_LENGTH(SUBSTRING_INDEX({1},'.',1)) - 1) "
    "ELSE CONCAT(TRIM(LEADING '0' FROM SUBSTR({1},3)),'e',"
    "CHAR_LENGTH(TRIM(LEADING '0' FROM SUBSTR({1},3))) - CHAR_LENGTH({1}) + 1) END))"
)
_SPELLED = "INSERT(INSERT(INSERT(INSERT(LOWER(HEX({0})),9,0,'-'),14,0,'-'),19,0,'-'),24,0,'-')"
_TRIMMED = {"decimal", "time", "datetime", "timestamp"}
_FAMILIES = {
    "int": ("int", "decimal"),
    "bool": ("int", "bool"),
    "decimal": ("decimal",),
    "float": ("float",),
    "text": ("text", "enum"),
    "enum": ("enum", "text"),
    "binary": ("binary", "uuid"),
    "date": ("date",),
    "time": ("time",),
    "datetime": ("datetime",),
    "timestamp": ("timestamp", "datetime"),
    "uuid": ("uuid", "text", "binary"),
}


def field(kind: Kind, family: str, column: str, *, places: int) -> str | None:
    """The field of `column` (SQL), of a type of that family (apply/fit.py); None: no SQL can.

    places: the digits that the column's type prints after the point.
    """
    if family not in _FAMILIES.get(kind.name, ()):
        return None
    if family in _TRIMMED:
        # Adding 0 takes ZEROFILL away.
        value = f"({column} + 0)" if family == "decimal" else column
        zeros = f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {value}))"
        return zeros if places else value
    if family in ("int", "bool"):
        return f"({column} + 0)"
    if family == "float":
        if kind.bits == 32:
            # As a double a FLOAT prints all its digits (schemas/mysql_text.py).
            return _FLOAT.format(f"({column} * 1e0)", f"ABS({column} * 1e0)")
        return _FLOAT.format(column, f"TRIM(LEADING '-' FROM CONCAT({column}))")
    if family in ("text", "enum"):
        text = f"CONVERT({column} USING utf8mb4)"
        # A text that is no UUID must not look like two fields.
        return f"REPLACE(LOWER({text}),'|','!')" if kind.name == "uuid" else _TEXT.format(text)
    if kind.name == "binary":
        raw = column if family == "binary" else f"UNHEX(REPLACE({column},'-',''))"
        return f"SHA2({raw},256)"
    return _SPELLED.format(column) if family == "binary" else column


def reference(column: str, field: str, dangling: str) -> str:
    """The field of a reference whose parent's identity has the field `field`."""
    return f"IF({column} IS NULL, NULL, IFNULL({field},'{dangling}'))"


def total(fields: Sequence[str], key: Sequence[str], side: str) -> str:
    """Two columns: the number of rows, and their hashes' exclusive or.

    A line longer than max_allowed_packet is null: its row gets a hash that no row of the other side
    has, made of the fields of its `key`.
    """
    line = ",'|',".join(fields)
    own = ",'|',".join(key)
    hashed = f"SHA2(IFNULL(CONCAT_WS('',{line}), CONCAT_WS('','{side}|',{own})),256)"
    return f"COUNT(*), BIT_XOR(CAST(CONV(LEFT({hashed},16),16,10) AS UNSIGNED))"
