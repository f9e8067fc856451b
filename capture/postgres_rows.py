"""Row messages -> wire rows, by code generated for each layout (the per-row path, 5 µs a row).

Generated: reading one tuple into fragments, its key and its image. Written out: what insert, update
and delete mean. Invariant: a value that the log did not carry (unchanged TOAST) leaves its column
out of the image; it is never null.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from capture import pgoutput
from capture.pgoutput import DELETE, INSERT, ROW_AT
from capture.postgres_kinds import BLANK_PADDED
from capture.postgres_native import tuple_encoder
from schemas.change import Rows
from schemas.codec import Envelope, image, image_template, quote
from schemas.errors import Operator, Poison, Unsupported
from schemas.native import load
from schemas.postgres_text import NAMES, expression
from schemas.table import Table

Fragments = tuple[str | None, ...]
"""One per column of the table; None: the log did not carry it."""

_OLD_ROW, _NEW_ROW = ord("O"), ord("N")
_SPARE = bytes(4)
"""Follows each message, so that a last NULL's letter and a value's head are read in one way."""
_HEAD = Struct(">BI")
_VALUE = """\
    k, e = head(d, o)
    if k == 116:
        e += o + 5
        {take}
        o = e
    elif k == 110:
        {null}
        o += 1
    elif k == 117:
        {absent}
        o += 1
    else:
        raise ValueError(f"unknown tuple letter {{k}}")
"""


class RelationRows:
    """Writes the rows of one relation under one description."""

    def __init__(
        self, table: Table, taken: Sequence[bool], columns: Sequence[pgoutput.RelationColumn]
    ) -> None:
        self.table = table
        self._names = [c.name for c in table.columns]
        self._template = image_template(self._names)
        self._identity = [self._names.index(n) for n in table.identity]
        self._in_key = [c.in_key for c, t in zip(columns, taken, strict=True) if t]
        self._logs_identity = all(self._in_key[i] for i in self._identity)
        self._read = reader(table, taken, columns)
        self._key = keyer(table)
        native = load()
        self._native = tuple_encoder(native, table, taken, columns) if native else None

    def encode(self, messages: list[bytes], envelope: Envelope, ordinal: int, rows: Rows) -> int:
        """Append the rows of these messages; the next free ordinal.

        Raises Poison for a row whose identity is null, Operator where the log lacks what is needed.
        """
        if self._native is None:
            return self._encode(messages, envelope, ordinal, rows)
        at, end = 0, ordinal
        while True:
            at, end, is_partial = self._native.encode(
                messages, at, ordinal, envelope.tails, rows.ops, rows.keys, rows.values
            )
            rows.ordinals.extend(range(ordinal, end))
            rows.partial |= is_partial
            if at == len(messages):
                return end
            # What is not plain sailing: mostly an error, which is said there.
            ordinal = self._encode(messages[at : at + 1], envelope, end, rows)
            at += 1

    def _encode(
        self, messages: Sequence[bytes], envelope: Envelope, ordinal: int, rows: Rows
    ) -> int:
        """The same in Python: the oracle, and what runs without native/."""
        read, key, template, create = self._read, self._key, self._template, envelope.create
        keys, values, ops, ordinals = rows.keys, rows.values, rows.ops, rows.ordinals
        for message in messages:
            message += _SPARE
            kind = message[pgoutput.KIND_AT]
            if kind == INSERT:
                new = read(message, ROW_AT + 1)[1]
                try:
                    keys.append(key(new))
                    values.append(create(template % new, ordinal))
                except LookupError:
                    raise self._no_identity() from None
                ops.append("c")
                ordinals.append(ordinal)
                ordinal += 1
            elif kind == DELETE:
                self._delete(message, envelope, ordinal, rows)
                ordinal += 1
            else:
                ordinal = self._update(message, envelope, ordinal, rows)
        return ordinal

    def _delete(self, message: bytes, envelope: Envelope, ordinal: int, rows: Rows) -> None:
        self._require_identity("delete")
        _, old = self._read(message, ROW_AT + 1)
        whole = message[ROW_AT] == _OLD_ROW
        self._append(rows, "d", ordinal, old, envelope.delete(self._before(old, whole), ordinal))

    def _update(self, message: bytes, envelope: Envelope, ordinal: int, rows: Rows) -> int:
        self._require_identity("update")
        at, old, whole = ROW_AT, None, False
        if message[at] != _NEW_ROW:
            whole = message[at] == _OLD_ROW
            at, old = self._read(message, at + 1)
        _, new = self._read(message, at + 1)
        if old is not None and None in new:
            # A value that did not change stands in the old row, where that was logged.
            filled = (o if n is None and (whole or k) else n for o, n, k in self._pairs(old, new))
            new = tuple(filled)
        if old is None or all(old[i] == new[i] for i in self._identity):
            before = self._before(old, whole) if old is not None and whole else "null"
            value = envelope.update(before, self._after(new, rows), ordinal)
            self._append(rows, "u", ordinal, new, value)
            return ordinal + 1
        if None in new:
            raise Unsupported(
                f"found a row of {self.table.full_name} whose identity changed and whose unchanged "
                "long values are not in the log",
                hint=f"run: ALTER TABLE {self.table.full_name} REPLICA IDENTITY FULL; "
                "then copy the table again",
            )
        self._append(rows, "d", ordinal, old, envelope.moved(self._before(old, whole), ordinal))
        value = envelope.create(self._after(new, rows), ordinal + 1)
        self._append(rows, "c", ordinal + 1, new, value)
        return ordinal + 2

    def _pairs(self, old: Fragments, new: Fragments) -> Any:
        return zip(old, new, self._in_key, strict=True)

    def _before(self, old: Fragments, whole: bool) -> str:
        """The old row as logged: all of it, or the replica identity's columns."""
        if whole:
            return image(self._names, old)
        key = [f if k else None for f, k in zip(old, self._in_key, strict=True)]
        return image(self._names, key)

    def _after(self, new: Fragments, rows: Rows) -> str:
        if None not in new:
            return self._template % new
        rows.partial = True
        return image(self._names, new)

    def _append(self, rows: Rows, op: str, ordinal: int, row: Fragments, value: bytes) -> None:
        try:
            rows.keys.append(self._key(row))
        except LookupError:
            raise (self._no_old_identity() if op == "d" else self._no_identity()) from None
        rows.ops.append(op)
        rows.ordinals.append(ordinal)
        rows.values.append(value)

    def _require_identity(self, what: str) -> None:
        if not self._logs_identity:
            raise Operator(
                f"found {what}s of {self.table.full_name} whose replica identity lacks "
                f"{', '.join(self.table.identity)}",
                hint="run headwater prepare for this source, then copy the table again",
            )

    def _no_old_identity(self) -> Operator:
        return Operator(
            f"found a row of {self.table.full_name} deleted, or given another identity, whose old "
            f"{', '.join(self.table.identity)} is not in the log: a partition's replica identity "
            "lacks it, or it is null",
            hint="run headwater prepare for this source, then copy the table again",
        )

    def _no_identity(self) -> Poison:
        return Poison(
            f"found a row of {self.table.full_name} whose {', '.join(self.table.identity)} is null",
            hint="make the column NOT NULL; the row must be removed or the table excluded",
        )


def reader(
    table: Table, taken: Sequence[bool], columns: Sequence[pgoutput.RelationColumn]
) -> Callable[[bytes, int], tuple[int, Fragments]]:
    """Generate `read(message, at)`: the fragments of the tuple at `at`, and where it ends."""
    lines = [
        "def read(d, o):",
        f"    if d[o] << 8 | d[o + 1] != {len(columns)}:",
        "        raise ValueError('found a tuple that does not fit its relation')",
        "    o += 2",
    ]
    wanted = iter(enumerate(table.columns))
    for column, is_taken in zip(columns, taken, strict=True):
        if not is_taken:
            lines.append(_VALUE.format(take="pass", null="pass", absent="pass"))
            continue
        i, described = next(wanted)
        padded = column.type_oid == BLANK_PADDED
        take = expression(described.kind, "d[o + 5:e]", blank_padded=padded)
        lines.append(
            _VALUE.format(take=f"c{i} = {take}", null=f"c{i} = 'null'", absent=f"c{i} = None")
        )
    names = "".join(f"c{i}, " for i in range(len(table.columns)))
    lines.append(f"    return o, ({names})")
    read: Callable[[bytes, int], tuple[int, Fragments]] = _compiled("\n".join(lines), "read")
    return read


def keyer(table: Table) -> Callable[[Fragments], bytes]:
    """Generate `key(fragments)`: the wire key; raises LookupError where part of it is null."""
    names = [c.name for c in table.columns]
    places = [names.index(n) for n in table.identity]
    missing = " or ".join(f"f[{i}] == 'null' or f[{i}] is None" for i in places)
    parts = [
        f"{prefix + quote(name) + ':'!r} + f[{i}]"
        for prefix, name, i in zip("{" + "," * len(places), table.identity, places, strict=False)
    ]
    key: Callable[[Fragments], bytes] = _compiled(
        f"def key(f):\n    if {missing}:\n        raise LookupError\n"
        f"    return ({' + '.join(parts)} + '}}').encode()",
        "key",
    )
    return key


def _compiled(code: str, name: str) -> Any:
    scope = {**NAMES, "head": _HEAD.unpack_from}
    exec(code, scope)
    return scope[name]
