"""A row's line (schemas/checksum.py) in PostgreSQL's SQL, for sessions with postgres_text.SESSION.

Pure text. JSON is not here, whose canonical form no SQL writes: such tables are compared in Python.
"""

from collections.abc import Sequence

from schemas.kinds import Kind

AT_ONCE = 40
"""A function takes at most 100 arguments."""

_TEXT = "char_length({0}::text)||':'||{0}::text"
# From 2^53 on the shortest digits are not what is printed (d2s.c): they are looked for.
_DIGITS = "trim(to_char({0},'9.{1}EEEE'))"
_FLOAT = (
    "CASE WHEN {0} IN ('NaN','Infinity','-Infinity',0) OR abs({0}) >= 1e-4 AND abs({0}) < 1e15 "
    "THEN {0}::text WHEN abs({0}) < 1 THEN {small} "
    # Rounded to fewer digits, the largest would be out of range.
    "WHEN abs({0}) >= 1.797693134862315e308 THEN {large17} "
    "WHEN {d15}::float8 = {0} THEN {large15} WHEN {d16}::float8 = {0} THEN {large16} "
    "ELSE {large17} END"
)
_SCIENTIFIC = "rtrim(replace(split_part({0},'e',1),'.',''),'0')||'e'||split_part({0},'e',2)::int"
_FIELDS = {
    ("int", "int"): "{0}",
    ("int", "decimal"): "trim_scale({0})",
    ("int", "bool"): "{0}::int",
    ("bool", "int"): "{0}",
    ("bool", "bool"): "{0}::int",
    ("decimal", "decimal"): "trim_scale({0})",
    ("text", "text"): _TEXT,
    ("text", "enum"): _TEXT,
    ("enum", "enum"): _TEXT,
    ("enum", "text"): _TEXT,
    ("binary", "binary"): "encode(sha256({0}),'hex')",
    ("binary", "uuid"): "encode(sha256(uuid_send({0})),'hex')",
    ("date", "date"): "{0}",
    ("time", "time"): "{0}",
    ("datetime", "datetime"): "{0}",
    ("timestamp", "timestamp"): "timezone('UTC',{0})",
    ("timestamp", "datetime"): "{0}",
    ("uuid", "uuid"): "{0}",
    ("uuid", "binary"): r"regexp_replace(encode({0},'hex'),"
    r"'^(.{{8}})(.{{4}})(.{{4}})(.{{4}})(.{{12}})$','\1-\2-\3-\4-\5')",
    # A text that is no UUID must not look like two fields.
    ("uuid", "text"): "replace(lower({0}),'|','!')",
}


def field(kind: Kind, family: str, column: str) -> str | None:
    """The field of `column` (SQL), of a type of that family (apply/fit.py); None: no SQL can."""
    if (kind.name, family) == ("float", "float"):
        return _float(f"{column}::real::float8" if kind.bits == 32 else f"{column}::float8")
    form = _FIELDS.get((kind.name, family))
    return form and form.format(column)


def reference(column: str, field: str, dangling: str) -> str:
    """The field of a reference whose parent's identity has the field `field`."""
    return f"CASE WHEN {column} IS NOT NULL THEN coalesce(({field})::text,'{dangling}') END"


def total(fields: Sequence[str]) -> str:
    """Two columns: the number of rows, and their hashes' exclusive or, with a sign or null."""
    parts = []
    for at in range(0, len(fields), AT_ONCE):
        joined = ",'|',".join(f"({f})" for f in fields[at : at + AT_ONCE])
        parts.append(f"concat({joined})")
    line = "||'|'||".join(parts)
    hashed = f"substr(sha256(convert_to({line},'UTF8')),1,8)"
    return f"count(*), bit_xor(('x'||encode({hashed},'hex'))::bit(64)::bigint)"


def _float(value: str) -> str:
    digits = {n: _DIGITS.format(value, "9" * (n - 1)) for n in (15, 16, 17)}
    large = {f"large{n}": _SCIENTIFIC.format(d) for n, d in digits.items()}
    small = _SCIENTIFIC.format(f"{value}::text")
    return _FLOAT.format(value, small=small, d15=digits[15], d16=digits[16], **large)
