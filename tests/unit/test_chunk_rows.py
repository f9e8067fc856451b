"""A chunk's rows are encoded by native/ as by Python, byte for byte, and no input is feared."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from io import BufferedReader, BytesIO
from types import ModuleType, SimpleNamespace

import pytest

from capture import mysql_results, postgres_chunk
from capture.mysql_native import result_encoder
from capture.mysql_results import Encoded, Fields
from capture.postgres_native import copy_encoder
from schemas import native
from schemas.codec import Envelope
from schemas.errors import HeadwaterError
from schemas.kinds import Kind
from schemas.table import Column, Table
from tests.unit import chunk_rows

TABLES, ROWS = 150, 200
EOF = b"\xfe\0\0\2\0"


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
        table,
        connector="x",
        source="shop",
        epoch=3,
        run=7,
        committed_at=1_795_316_702_123_456,
        snapshot=True,
    )


def copied(table: Table, out: bytes) -> postgres_chunk.Encoded | None:
    """What Python makes of it; None where it refuses."""
    try:
        return postgres_chunk.in_python(table, out, envelope(table))
    except (HeadwaterError, ValueError, IndexError):
        return None


def test_copied_rows_are_encoded_alike(rng: random.Random, extension: ModuleType | None) -> None:
    """H135."""
    for _ in range(TABLES):
        table, printed = chunk_rows.copied_table(rng)
        lines = [chunk_rows.copied_row(rng, table, printed) for _ in range(ROWS)]
        expected = copied(table, b"".join(lines))
        assert expected is not None
        assert len(expected.keys) == ROWS
        assert postgres_chunk.encoded(table, b"".join(lines), envelope(table)) == expected
        if extension is None:
            continue
        encoder, tail = copy_encoder(extension, table), envelope(table).tails.read
        assert encoder.encode(b"".join(lines), tail) == expected, "was left to the Python code"
        for line in rng.sample(lines, 20):
            torn = bytearray(line)
            torn[rng.randrange(len(torn))] = rng.randrange(256)
            damaged = bytes(torn[: rng.randrange(len(torn) + 1)])
            try:
                found = encoder.encode(damaged, tail)
            except ValueError:
                continue
            assert found == copied(table, damaged)


def fed(
    extension: ModuleType, table: Table, pieces: Sequence[bytes]
) -> tuple[Encoded, bytes | None]:
    """The rows in these pieces, and the payload that ended them."""
    encoder = result_encoder(extension, table.columns, table.identity, envelope(table).tails.read)
    end = None
    for piece in pieces:
        assert end is None
        end = encoder.feed(piece)
    (keys, values, size_bytes), last = encoder.rows()
    return Encoded(keys, values, size_bytes, [last]), end


def in_python(table: Table, rows: Sequence[Fields]) -> Encoded:
    return mysql_results.in_python(rows, table, table.columns, envelope(table))


def unframed(data: bytes) -> list[bytes]:
    """The rows' payloads, as Python finds them in what arrives."""
    return mysql_results._payloads(SimpleNamespace(_rfile=BufferedReader(BytesIO(data))))


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    places = sorted(rng.randrange(len(data)) for _ in range(rng.choice([0, 1, 40])))
    ends = zip([0, *places], [*places, len(data)], strict=True)
    return [data[start:end] for start, end in ends]


def test_a_results_rows_are_encoded_alike_however_they_arrive(
    rng: random.Random, extension: ModuleType | None
) -> None:
    """H135."""
    for _ in range(TABLES):
        table, printed = chunk_rows.result_table(rng)
        more = rng.randrange(3)
        rows = [chunk_rows.result_row(rng, printed, more) for _ in range(ROWS)]
        expected = in_python(table, rows)
        payloads = list(map(chunk_rows.row_payload, rows))
        data = b"".join(map(chunk_rows.packets, [*payloads, EOF]))
        assert unframed(data) == payloads
        assert list(map(mysql_results.fields, payloads)) == rows
        if extension is None:
            continue
        found, end = fed(extension, table, cut(rng, data))
        assert end == EOF
        assert found == expected._replace(last=[payloads[-1]])
        error = b"\xff\x25\x05#70100Query execution was interrupted"
        assert fed(extension, table, [chunk_rows.packets(error)])[1] == error
        for payload in rng.sample(payloads, 20):
            torn = bytearray(payload)
            torn[rng.randrange(len(torn))] = rng.randrange(256)
            assert_same_or_refused(extension, table, bytes(torn))


def assert_same_or_refused(extension: ModuleType, table: Table, payload: bytes) -> None:
    try:
        found, end = fed(extension, table, [chunk_rows.packets(payload)])
    except ValueError:
        return
    if end is not None:
        assert payload[0] in (0xFE, 0xFF)
        return
    row: Fields = []
    at = 0
    while at < len(payload) and len(row) < len(table.columns):
        head = payload[at]
        at += 1
        if head == 0xFB:
            row.append(None)
            continue
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(head, 0)
        size = int.from_bytes(payload[at : at + width], "little") if width else head
        row.append(payload[at + width : at + width + size])
        at += width + size
    assert found == in_python(table, [row])._replace(last=[payload])


def test_a_row_of_more_than_a_packet_arrives_whole(extension: ModuleType | None) -> None:
    """16 MB and more, a packet that is full to the last byte among them."""
    column = Column(name="a", kind=Kind(name="text"), nullable=True)
    table = Table(
        family="mysql", schema="s", name="t", columns=(column,), primary_key=(), identity=("a",)
    )
    for size in (0xFFFFFF - 5, 0xFFFFFF - 4, 0xFFFFFF, 0xFFFFFF + 7):
        rows: list[Fields] = [[b"x" * size], [b"y"]]
        payloads = list(map(chunk_rows.row_payload, rows))
        data = b"".join(map(chunk_rows.packets, [*payloads, EOF]))
        assert unframed(data) == payloads
        if extension is None:
            continue
        found, end = fed(extension, table, [data[:9], data[9 : 1 << 24], data[1 << 24 :]])
        assert end == EOF
        assert found == in_python(table, rows)._replace(last=[payloads[-1]])
