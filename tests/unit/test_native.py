"""The compiled decoders give what the Python ones give, byte for byte, and fear no input."""

from __future__ import annotations

import os
import random
import shutil
import struct
from types import ModuleType

import pytest

from capture.binlog_columns import column_code
from capture.binlog_native import NativeDecoder
from capture.binlog_rows import Decoder, RowDecoder
from capture.postgres_rows import RelationRows
from schemas import native
from schemas.change import Rows
from schemas.codec import Envelope
from schemas.errors import HeadwaterError, Unsupported
from schemas.table import Table
from tests.unit import native_rows

TABLES, ROWS = 120, 250
"""Tables and rows of each for each log: more than 100,000 rows together."""


@pytest.fixture(name="rng")
def seeded() -> random.Random:
    return random.Random(int(os.environ["HEADWATER_SEED"]))


@pytest.fixture(name="extension")
def built() -> ModuleType | None:
    """The extension; None only where there is nothing to build it with, or it is not wanted."""
    found = native.load()
    wanted = shutil.which("cargo") and os.environ.get("HEADWATER_NATIVE") != "off"
    assert found is not None or not wanted, "run: make native"
    return found


def envelope(table: Table) -> Envelope:
    return Envelope(
        table, connector="x", source="shop", epoch=3, run=7, committed_at=1_795_316_702_123_456
    )


def empty(table: Table) -> Rows:
    return Rows(table=table, ops=[], ordinals=[], keys=[], values=[])


def decoded(decoder: Decoder, table: Table, data: bytes, op: str) -> Rows | None:
    """The rows of an event; None where it does not fit its description."""
    rows = empty(table)
    one = envelope(table)
    try:
        if op == "u":
            end = decoder.updates(data, 2, 5, one, rows.ops, rows.keys, rows.values)
        else:
            end = decoder.images(data, 2, 5, one, op, rows.keys, rows.values)
    except Unsupported:
        return None
    rows.ordinals.append(end)
    return rows


def test_row_images_are_decoded_alike(rng: random.Random, extension: ModuleType | None) -> None:
    table = native_rows.postgres_table(rng)[0]
    for _ in range(TABLES):
        columns, kinds, raws, place = native_rows.binlog_table(rng)
        names, identity = [c.name for c in columns], [columns[place].name]
        codes = [
            column_code(c, k, native_rows.charset) for c, k in zip(columns, kinds, strict=True)
        ]
        python = RowDecoder("t", names, [c.nullable for c in columns], codes, identity)
        ours: Decoder = python
        if extension is not None:
            ours = NativeDecoder(extension, "t", columns, kinds, native_rows.charset, identity)
        for op in "cdu":
            images = [native_rows.binlog_image(rng, columns, raws) for _ in range(ROWS)]
            data = b"\0\0" + b"".join(images)
            expected = decoded(python, table, data, op)
            assert expected is not None
            assert decoded(ours, table, data, op) == expected
            # Damaged anywhere: the same rows, or an error; never another end.
            for _ in range(5):
                torn = bytearray(data[: 2 + sum(map(len, images[:2]))])
                torn[rng.randrange(2, len(torn))] = rng.randrange(256)
                damaged = bytes(torn[: rng.randrange(2, len(torn) + 1)])
                found = decoded(ours, table, damaged, op)
                assert found is None or found == decoded(python, table, damaged, op)


def encoded(rows: RelationRows, messages: list[bytes], *, python: bool) -> Rows | str:
    """The rows of these messages, or the error's name."""
    found = empty(rows.table)
    encode = rows._encode if python else rows.encode
    try:
        found.ordinals.append(encode(messages, envelope(rows.table), 5, found))
    except (HeadwaterError, ValueError, IndexError, struct.error) as error:
        return type(error).__name__
    return found


def test_tuples_are_encoded_alike(rng: random.Random, extension: ModuleType | None) -> None:
    for _ in range(TABLES):
        table, taken, logged, printed = native_rows.postgres_table(rng)
        rows = RelationRows(table, taken, logged)
        messages = [native_rows.postgres_message(rng, table, logged, printed) for _ in range(ROWS)]
        whole: list[bytes] = []
        for message in messages:
            alone = encoded(rows, [message], python=True)
            assert encoded(rows, [message], python=False) == alone
            whole += [message] if isinstance(alone, Rows) else []
        assert encoded(rows, whole, python=False) == encoded(rows, whole, python=True)
        if extension is not None and whole:
            assert rows._native is not None
            found = empty(table)
            at, _, _ = rows._native.encode(
                whole, 0, 0, envelope(table).tails, found.ops, found.keys, found.values
            )
            assert at == len(whole), "an ordinary message was left to the Python code"
        for message in rng.sample(messages, 10):
            torn = bytearray(message)
            torn[rng.randrange(30, len(torn))] = rng.randrange(256)
            damaged = bytes(torn[: rng.randrange(31, len(torn) + 1)])
            assert _same_or_worse(rows, damaged)


def _same_or_worse(rows: RelationRows, message: bytes) -> bool:
    """Whether a damaged message gives an error, or the same rows on both ways."""
    ours = encoded(rows, [message], python=False)
    return isinstance(ours, str) or ours == encoded(rows, [message], python=True)


def test_a_column_that_python_must_read_reaches_it_and_its_errors_come_back(
    rng: random.Random, extension: ModuleType | None
) -> None:
    if extension is None:
        return
    seen: list[bytes] = []

    def refuse(raw: bytes) -> str:
        seen.append(raw)
        raise KeyError("secret")

    decoder = extension.ImageDecoder([("a", False, 2, 0, "call", (refuse,))], [0])
    table = native_rows.postgres_table(rng)[0]
    with pytest.raises(KeyError):
        decoder.images(b"\0ab", 0, 0, envelope(table).tails, False, [], [])
    assert seen == [b"ab"]
