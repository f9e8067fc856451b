"""Rows in wire form, made without a source: for logs padded to one size, for targets whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import shake_128
from json import dumps
from typing import Any

from bench import orders
from bench.changes import Change
from schemas.change import Commit, Piece, Position, Rows, Stamp
from schemas.codec import Envelope

VALUE_BYTES = 350
COMMITTED_AT = 1_700_000_000_000_000


def padded(numbers: Sequence[int], epoch: int = 1, run: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of 350 bytes, a third of which no compression makes shorter."""
    envelope = _envelope("mysql", epoch, run)
    for ordinal, number in enumerate(numbers):
        key = f'{{"sync_id":"{orders.sync_id(number)}"}}'
        image = f'{key[:-1]},"note":"%s"}}'
        missing = VALUE_BYTES - len(envelope.create(image % "", ordinal))
        note = shake_128(key.encode()).hexdigest(max(missing, 0) // 2 + 1)[: max(missing, 0)]
        yield key.encode(), envelope.create(image % note, ordinal)


def padded_piece(stamp: Stamp, numbers: Sequence[int]) -> Piece:
    """A whole batch of inserts of padded rows."""
    run = stamp.draw()
    pairs = list(padded(numbers, stamp.epoch, run))
    return _piece("mysql", run, ["c"] * len(pairs), pairs)


def piece(family: str, stamp: Stamp, wanted: Sequence[Change]) -> Piece:
    """A whole batch of changes of the measured table."""
    run = stamp.draw()
    envelope = _envelope(family, stamp.epoch, run)
    pairs = []
    for ordinal, (op, number, version) in enumerate(wanted):
        key = f'{{"sync_id":"{orders.sync_id(number)}"}}'
        if op == "c":
            value = envelope.create(_image(number, version), ordinal)
        elif op == "u":
            value = envelope.update("null", _image(number, version), ordinal)
        else:
            value = envelope.delete(key, ordinal)
        pairs.append((key.encode(), value))
    return _piece(family, run, [op for op, _, _ in wanted], pairs)


def _envelope(family: str, epoch: int, run: int) -> Envelope:
    return Envelope(
        orders.table(family),
        connector="mysql" if family == "mysql" else "postgresql",
        source="bench",
        epoch=epoch,
        run=run,
        committed_at=COMMITTED_AT,
    )


def _image(number: int, version: int) -> str:
    return dumps(image(number, version), ensure_ascii=False, separators=(",", ":"))


def image(number: int, version: int) -> dict[str, Any]:
    """Row `number` of the measured table as wire values."""
    found = dict(zip(orders.NAMES, orders.row(number, version), strict=True))
    for name, zone in (("created_at", ""), ("updated_at", "Z")):
        found[name] = found[name].replace(" ", "T").rstrip("0").rstrip(".") + zone
    return found


def _piece(family: str, run: int, ops: list[str], pairs: list[tuple[bytes, bytes]]) -> Piece:
    rows = Rows(
        table=orders.table(family),
        ops=ops,
        ordinals=list(range(len(pairs))),
        keys=[key for key, _ in pairs],
        values=[value for _, value in pairs],
    )
    commit = Commit(position=Position(f"run {run}"), committed_at=COMMITTED_AT)
    return Piece(run=run, rows=(rows,), commit=commit)
