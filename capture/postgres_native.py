"""Row messages and copied rows -> wire rows by the compiled extension; the same bytes as
postgres_rows.py and postgres_chunk.py.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from capture.pgoutput import RelationColumn
from capture.postgres_kinds import BLANK_PADDED, is_blank_padded
from schemas.kinds import Kind
from schemas.table import Table

if TYPE_CHECKING:
    from headwater_native import CopyEncoder, TupleEncoder

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
        is_padded = column.type_oid == BLANK_PADDED
        given.append((column.name, column.in_key, is_padded, _kind(next(wanted).kind)))
    names = [c[0] for c in given]
    encoder: TupleEncoder = native.TupleEncoder(given, [names.index(n) for n in table.identity])
    return encoder


def copy_encoder(native: ModuleType, table: Table) -> "CopyEncoder":
    """The extension's encoder for a table's rows in COPY's text format.

    Its `encode(data, tail)` gives keys, values and their size in bytes, and raises ValueError for
    what the Python code must judge.
    """
    given = [(c.name, is_blank_padded(c), _kind(c.kind)) for c in table.columns]
    names = [c.name for c in table.columns]
    encoder: CopyEncoder = native.CopyEncoder(given, [names.index(n) for n in table.identity])
    return encoder


def _kind(kind: Kind) -> str:
    if kind.name == "float":
        return "single" if kind.bits == 32 else "double"
    return _KINDS[kind.name]
