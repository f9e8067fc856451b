"""Every target: every kind's corner values come back exactly, and what cannot be kept is refused
by name.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.canonical import canonical
from schemas.errors import Poison
from schemas.kinds import Kind
from tests.conformance.targets import (
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    held,
    place,
    private_place,
    table,
    u,
)

__all__ = ["place", "private_place"]


def integers() -> dict[str, tuple[Kind, list[Any]]]:
    found: dict[str, tuple[Kind, list[Any]]] = {}
    for bits in (8, 16, 24, 32, 64):
        signed, unsigned = Kind(name="int", bits=bits), Kind(name="int", bits=bits, unsigned=True)
        found[f"i{bits}"] = (signed, [0, -1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1])
        found[f"u{bits}"] = (unsigned, [0, 1, 2**bits - 1])
    return found


TEXTS = [
    "",
    " ",
    "trailing  ",
    "tab\tline\ncr\rback\\slash\\N",
    "'quotes\" `",
    "ünï→😀",
    "\\N",
    "%s %(x)s",
]
CLOCKS = ["2026-11-22T12:34:56", "1999-12-31T23:59:59.999999", "2026-11-22T00:00:00.000001"]
DOCUMENT = (
    '{"a": [1, 2.5, -0.1, 18446744073709551615, null, true], "ü\\n\\"": {"b": "1e400 \\\\ tab\\t"}}'
)

VALUES: dict[str, tuple[Kind, list[Any]]] = integers() | {
    "money": (Kind(name="decimal", precision=10, scale=2), ["0.00", "-12345678.90", "99999999.99"]),
    "wide": (
        Kind(name="decimal", precision=65, scale=30),
        ["9" * 35 + "." + "9" * 30, "-0." + "0" * 29 + "1"],
    ),
    "whole": (Kind(name="decimal", precision=38, scale=0), ["9" * 38, "-1"]),
    "any": (Kind(name="decimal"), ["1.5", "-0.000000000000000000000000000001", "9" * 35]),
    "f32": (Kind(name="float", bits=32), [0.1, -3.4028235e38, 1.1754944e-38, 16777216.0, 1e-45]),
    "f64": (
        Kind(name="float", bits=64),
        [0.1, 1.7976931348623157e308, 2.2250738585072014e-308, 1e22],
    ),
    "flag": (Kind(name="bool"), [True, False]),
    "short": (Kind(name="text", length=40), TEXTS),
    "long": (Kind(name="text"), [*TEXTS, "x" * 70_000, "😀" * 20_000]),
    "bytes": (Kind(name="binary"), ["", "AA==", "AP9cCQoNCg==", "Xk5cTg=="]),
    "few": (Kind(name="binary", length=4), ["AQIDBA==", "AAAA"]),
    "day": (Kind(name="date"), ["2026-11-22", "1000-01-01", "9999-12-31"]),
    "time": (Kind(name="time"), ["00:00:00", "23:59:59.999999", "12:00:00.5"]),
    "clock": (
        Kind(name="datetime"),
        [*CLOCKS, "9999-12-31T23:59:59.999999", "1000-01-01T00:00:00"],
    ),
    "second": (Kind(name="datetime", fraction=0), ["2026-11-22T12:34:56"]),
    "instant": (
        Kind(name="timestamp"),
        ["2026-03-29T01:30:00Z", "1970-01-02T00:00:00.5Z", "2037-12-31T23:59:59.999999Z"],
    ),
    "document": (
        Kind(name="json"),
        [DOCUMENT, "[]", '"text"', "null", "0", "12345678901234567890"],
    ),
    "uuid": (
        Kind(name="uuid"),
        ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    ),
    "label": (Kind(name="enum", labels=("new", "it's, ü")), ["new", "it's, ü"]),
}
ROWS = max(len(values) for _, values in VALUES.values())


def native(name: str, kind: Kind, family: str) -> str:
    """The source's own type where a target of the same family is to use it."""
    if family != "postgres":
        return {
            "label": "enum('new','it''s, ü')",
            "flag": "tinyint(1)",
            "instant": "timestamp(6)",
        }.get(name, "")
    return {
        "money": "numeric(10,2)",
        "document": "json",
        "clock": "timestamp without time zone",
    }.get(name, "")


def everything(family: str) -> Any:
    return table(
        "everything",
        *(
            column(name, kind, native=native(name, kind, family))
            for name, (kind, _) in VALUES.items()
        ),
        family=family,
    )


def rows() -> list[dict[str, Any]]:
    """One row of NULLs, then each kind's values side by side."""
    found: list[dict[str, Any]] = [dict.fromkeys(VALUES)]
    for i in range(ROWS):
        found.append({name: values[i % len(values)] for name, (_, values) in VALUES.items()})
    return [{"id": i, "sync_id": f"s{i:02}"} | row for i, row in enumerate(found)]


def expected(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: canonical(VALUES[name][0])(value) if name in VALUES else value
        for name, value in row.items()
        if name != "id"
    }


@pytest.mark.parametrize("family", ["postgres", "mysql", "mariadb"])
def test_every_kind_comes_back_exactly(place: Place, family: str) -> None:
    """H25 to H33, H63, H135: inserted, then each row updated to the values of the next."""
    source, stream, target = everything(family), Stream(), place.target()
    target.prepare([source])
    sent = rows()
    deliver(target, stream.batch(*(c(source, **row) for row in sent)))
    assert held(target, source) == [expected(row) for row in sent]
    names = ("id", "sync_id")
    moved = [sent[i - 1] | {n: row[n] for n in names} for i, row in enumerate(sent)]
    deliver(target, stream.batch(*(u(source, **row) for row in moved)))
    assert held(target, source) == [expected(row) for row in moved]


def test_every_kind_may_identify_rows(place: Place) -> None:
    for name in ("i64", "u64", "money", "short", "uuid", "day", "instant", "few"):
        kind, values = VALUES[name]
        keyed = table(
            f"by_{name}", column("key", kind, nullable=False), column("n"), identity=("key",)
        )
        target = place.target(name)
        target.prepare([keyed])
        stream = Stream(name)
        deliver(target, stream.batch(*(c(keyed, id=1, sync_id="x", key=v, n="1") for v in values)))
        deliver(target, stream.batch(*(u(keyed, id=1, sync_id="x", key=v, n="2") for v in values)))
        assert {row["key"]: row["n"] for row in held(target, keyed)} == {
            canonical(kind)(v): "2" for v in values
        }
        deliver(target, stream.batch(*(d(keyed, key=v) for v in values)))
        assert held(target, keyed) == []


def test_postgres_specials_are_kept_or_refused(place: Place) -> None:
    """H63: NaN, infinities, BC, 24:00:00."""
    cases: list[tuple[Kind, str]] = [
        (Kind(name="decimal"), "NaN"),
        (Kind(name="decimal"), "Infinity"),
        (Kind(name="float", bits=64), "NaN"),
        (Kind(name="float", bits=32), "-Infinity"),
        (Kind(name="date"), "infinity"),
        (Kind(name="date"), "0044-03-15 BC"),
        (Kind(name="datetime"), "-infinity"),
        (Kind(name="datetime"), "0044-03-15T12:00:00 BC"),
        (Kind(name="timestamp"), "infinity"),
        (Kind(name="timestamp"), "0044-03-15T12:00:00Z BC"),
        (Kind(name="datetime"), "10000-01-01T00:00:00"),
    ]
    for number, (kind, value) in enumerate(cases):
        # SQLite keeps them as text; its floats have infinities, and NULL for what is no number.
        kept = place.is_sqlite and (kind.name, value) != ("float", "NaN")
        _kept_or_refused(place, number, kind, value, kept=kept or place.kind == "postgres")
    _kept_or_refused(place, len(cases), Kind(name="time"), "24:00:00", kept=True)
    for number, bits in enumerate((32, 64), start=len(cases) + 1):
        zero = Kind(name="float", bits=bits)
        _kept_or_refused(place, number, zero, -0.0, kept=place.kind in ("postgres", "mysql"))


def test_mysql_specials_are_kept_or_refused(place: Place) -> None:
    """H25, H30: zero dates, long times, other booleans, invalid labels, NUL in text."""
    cases: list[tuple[Kind, Any]] = [
        (Kind(name="date"), "0000-00-00"),
        (Kind(name="date"), "2026-00-00"),
        (Kind(name="datetime"), "0000-00-00"),
        (Kind(name="timestamp"), "0000-00-00"),
        (Kind(name="time"), "-838:59:59"),
        (Kind(name="time"), "838:59:58.999999"),
        (Kind(name="bool"), 7),
        (Kind(name="text", length=5), "a\0b"),
        (Kind(name="text"), "a\0b"),
    ]
    for number, (kind, value) in enumerate(cases):
        _kept_or_refused(place, number, kind, value, kept=place.kind != "postgres", family="mysql")


def test_what_a_target_cannot_hold_exactly_is_refused(place: Place) -> None:
    loose: list[tuple[Kind, Any]] = [
        (Kind(name="text", length=3), "abcd"),
        (Kind(name="int", bits=16), 2**16),
        (Kind(name="json"), "{"),
        (Kind(name="date"), "2026-02-30x"),
        (Kind(name="uuid"), "no uuid at all, and far too long for one"),
    ]
    cases: list[tuple[Kind, Any]] = [(Kind(name="int", bits=64), 2**63)]
    if place.is_mysql:
        cases += [
            (Kind(name="decimal"), "0." + "1" * 31),
            (Kind(name="decimal"), "1" * 36),
            (Kind(name="timestamp"), "10000-01-01T00:00:00Z"),
        ]
    if place.kind == "mysql":
        cases += [
            (Kind(name="json"), "0.1234567890123456789"),
            (Kind(name="json"), '{"a": [184467440737095516161]}'),
        ]
    for number, (kind, value) in enumerate(cases):
        _kept_or_refused(place, number, kind, value, kept=False)
    # SQLite's types have no lengths and no forms: what does not fit the source's is kept as it is.
    for number, (kind, value) in enumerate(loose, start=len(cases)):
        _kept_or_refused(place, number, kind, value, kept=place.is_sqlite)


def _kept_or_refused(
    place: Place, number: int, kind: Kind, value: Any, *, kept: bool, family: str = "postgres"
) -> None:
    source = table(f"t{number}", column("v", kind), family=family)
    target, stream = place.target(f"s{number}"), Stream(f"s{number}")
    target.prepare([source])
    good = [c(source, id=i, sync_id=f"{i:03}", v=None) for i in range(100)]
    batch = stream.batch(*good[:50], c(source, id=200, sync_id="200", v=value), *good[50:])
    if kept:
        deliver(target, batch)
        assert held(target, source)[-1]["v"] == canonical(kind)(value), (kind, value)
        return
    with pytest.raises(Poison, match=rf"app\.t{number}\b.*batch 1, ordinal 50") as caught:
        deliver(target, batch)
    assert str(value) not in str(caught.value).replace("ordinal 50", "")
    assert held(target, source) == []


def test_values_arrive_without_load_data_local(private_place: Place) -> None:
    """Where local_infile is off, rows are staged by INSERT, and judged the same."""
    place = private_place
    if not place.is_mysql:
        assert place.target().check([]) == []
        return
    source, stream = everything("postgres"), Stream()
    place.execute("set global local_infile = 0")
    target = place.target()
    target.prepare([source])
    assert [finding.where for finding in target.check([source])] == ["local_infile"]
    sent = rows()
    deliver(target, stream.batch(*(c(source, **row) for row in sent)))
    assert held(target, source) == [expected(row) for row in sent]
    bad = sent[1] | {"money": "1.234", "sync_id": "bad"}
    with pytest.raises(Poison, match=r"everything.money exactly .batch 2, ordinal 2"):
        deliver(
            target,
            stream.batch(u(source, **sent[1]), u(source, **sent[2]), c(source, **bad)),
        )
