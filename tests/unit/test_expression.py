"""Expressions over wire values: SQL's meaning, its NULL, and everything else refused."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.compare import Unfit
from schemas.expression import bind, condition
from schemas.kinds import Kind

KINDS = {
    "region": Kind(name="text", length=9),
    "active": Kind(name="bool"),
    "n": Kind(name="int", bits=32),
    "d": Kind(name="decimal", precision=9, scale=2),
    "f": Kind(name="float", bits=64),
    "at": Kind(name="timestamp"),
    "day": Kind(name="date"),
    "id": Kind(name="uuid"),
    "raw": Kind(name="binary"),
}
ROWS: dict[str, list[Any]] = {
    "region": ["EU", "US", None, "eu"],
    "active": [True, None, False, 2],
    "n": [1, 2, 3, None],
    "d": ["1.50", "-2.00", None, "3"],
    "f": [0.1, 1.5, None, 2],
    "at": ["2026-11-22T12:34:56.7Z", "2026-11-22T12:34:56Z", None, "2027-01-01T00:00:00Z"],
    "day": ["2026-11-22", "infinity", None, "1999-01-01"],
    "id": ["0b" + "0" * 6 + "-0000-0000-0000-" + "0" * 12, None, None, None],
    "raw": ["/w==", None, None, None],
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("region = 'EU' and active", [True, False, False, False]),
        ("region = 'EU' or active", [True, None, None, True]),
        ("not active", [False, None, True, False]),
        ("active = 1", [True, None, False, False]),
        ("n in (1, 3)", [True, False, True, None]),
        ("not n in (1, 3)", [False, True, False, None]),
        ("d > 1.25", [True, False, None, True]),
        ("d between -2 and 2", [True, True, None, False]),
        ("f = 0.1", [True, False, None, False]),
        ("at > '2026-11-22 12:34:56'", [True, False, None, True]),
        ("at >= '2026-11-22T12:34:56.70Z'", [True, False, None, True]),
        ("day < '2027-01-01'", [True, False, None, True]),
        ("id = '0B000000-0000-0000-0000-000000000000'", [True, None, None, None]),
        ("region like 'E_'", [True, False, None, False]),
        ("lower(region) like 'e%'", [True, False, None, True]),
        ("region is null or n = 2", [False, True, True, None]),
        ("active is true", [True, False, False, True]),
        ("raw is not null", [True, False, False, False]),
    ],
)
def test_a_condition_is_true_false_or_unknown(text: str, found: list[bool | None]) -> None:
    bound = condition(text, KINDS)
    assert list(bound.of(ROWS, 4)) == found
    assert bound.matches(ROWS, 4) == [v is True for v in found]


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("'shop'", Kind(name="text", length=4), ["shop"] * 4),
        ("-3", Kind(name="int", bits=64), [-3] * 4),
        ("1.50", Kind(name="decimal", precision=3, scale=2), ["1.50"] * 4),
        ("d", KINDS["d"], ROWS["d"]),
        ("upper(trim(' a '))", Kind(name="text", length=3), ["A"] * 4),
        (
            "concat(region, '-', region)",
            Kind(name="text", length=19),
            ["EU-EU", "US-US", None, "eu-eu"],
        ),
        ("region || '!'", Kind(name="text", length=10), ["EU!", "US!", None, "eu!"]),
        ("coalesce(region, 'none')", Kind(name="text", length=9), ["EU", "US", "none", "eu"]),
        ("coalesce(n, 0)", Kind(name="int", bits=64), [1, 2, 3, 0]),
        ("region = 'EU'", Kind(name="bool"), [True, False, None, False]),
    ],
)
def test_a_value_has_a_kind(text: str, kind: Kind, found: list[object]) -> None:
    bound = bind(text, KINDS)
    assert (bound.kind, list(bound.of(ROWS, 4))) == (kind, found)


@pytest.mark.parametrize(
    "text",
    [
        "region",
        "",
        "region = 'EU' and",
        "region = 'EU'; drop table users",
        "n + 1 = 2",
        "left(region, 1) = 'E'",
        "other = 1",
        "users.n = 1",
        "region = 1",
        "n = null",
        "n between 'a' and 2",
        "now() > at",
        "cast(n as text) = '1'",
        "trim(both 'x' from region) = 'a'",
        "exists (select 1)",
        "n in (select 1)",
        "raw = 'x'",
        "case when n = 1 then true end",
        "region collate x = 'EU'",
        "at > 'yesterday'",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(Unfit):
        condition(text, KINDS)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("d > 1", {"d": ["NaN"]}),
        ("f > 1", {"f": ["NaN"]}),
        ("day > '2020-01-01'", {"day": ["0044-03-15 BC"]}),
    ],
)
def test_a_value_that_cannot_be_compared_is_never_guessed(
    text: str, values: dict[str, list[str]]
) -> None:
    with pytest.raises(Unfit):
        condition(text, KINDS).of(values, 1)
