"""Rows in wire form, made without a source: for logs padded to one size, for targets whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import shake_128
from json import dumps

from bench import orders
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
    return _piece("mysql", run, "c", numbers, list(padded(numbers, stamp.epoch, run)))


def piece(family: str, stamp: Stamp, op: str, numbers: Sequence[int]) -> Piece:
    """A whole batch of inserts ("c") or updates ("u") of the measured table."""
    run = stamp.draw()
    envelope = _envelope(family, stamp.epoch, run)
    pairs = []
    for ordinal, number in enumerate(numbers):
        key = f'{{"sync_id":"{orders.sync_id(number)}"}}'.encode()
        if op == "c":
            value = envelope.create(_image(number, 0), ordinal)
        else:
            value = envelope.update(_image(number, 0), _image(number, 1), ordinal)
        pairs.append((key, value))
    return _piece(family, run, op, numbers, pairs)


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
    image = dict(zip(orders.NAMES, orders.row(number, version), strict=True))
    image["created_at"] = image["created_at"].replace(" ", "T")
    image["updated_at"] = image["updated_at"].replace(" ", "T") + "Z"
    return dumps(image, ensure_ascii=False)


def _piece(
    family: str, run: int, op: str, numbers: Sequence[int], pairs: list[tuple[bytes, bytes]]
) -> Piece:
    rows = Rows(
        table=orders.table(family),
        ops=[op] * len(pairs),
        ordinals=list(range(len(pairs))),
        keys=[key for key, _ in pairs],
        values=[value for _, value in pairs],
    )
    commit = Commit(position=Position(f"{op}{numbers[-1]}"), committed_at=COMMITTED_AT)
    return Piece(run=run, rows=(rows,), commit=commit)
