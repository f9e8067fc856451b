"""Random tables and rows as the two logs hold them: what test_native.py compares decoders on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from struct import pack

from capture import binlog_table as bt
from capture.binlog_kinds import Charset
from capture.binlog_table import MapColumn
from capture.binlog_values import decimal_size
from capture.pgoutput import RelationColumn
from schemas.kinds import Kind
from schemas.table import Column, Table

LETTERS = 'aZ9 _-"\\/\b\f\n\r\t\x00\x1f\x7fäß漢\u2028😀'

_CHARSETS = {
    45: Charset(name="utf8mb4", max_bytes=4, decode=bytes.decode),
    8: Charset(name="latin1", max_bytes=1, decode=lambda raw: raw.decode("cp1252", "replace")),
    63: Charset(name="binary", max_bytes=1, decode=lambda raw: raw.decode("latin-1")),
}

Raw = Callable[[random.Random], bytes]
Stored = tuple[MapColumn, Kind, Raw]


def charset(collation: int) -> Charset:
    return _CHARSETS[collation]


def text(rng: random.Random, most: int = 12) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randrange(most)))


def _prefixed(size: int, raw: bytes) -> bytes:
    return len(raw).to_bytes(size, "little") + raw


def _column(kind: int, size: int = 0, **more: object) -> MapColumn:
    fields = {"scale": 0, "nullable": False, "unsigned": False, "collation": 0, "labels": ()}
    return MapColumn(name="", type=kind, size=size, **(fields | more))  # type: ignore[arg-type]


def _int(rng: random.Random) -> Stored:
    kind, size = rng.choice(
        [(bt.TINY, 1), (bt.SHORT, 2), (bt.INT24, 3), (bt.LONG, 4), (bt.LONGLONG, 8)]
    )
    unsigned = rng.random() < 0.5
    ends = [b"\x00" * size, b"\xff" * size, b"\xff" * (size - 1) + b"\x7f"]
    column = _column(kind, unsigned=unsigned)
    return (
        column,
        Kind(name="int", bits=8 * size, unsigned=unsigned),
        lambda r: r.choice(ends) if r.random() < 0.3 else r.randbytes(size),
    )


def _bool(rng: random.Random) -> Stored:
    return _column(bt.TINY), Kind(name="bool"), lambda r: r.choice([b"\0", b"\1", r.randbytes(1)])


def _float(rng: random.Random) -> Stored:
    letter, kind, bits = rng.choice([("f", bt.FLOAT, 32), ("d", bt.DOUBLE, 64)])

    def raw(r: random.Random) -> bytes:
        while True:
            if r.random() < 0.5:
                return pack(f"<{letter}", r.choice([0.0, -0.0, 0.1, 1e16, 1.5e-5, 123456789.0, 5]))
            found = r.randbytes(bits // 8)
            exponent = int.from_bytes(found, "little") >> (23 if bits == 32 else 52)
            if exponent & (255 if bits == 32 else 2047) not in (255, 2047):
                return found  # neither infinite nor NaN, which no column can hold

    return _column(kind), Kind(name="float", bits=bits), raw


def _decimal(rng: random.Random) -> Stored:
    precision = rng.randint(1, 65)
    scale = rng.randint(0, min(30, precision))
    size = decimal_size(precision, scale)
    whole = precision - scale
    digits = [whole % 9] * bool(whole % 9) + [9] * (whole // 9)
    digits += [9] * (scale // 9) + [scale % 9] * bool(scale % 9)

    def raw(r: random.Random) -> bytes:
        packed = b""
        for count in digits:
            number = r.choice([0, 10**count - 1, r.randrange(10**count)])
            packed += number.to_bytes((0, 1, 1, 2, 2, 3, 3, 4, 4, 4)[count], "big")
        assert len(packed) == size
        packed = bytes([packed[0] ^ 0x80]) + packed[1:]
        return packed if r.random() < 0.5 else bytes(b ^ 0xFF for b in packed)

    return (
        _column(bt.DECIMAL, precision, scale=scale),
        Kind(name="decimal", precision=precision, scale=scale),
        raw,
    )


def _clock(r: random.Random, fraction: int) -> bytes:
    """A fraction's bytes."""
    size = (fraction + 1) // 2
    top = (1, 100, 10_000, 1_000_000)[size]
    return r.choice([0, top - 1, r.randrange(top)]).to_bytes(size, "big")


def _date(rng: random.Random) -> Stored:
    def raw(r: random.Random) -> bytes:
        day = r.choice([0, r.randrange(10_000) << 9 | r.randrange(13) << 5 | r.randrange(32)])
        return day.to_bytes(3, "little")

    return _column(bt.DATE), Kind(name="date"), raw


def _time(rng: random.Random) -> Stored:
    fraction = rng.randrange(7)
    bits = 8 * ((fraction + 1) // 2)

    def raw(r: random.Random) -> bytes:
        clock = r.randrange(839) << 12 | r.randrange(60) << 6 | r.randrange(60)
        packed = clock << bits | int.from_bytes(_clock(r, fraction), "big")
        packed = (0x800000 << bits) + (packed if r.random() < 0.5 else -packed)
        return packed.to_bytes(3 + bits // 8, "big")

    return _column(bt.TIME2, fraction), Kind(name="time", fraction=fraction), raw


def _datetime(rng: random.Random) -> Stored:
    fraction = rng.randrange(7)

    def raw(r: random.Random) -> bytes:
        months = r.choice([0, r.randrange(10_000) * 13 + r.randrange(13)])
        day = r.randrange(32) << 17 | r.randrange(24) << 12 | r.randrange(60) << 6 | r.randrange(60)
        packed = (1 << 39) + r.choice([0, months << 22 | day])
        return packed.to_bytes(5, "big") + _clock(r, fraction)

    return _column(bt.DATETIME2, fraction), Kind(name="datetime", fraction=fraction), raw


def _timestamp(rng: random.Random) -> Stored:
    fraction = rng.randrange(7)

    def raw(r: random.Random) -> bytes:
        seconds = r.choice([0, 2**31 - 1, 951_782_399, 951_782_400, r.randrange(2**32)])
        return seconds.to_bytes(4, "big") + _clock(r, fraction)

    return _column(bt.TIMESTAMP2, fraction), Kind(name="timestamp", fraction=fraction), raw


def _text(rng: random.Random) -> Stored:
    collation = rng.choice([45, 45, 8])
    kind, size, prefix = rng.choice(
        [(bt.VARCHAR, 200, 1), (bt.VARCHAR, 800, 2), (bt.BLOB, 2, 2), (bt.BLOB, 4, 4)]
    )

    def raw(r: random.Random) -> bytes:
        value = text(r).encode() if collation == 45 else r.randbytes(r.randrange(12))
        return _prefixed(prefix, value)

    return _column(kind, size, collation=collation), Kind(name="text"), raw


def _binary(rng: random.Random) -> Stored:
    kind, size, prefix = rng.choice([(bt.STRING, 20, 1), (bt.VARCHAR, 300, 2), (bt.BLOB, 3, 3)])
    column = _column(kind, size, collation=63)
    return column, Kind(name="binary"), lambda r: _prefixed(prefix, r.randbytes(r.randrange(20)))


def _uuid(rng: random.Random) -> Stored:
    column = _column(bt.STRING, 16, collation=63)
    return column, Kind(name="uuid"), lambda r: _prefixed(1, r.randbytes(r.randrange(17)))


def _enum(rng: random.Random) -> Stored:
    count, size = rng.choice([(3, 1), (300, 2)])
    labels = tuple(text(rng) + str(n) for n in range(count))
    column = _column(bt.ENUM, size)
    kind = Kind(name="enum", labels=labels)
    return column, kind, lambda r: r.randrange(count + 1).to_bytes(size, "little")


def _json(rng: random.Random) -> Stored:
    # The binary form of the document [<small integer>]: an array of one inlined int16.
    def raw(r: random.Random) -> bytes:
        inner = pack("<HHBh", 1, 7, 5, r.randrange(-(2**15), 2**15))
        return _prefixed(4, b"\x02" + inner)

    return _column(bt.JSON, 4), Kind(name="json"), raw


BINLOG = (
    *(_int, _bool, _float, _decimal, _date, _time, _datetime, _timestamp),
    *(_text, _binary, _uuid, _enum, _json),
)


def binlog_table(rng: random.Random) -> tuple[list[MapColumn], list[Kind | None], list[Raw], int]:
    """Columns, kinds (None: stepped over), what makes their bytes, and the identity's place."""
    made = [rng.choice(BINLOG)(rng) for _ in range(rng.randint(1, 20))]
    place = rng.randrange(len(made))
    columns, kinds, raws = [], [], []
    for at, (column, kind, raw) in enumerate(made):
        nullable = at != place and rng.random() < 0.4
        columns.append(replace(column, name=f"{text(rng, 4)}{at}", nullable=nullable))
        kinds.append(kind if at == place or rng.random() < 0.9 else None)
        raws.append(raw)
    return columns, kinds, raws, place


def binlog_image(rng: random.Random, columns: Sequence[MapColumn], raws: Sequence[Raw]) -> bytes:
    """One row image."""
    nulls, body = 0, b""
    for at, (column, raw) in enumerate(zip(columns, raws, strict=True)):
        if column.nullable and rng.random() < 0.3:
            nulls |= 1 << at
        else:
            body += raw(rng)
    return nulls.to_bytes((len(columns) + 7) // 8, "little") + body


# PostgreSQL: what a server prints, by kind, and its type.

_PRINTED: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "int": (20, lambda r: str(r.choice([0, -1, 2**63 - 1, r.randrange(-(2**63), 2**63)]))),
    "decimal": (1700, lambda r: r.choice(["NaN", "-Infinity", "0", "-1.50", f"{r.random():.9f}"])),
    "bool": (16, lambda r: r.choice("tf")),
    "text": (25, text),
    "binary": (17, lambda r: "\\x" + r.randbytes(r.randrange(9)).hex()),
    "date": (1082, lambda r: r.choice(["2026-11-22", "infinity", "0044-03-15 BC"])),
    "time": (1083, lambda r: r.choice(["12:34:56.789", "24:00:00"])),
    "datetime": (
        1114,
        lambda r: r.choice(["2026-11-22 12:34:56.7", "-infinity", "0044-03-15 01:02:03 BC"]),
    ),
    "timestamp": (
        1184,
        lambda r: r.choice(["2026-11-22 12:34:56.7+00", "infinity", "0044-03-15 01:02:03.4+00 BC"]),
    ),
    "json": (3802, lambda r: r.choice(['{"a": [1, "\\u00e4"]}', "null", '"x\\n"'])),
    "uuid": (2950, lambda r: r.randbytes(16).hex()),
    "enum": (99_999, text),
}


def _floats(rng: random.Random) -> tuple[int, int, Callable[[random.Random], str]]:
    def printed(r: random.Random) -> str:
        number = r.choice([r.random(), r.uniform(-1e30, 1e30), r.uniform(0, 1e-6), 1e16, 100.0])
        return r.choice(["NaN", "Infinity", "-Infinity", "-0", "1e-45", repr(number)])

    return *rng.choice([(700, 32), (701, 64)]), printed


Printed = Callable[[random.Random], str]


def postgres_table(
    rng: random.Random,
) -> tuple[Table, list[bool], list[RelationColumn], list[Printed]]:
    """A description, which columns of the log are taken, the log's columns, what prints them."""
    names = [*_PRINTED, "float"]
    columns, taken, logged, printed = [], [], [], []
    count = rng.randint(1, 20)
    place = rng.randrange(count)
    is_full = rng.random() < 0.5
    for at in range(count):
        kind = rng.choice(names) if at != place else rng.choice(["text", "int", "uuid"])
        if kind == "float":
            oid, bits, prints = _floats(rng)
        else:
            (oid, prints), bits = _PRINTED[kind], 0
        if kind == "text" and rng.random() < 0.3:
            oid = 1042
        name = f"{text(rng, 4)}{at}".replace("\0", "")
        is_taken = at == place or rng.random() < 0.9
        in_key = is_full or at == place or rng.random() < 0.2
        taken.append(is_taken)
        logged.append(RelationColumn(name, oid, -1, in_key))
        printed.append(prints)
        if is_taken:
            columns.append(
                Column(name=name, kind=Kind(name=kind, bits=bits), nullable=at != place)  # type: ignore[arg-type]
            )
    table = Table(
        family="postgres",
        schema="public",
        name="t",
        columns=tuple(columns),
        primary_key=(),
        identity=(logged[place].name,),
    )
    return table, taken, logged, printed


def postgres_message(
    rng: random.Random, table: Table, logged: Sequence[RelationColumn], printed: Sequence[Printed]
) -> bytes:
    """One insert, update or delete as the server sends it."""
    rows = [_printed_row(rng, table, logged, printed) for _ in range(2)]
    whole = all(c.in_key for c in logged)
    kind = rng.choice("IUD")
    if kind == "I":
        return _message(b"I", b"N" + tuple_of(*rows[0]))
    old = b"O" if whole else b"K"
    before = [v if c.in_key else None for v, c in zip(rows[1], logged, strict=True)]
    if kind == "D":
        return _message(b"D", old + tuple_of(*before))
    after = list(rows[0])
    if rng.random() < 0.5:
        # The identity stays.
        at = next(i for i, c in enumerate(logged) if c.name == table.identity[0])
        after[at] = rows[1][at]
        absent = [i for i in range(len(logged)) if i != at and rng.random() < 0.2]
        for i in absent:
            after[i] = "\0"
    if not whole and rng.random() < 0.5:
        return _message(b"U", b"N" + tuple_of(*after))
    return _message(b"U", old + tuple_of(*before) + b"N" + tuple_of(*after))


def _printed_row(
    rng: random.Random, table: Table, logged: Sequence[RelationColumn], printed: Sequence[Printed]
) -> list[str | None]:
    return [
        None if c.name not in table.identity and rng.random() < 0.2 else p(rng).replace("\0", "")
        for c, p in zip(logged, printed, strict=True)
    ]


def tuple_of(*values: str | None) -> bytes:
    """A tuple; None is NULL, "\\0" a value that the log does not carry."""
    parts = [pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value == "\0":
            parts.append(b"u")
        else:
            parts.append(b"t" + pack(">I", len(value.encode())) + value.encode())
    return b"".join(parts)


def _message(kind: bytes, body: bytes) -> bytes:
    return b"w" + bytes(24) + kind + pack(">I", 7) + body
