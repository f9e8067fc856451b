"""Random rows as a chunk's read gets them: what test_chunk_rows.py compares encoders on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from schemas.kinds import Kind
from schemas.table import Column, Table
from tests.unit import native_rows
from tests.unit.native_rows import text

Printed = Callable[[random.Random], str]

_ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES["\v"] = "\\v"


def copied_table(rng: random.Random) -> tuple[Table, list[Printed]]:
    """A table of PostgreSQL, and what prints its columns."""
    table, taken, logged, printed = native_rows.postgres_table(rng)
    kept = [(c, p) for c, p, is_taken in zip(logged, printed, taken, strict=True) if is_taken]
    columns = tuple(
        replace(column, native="character(9)" if known.type_oid == 1042 else "")
        for column, (known, _) in zip(table.columns, kept, strict=True)
    )
    return replace(table, columns=columns), [p for _, p in kept]


def copied_row(rng: random.Random, table: Table, printed: Sequence[Printed]) -> bytes:
    """One row in COPY's text format."""
    values = [
        "\\N"
        if c.name not in table.identity and rng.random() < 0.2
        else "".join(_ESCAPES.get(letter, letter) for letter in p(rng).replace("\0", "\v"))
        for c, p in zip(table.columns, printed, strict=True)
    ]
    return "\t".join(values).encode() + b"\n"


def _clock(r: random.Random, hours: int = 24) -> str:
    fraction = r.choice(["", ".0", ".000000", ".5", ".789000", ".000001"])
    return f"{r.randrange(hours):02}:{r.randrange(60):02}:{r.randrange(60):02}{fraction}"


def _moment(r: random.Random) -> str:
    return r.choice(
        [
            "0000-00-00 00:00:00",
            "0000-00-00 00:00:00.000",
            "0000-00-00 00:00:01",
            f"{r.randrange(10_000):04}-{r.randrange(13):02}-{r.randrange(32):02} {_clock(r)}",
        ]
    )


def _int(r: random.Random) -> str:
    return r.choice(
        ["0", "000", "-1", "00042", str(2**64 - 1), str(-(2**63)), str(r.randrange(10**15))]
    )


def _decimal(r: random.Random) -> str:
    return r.choice(["0", "0.50", "000.50", "00042", "-0.5", "-12.30", "99999.99", "0000"])


def _float(r: random.Random) -> str:
    number = r.choice([r.random(), r.uniform(-1e30, 1e30), r.uniform(0, 1e-6), 1e16, 100.0])
    return r.choice(["0", "-0", "1e-45", "1e22", repr(number)])


_PRINTED: dict[str, tuple[Kind, Printed]] = {
    "int": (Kind(name="int", bits=64), _int),
    "bool": (Kind(name="bool"), lambda r: r.choice(["0", "1", "-1", "127", "01"])),
    "decimal": (Kind(name="decimal"), _decimal),
    "single": (Kind(name="float", bits=32), _float),
    "double": (Kind(name="float", bits=64), _float),
    "text": (Kind(name="text"), lambda r: text(r, r.choice([12, 12, 400]))),
    "binary": (Kind(name="binary"), lambda r: text(r)),
    "date": (Kind(name="date"), lambda r: r.choice(["0000-00-00", "2026-11-22"])),
    "time": (Kind(name="time"), lambda r: r.choice(["", "-"]) + _clock(r, 839)),
    "datetime": (Kind(name="datetime"), _moment),
    "timestamp": (Kind(name="timestamp"), _moment),
    "json": (Kind(name="json"), lambda r: r.choice(['{"a": [1, "\\u00e4"]}', "null"])),
    "uuid": (Kind(name="uuid"), lambda r: r.randbytes(16).hex()),
    "enum": (Kind(name="enum"), lambda r: text(r)),
}


def result_table(rng: random.Random) -> tuple[Table, list[Printed]]:
    """A table of MySQL, and what prints its columns."""
    made = [_PRINTED[rng.choice(list(_PRINTED))] for _ in range(rng.randint(1, 20))]
    columns = tuple(
        Column(name=f"{text(rng, 4)}{at}", kind=kind, nullable=True)
        for at, (kind, _) in enumerate(made)
    )
    identity = tuple(c.name for c in rng.sample(columns, min(len(columns), rng.choice([1, 1, 2]))))
    table = Table(
        family="mysql", schema="s", name="t", columns=columns, primary_key=(), identity=identity
    )
    return table, [printed for _, printed in made]


def result_row(rng: random.Random, printed: Sequence[Printed], more: int) -> list[bytes | None]:
    """One row of a result, with `more` columns behind the table's."""
    values = [None if rng.random() < 0.2 else p(rng).encode() for p in printed]
    return [*values, *(rng.randbytes(rng.randrange(4)) for _ in range(more))]


def packets(payload: bytes, number: int = 0) -> bytes:
    """A payload as packets; one of 16 MB is followed by another."""
    most = 0xFFFFFF
    parts = [payload[at : at + most] for at in range(0, len(payload) + 1, most)]
    heads = ((len(p).to_bytes(3, "little"), (number + i) % 256) for i, p in enumerate(parts))
    return b"".join(size + bytes([n]) + part for (size, n), part in zip(heads, parts, strict=True))


def row_payload(row: Sequence[bytes | None]) -> bytes:
    """A row as the text protocol has it."""
    return b"".join(b"\xfb" if v is None else _prefixed(v) for v in row)


def _prefixed(value: bytes) -> bytes:
    size = len(value)
    if size < 0xFB:
        return bytes([size]) + value
    if size < 1 << 16:
        return b"\xfc" + size.to_bytes(2, "little") + value
    if size < 1 << 24:
        return b"\xfd" + size.to_bytes(3, "little") + value
    return b"\xfe" + size.to_bytes(8, "little") + value
