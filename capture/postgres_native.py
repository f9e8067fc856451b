"""Row messages -> wire rows by the compiled extension; the same bytes as postgres_rows.py."""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from capture.pgoutput import RelationColumn
from capture.postgres_kinds import BLANK_PADDED
from schemas.table import Table

if TYPE_CHECKING:
    from headwater_native import TupleEncoder

_KINDS = {
    "int": "plain",
    "decimal": "quoted",
    "bool": "bool",
    "text": "text",
    "binary": "binary",
    "date": "quoted",
    "time": "quoted",
    "datetime": "datetime",
    "timestamp": "instant",
    "json": "text",
    "uuid": "quoted",
    "enum": "text",
}


def tuple_encoder(
    native: ModuleType, table: Table, taken: Sequence[bool], columns: Sequence[RelationColumn]
) -> "TupleEncoder":
    """The extension's encoder for one relation under one description.

    Its `encode(messages, start, ordinal, tails, ops, keys, values)` appends rows up to the first
    message that the Python code must judge, and gives that message's number, the next ordinal, and
    whether some row lacks columns.
    """
    wanted = iter(table.columns)
    given: list[tuple[str | None, bool, bool, str]] = []
    for column, is_taken in zip(columns, taken, strict=True):
        if not is_taken:
            given.append((None, column.in_key, False, "plain"))
            continue
        kind = next(wanted).kind
        floats = "single" if kind.bits == 32 else "double"
        name = floats if kind.name == "float" else _KINDS[kind.name]
        given.append((column.name, column.in_key, column.type_oid == BLANK_PADDED, name))
    names = [c[0] for c in given]
    encoder: TupleEncoder = native.TupleEncoder(given, [names.index(n) for n in table.identity])
    return encoder
