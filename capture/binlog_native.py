"""Row events -> wire keys and values by the compiled extension; the same bytes as binlog_rows.py.

A column that the extension does not know (a charset other than UTF-8, MySQL's binary JSON) is given
to it with the Python function that makes its fragment.
"""

from collections.abc import Callable, Sequence
from struct import calcsize
from types import ModuleType
from typing import Any

from capture import binlog_table as bt
from capture.binlog_columns import UTF8, column_code
from capture.binlog_json import json_text
from capture.binlog_kinds import Charsets
from capture.binlog_rows import MISFITS, misfit
from capture.binlog_table import MapColumn
from schemas.codec import Envelope, quote
from schemas.kinds import Kind


class NativeDecoder:
    """A Decoder: capture/binlog_rows.py. A kind of None steps over its column."""

    def __init__(
        self,
        native: ModuleType,
        table: str,
        columns: Sequence[MapColumn],
        kinds: Sequence[Kind | None],
        charsets: Charsets,
        identity: Sequence[str],
    ) -> None:
        names = [c.name for c in columns]
        given = [_given(c, k, charsets) for c, k in zip(columns, kinds, strict=True)]
        self._table = table
        self._native = native.ImageDecoder(given, [names.index(n) for n in identity])

    def images(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        envelope: Envelope,
        op: str,
        keys: list[bytes],
        values: list[bytes],
    ) -> int:
        return self._call(
            self._native.images, data, start, ordinal, envelope.tails, op == "d", keys, values
        )

    def updates(
        self,
        data: bytes,
        start: int,
        ordinal: int,
        envelope: Envelope,
        ops: list[str],
        keys: list[bytes],
        values: list[bytes],
    ) -> int:
        return self._call(
            self._native.updates, data, start, ordinal, envelope.tails, ops, keys, values
        )

    def _call(self, function: Callable[..., int], *args: Any) -> int:
        try:
            return function(*args)
        except MISFITS as cause:
            raise misfit(self._table, cause) from None  # its message may hold the row's values


def _given(column: MapColumn, kind: Kind | None, charsets: Charsets) -> tuple[Any, ...]:
    """(name, nullable, fixed size, size of the length before it, the extension's kind,
    parameters).
    """
    layout = column_code(column, None, charsets)
    name, parameters = _kind(column, kind, charsets)
    size = calcsize("<" + layout.code) if layout.code else 0
    return column.name, column.nullable, size, layout.prefix, name, parameters


def _kind(column: MapColumn, kind: Kind | None, charsets: Charsets) -> tuple[str, Sequence[Any]]:
    if kind is None:
        return "skip", ()
    if kind.name == "int":
        return "unsigned" if column.unsigned else "signed", ()
    if kind.name == "float":
        return "single" if kind.bits == 32 else "double", ()
    if kind.name == "decimal":
        return "decimal", (column.size, column.scale)
    if kind.name == "time":
        return "time", (column.size,)
    if kind.name in ("datetime", "timestamp"):
        return "timestamp" if column.type == bt.TIMESTAMP2 else "datetime", (column.size,)
    if kind.name == "binary":
        # BINARY(n) is logged without its trailing zero bytes.
        return "binary", (column.size if column.type == bt.STRING else 0,)
    if kind.name == "enum":
        return "enum", kind.labels
    if kind.name in ("text", "json"):
        return _text(column, charsets)
    return kind.name, ()


def _text(column: MapColumn, charsets: Charsets) -> tuple[str, Sequence[Any]]:
    if column.type == bt.JSON:
        return "call", (lambda raw: quote(json_text(raw)),)
    charset = charsets(column.collation)
    if charset.name in UTF8:
        return "text", ()
    return "call", (lambda raw: quote(charset.decode(raw)),)
