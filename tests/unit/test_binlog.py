"""Binlog framing on made-up bytes: checksums, packets, refusals; what a server sends rarely."""

from __future__ import annotations

import socket
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture import binlog
from capture.binlog import IGNORED, REFUSED, Framing, Type
from capture.binlog_json import double_text, json_text
from capture.binlog_packets import Packets, ServerError
from schemas.errors import Transient, Unsupported


def event(kind: int, body: bytes, *, checksum: bool = True) -> bytes:
    size = 19 + len(body) + 4 * checksum
    raw = pack("<IBIIIH", 1, kind, 1, size, 0, 0) + body
    return raw + pack("<I", crc32(raw)) if checksum else raw


def packets(*payloads: bytes) -> bytes:
    framed = b""
    for payload in payloads:
        whole = payload
        while True:
            part, whole = whole[:0xFFFFFF], whole[0xFFFFFF:]
            framed += pack("<I", len(part))[:3] + b"\0" + part
            if len(part) < 0xFFFFFF:
                break
    return framed


def test_checksums_come_and_go_with_the_format_description() -> None:
    """H43."""
    framing = Framing()
    on = event(Type.FORMAT_DESCRIPTION, b"\0" * 57 + b"\x01" + b"\0" * 4, checksum=False)
    off = event(Type.FORMAT_DESCRIPTION, b"\0" * 57 + b"\x00" + b"\0" * 4, checksum=False)
    framing.event(on)
    assert framing.event(event(Type.XID, b"12345678")).body == b"12345678"
    framing.event(off)
    assert framing.event(event(Type.XID, b"12345678", checksum=False)).body == b"12345678"
    rotate = pack("<Q", 4) + b"binlog.000007"
    for with_checksum in (True, False):
        framed = framing.event(event(Type.ROTATE, rotate, checksum=with_checksum))
        assert binlog.rotate(framed.body) == ("binlog.000007", 4)


def test_a_damaged_event_is_never_decoded() -> None:
    raw = bytearray(event(Type.XID, b"12345678"))
    raw[20] ^= 1
    with pytest.raises(Transient, match="wrong checksum"):
        Framing().event(bytes(raw))
    with pytest.raises(Transient, match="wrong length"):
        Framing().event(bytes(raw) + b"x")


def test_an_incident_and_an_unknown_type_stop_the_capture() -> None:
    """H38."""
    assert "incident" in str(binlog.refuse(26))
    assert "unknown type 99" in str(binlog.refuse(99))
    assert not IGNORED.keys() & REFUSED.keys()
    assert not {t.value for t in Type} & (IGNORED.keys() - {Type.STOP})


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 60))
def test_events_are_the_same_however_the_bytes_arrive(bodies: list[bytes], step: int) -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        reader = Packets(receiver)
        data = packets(*(b"\0" + body for body in bodies))
        got: list[bytes] = []
        for at in range(0, len(data), step):
            sender.sendall(data[at : at + step])
            got += reader.receive(5)
        assert got == bodies
        assert not reader.is_partial


def test_an_event_of_sixteen_megabytes_is_put_together() -> None:
    sizes = (0xFFFFFF - 1, 0xFFFFFE - 1, 2 * 0xFFFFFF - 1, 20_000_000)
    for size in sizes:
        sender, receiver = socket.socketpair()
        with sender, receiver:
            reader = Packets(receiver)
            body = b"x" * size
            data = memoryview(packets(b"\0" + body, b"\0y"))
            got: list[bytes] = []
            for at in range(0, len(data), 1 << 16):
                sender.sendall(data[at : at + (1 << 16)])
                got += reader.receive(5)
            assert got == [body, b"y"]


def test_what_the_server_says_and_that_it_went_are_told_apart() -> None:
    for payload, error in (
        (b"\xff\xd4\x04#HY000gone", ServerError),
        (b"\xfe\0\0\2\0", Transient),
    ):
        sender, receiver = socket.socketpair()
        with sender, receiver:
            sender.sendall(packets(payload))
            with pytest.raises(error) as caught:
                Packets(receiver).receive(5)
            if isinstance(caught.value, ServerError):
                assert (caught.value.code, caught.value.message) == (1236, "gone")
    sender, receiver = socket.socketpair()
    sender.close()
    with receiver, pytest.raises(Transient):
        Packets(receiver).receive(5)


def test_nothing_arriving_is_idle_and_no_error() -> None:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        assert Packets(receiver).receive(0.001) == []


@given(st.binary(max_size=80))
def test_hostile_json_is_refused_and_never_crashes(data: bytes) -> None:
    """H33."""
    try:
        json_text(data)
    except Unsupported:
        return


def test_an_empty_document_is_null() -> None:
    """H33: what the server logs after a failed conversion."""
    assert json_text(b"") == "null"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_servers_double_text_is_exact(number: float) -> None:
    text = double_text(number)
    assert float(text) == number
    assert "." in text or "e" in text
