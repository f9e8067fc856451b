"""Every target: rows that exchange values of a unique column that is never NULL, of every type."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Poison
from schemas.kinds import Kind
from tests.conformance.targets import INT, Place, Stream, c, column, deliver, held, place, table, u

__all__ = ["place"]

VALUES: dict[str, tuple[Kind, Any, Any]] = {
    "tiny": (Kind(name="int", bits=8), 1, 2),
    "small": (Kind(name="int", bits=16), 1, 2),
    "whole": (Kind(name="int", bits=64), 1, 2),
    "count": (Kind(name="int", bits=64, unsigned=True), 1, 18446744073709551615),
    "short_decimal": (Kind(name="decimal", precision=5, scale=4), "1.0001", "2.0000"),
    "fraction": (Kind(name="decimal", precision=3, scale=3), "0.001", "0.002"),
    "long_decimal": (Kind(name="decimal"), "1", "2"),
    "single": (Kind(name="float", bits=32), 1.5, 2.5),
    "double": (Kind(name="float", bits=64), 1.5, 2.5),
    "letter": (Kind(name="text", length=1), "a", "b"),
    "short": (Kind(name="text", length=3), "a", "b"),
    "eight": (Kind(name="text", length=8), "a", "b"),
    "text": (Kind(name="text", length=60), "a", "b"),
    "short_bytes": (Kind(name="binary", length=2), "AAE=", "AAI="),
    "bytes": (Kind(name="binary", length=16), "AAE=", "AAI="),
    "day": (Kind(name="date"), "2024-01-01", "9999-12-31"),
    "hour": (Kind(name="time", fraction=0), "10:00:00", "11:00:00"),
    "moment": (Kind(name="time", fraction=6), "10:00:00.000001", "11:00:00.000000"),
    "second": (Kind(name="datetime", fraction=0), "2024-01-01T00:00:00", "9999-12-31T23:59:59"),
    "clock": (Kind(name="datetime", fraction=6), "2024-01-01T00:00:00", "2024-01-02T00:00:00"),
    "instant": (Kind(name="timestamp", fraction=6), "2024-01-01T00:00:00Z", "2038-01-19T03:14:07Z"),
    "uuid": (
        Kind(name="uuid"),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12",
    ),
}
COLUMNS = [column(name, kind, nullable=False) for name, (kind, _, _) in VALUES.items()]
UNIQUES = tuple((name,) for name in VALUES)


def swap(place: Place, of: Any, names: Any = VALUES) -> None:
    """Two rows, which then exchange everything."""
    first: dict[str, Any] = {name: VALUES[name][1] for name in names}
    second: dict[str, Any] = {name: VALUES[name][2] for name in names}
    stream, target = Stream(), place.target()
    target.prepare([of])
    rows = [c(of, id=1, sync_id="a", **first), c(of, id=2, sync_id="b", **second)]
    deliver(target, stream.batch(*rows))
    before = held(target, of)
    rows = [u(of, id=1, sync_id="a", **second), u(of, id=2, sync_id="b", **first)]
    deliver(target, stream.batch(*rows))
    after = held(target, of)
    assert [row.pop("sync_id") for row in before + after] == ["a", "b", "a", "b"]
    assert after == before[::-1]


def test_values_of_every_type_swap_in_columns_that_we_make(place: Place) -> None:
    """H93."""
    swap(place, table("swaps", *COLUMNS, uniques=UNIQUES))


def test_values_swap_in_types_of_the_servers_own(place: Place) -> None:
    """H93: fixed lengths, instants to 2038, and numbers without a sign."""
    own = {
        "text": "char(60)",
        "whole": "bigint",
        "long_decimal": "decimal(65,30) unsigned" if place.is_mysql else "numeric",
    }
    if place.is_mysql:
        own |= {"bytes": "varbinary(16)", "count": "bigint unsigned"}
        own |= {"double": "double unsigned", "instant": "timestamp(6) null"}
    if place.is_sqlite:
        own |= {"long_decimal": "text", "day": "date", "clock": "datetime", "double": "double"}
    columns = ", ".join(f"{name} {kind} not null unique" for name, kind in own.items())
    columns = columns.replace("null not null", "not null default current_timestamp(6)")
    columns = columns.replace("double double", '"double" double')
    place.execute(f"create table swaps (id {place.serial}, sync_id varchar(36) unique, {columns})")
    of = table("swaps", *(x for x in COLUMNS if x.name in own), uniques=UNIQUES)
    swap(place, of, own)


def test_what_no_spare_value_fits_is_poison_that_says_so(place: Place) -> None:
    """A check's range leaves no value that is nobody's."""
    place.execute(
        f"create table swaps (id {place.serial}, sync_id varchar(36) unique, "
        "whole int not null unique check (whole > 0 and whole < 10))"
    )
    of = table("swaps", column("whole", INT, nullable=False))
    with pytest.raises(Poison, match=r"app.swaps: .*batch 2, ordinal 0") as caught:
        swap(place, of, ["whole"])
    assert "docs/limits.md" in caught.value.hint
