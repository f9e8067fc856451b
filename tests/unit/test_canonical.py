"""Equal values of different servers have one canonical form, and nothing else shares it."""

import json
import math
import struct
from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import canonical
from schemas.codec import ABSENT, Wire
from schemas.kinds import NAMES, Kind, KindName

SAME: list[tuple[Kind, list[Wire]]] = [
    (Kind(name="decimal"), ["1.50", "1.5", "01.5", "+1.5", "15e-1"]),
    (Kind(name="decimal"), ["0", "-0", "0.00", "-0.00", "00"]),
    (Kind(name="decimal"), ["1200", "1200.0", "1.2e3"]),
    (Kind(name="decimal"), ["NaN", "nan"]),
    (Kind(name="float", bits=64), [1, 1.0]),
    (Kind(name="float", bits=64), ["NaN", "NaN"]),
    (Kind(name="float", bits=64), ["-Infinity", float("-inf")]),
    (Kind(name="float", bits=32), [3.14159, 3.1415901184082031]),
    (Kind(name="bool"), [True, 1]),
    (Kind(name="bool"), [False, 0]),
    (Kind(name="int", bits=8), [1, True]),
    (
        Kind(name="uuid"),
        ["0FB5E2A4-0000-4000-8000-00000000000F", "0fb5e2a4-0000-4000-8000-00000000000f"],
    ),
    (Kind(name="binary"), ["AAEC", "AA\nEC"]),
    (Kind(name="time"), ["12:34:56.700", "12:34:56.7"]),
    (Kind(name="time"), ["-838:59:59.000000", "-838:59:59"]),
    (Kind(name="datetime"), ["2026-11-22T12:34:56.000", "2026-11-22T12:34:56"]),
    (
        Kind(name="timestamp"),
        ["2026-11-22T12:34:56.10Z", "2026-11-22T12:34:56.1Z", "2026-11-22T12:34:56.1+00:00"],
    ),
    (
        Kind(name="timestamp"),
        ["2026-11-22T12:34:56Z", "2026-11-22T12:34:56+00:00", "2026-11-22T12:34:56.0Z"],
    ),
    (Kind(name="timestamp"), ["0044-03-15T12:00:00.500Z BC", "0044-03-15T12:00:00.5Z BC"]),
    (
        Kind(name="json"),
        ['{"a":1,"b":[1.0,2]}', '{ "b": [1, 2.0], "a": 1e0 }', '{"a":7,"a":1,"b":[1,2]}'],
    ),
    (Kind(name="json"), ['"\\u00e9"', '"é"']),
    (Kind(name="json"), ["1e400", "10e399"]),
    (Kind(name="json"), ["0", "-0.0", "0e5"]),
]

BIG = "1234567890123456789012345678901234"
DECIMALS = [
    "0",
    "10",
    "1",
    "100",
    "0.1",
    "-0.1",
    "NaN",
    "Infinity",
    "-Infinity",
    f"{BIG}5",
    f"{BIG}6",
]
DATES = ["0000-00-00", "0044-03-15 BC", "0044-03-15", "infinity", "-infinity"]
CLOCKS = ["2026-11-22T12:34:50", "2026-11-22T12:34:05", "2026-11-22T12:34:50.05"]
NUMBERS = ["0", "10", "1", "0.1", "0.10000000000000001", "1e400", '"0"', '"1e0"', "true"]
DOCUMENTS = ["null", '""', "[]", "{}", "false", '{"a":null}', '["a","b"]', '["b","a"]']
BROKEN = ["{not json", "{not  json", "NaN", "[NaN]"]

DIFFERENT: list[tuple[Kind, list[Wire]]] = [
    (Kind(name="text"), [None, "", " ", "a", "A", "a ", "é", "e\u0301"]),
    (Kind(name="enum"), [None, "", "new", "New"]),
    (Kind(name="int", bits=64, unsigned=True), [None, 0, 2**64 - 1, 2**64 - 2, 2**63]),
    (Kind(name="decimal"), [None, *DECIMALS]),
    (Kind(name="float", bits=64), [None, 0.0, -0.0, 0.1, 0.1 + 2**-56, "NaN", "Infinity"]),
    (Kind(name="float", bits=32), [None, 0.0, -0.0, 16777216, 16777218, 1e39]),
    (Kind(name="bool"), [None, True, False, 2, -1]),
    (Kind(name="binary"), [None, "", "AA==", "AAA="]),
    (Kind(name="date"), [None, *DATES]),
    (Kind(name="time"), [None, "00:00:00", "24:00:00", "00:00:00.000001"]),
    (Kind(name="datetime"), [None, *CLOCKS]),
    (Kind(name="json"), [None, *NUMBERS, *DOCUMENTS, *BROKEN]),
]


@pytest.mark.parametrize(
    ("kind", "values"), SAME, ids=lambda v: v.name if isinstance(v, Kind) else ""
)
def test_equal_values_have_one_form(kind: Kind, values: list[Wire]) -> None:
    assert len({canonical(kind)(v) for v in values}) == 1


@pytest.mark.parametrize(
    ("kind", "values"), DIFFERENT, ids=lambda v: v.name if isinstance(v, Kind) else ""
)
def test_different_values_have_different_forms(kind: Kind, values: list[Wire]) -> None:
    assert len({canonical(kind)(v) for v in values}) == len(values)


@pytest.mark.parametrize("name", NAMES)
def test_null_stays_null_and_a_missing_column_is_refused(name: KindName) -> None:
    form = canonical(Kind(name=name, bits=64))
    assert form(None) is None
    with pytest.raises(ValueError, match="does not carry"):
        form(ABSENT)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1,5", "--1", "1.2.3", "0x10", "\u0661", "1e"])
def test_a_decimal_of_anything_but_digits_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        canonical(Kind(name="decimal"))(text)


@given(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False),
)
def test_decimals_are_equal_exactly_when_their_numbers_are(a: Decimal, b: Decimal) -> None:
    form = canonical(Kind(name="decimal"))
    a, b = (x if abs(x.adjusted()) < 200 else Decimal(0) for x in (a, b))
    assert (form(f"{a:f}") == form(f"{b:f}")) == (a == b)
    assert form(f"{a:f}") == form(str(a))
    assert Decimal(str(form(f"{a:f}"))) == a


@given(st.floats(), st.floats())
def test_floats_are_equal_exactly_when_their_bits_are(a: float, b: float) -> None:
    form = canonical(Kind(name="float", bits=64))
    same = struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    assert (form(a) == form(b)) == same


@given(st.floats(width=32), st.floats(width=32))
def test_single_floats_survive_nine_digits_of_text(a: float, b: float) -> None:
    form = canonical(Kind(name="float", bits=32))
    assert form(float(f"{a:.9g}")) == form(a)
    same = struct.pack("f", a) == struct.pack("f", b) or (math.isnan(a) and math.isnan(b))
    assert (form(a) == form(b)) == same


@given(st.binary(), st.binary())
def test_binary_values_are_equal_exactly_when_their_bytes_are(a: bytes, b: bytes) -> None:
    form = canonical(Kind(name="binary"))
    assert (form(b64encode(a).decode()) == form(b64encode(b).decode())) == (a == b)


@given(st.text(), st.text())
def test_texts_are_equal_exactly_when_their_characters_are(a: str, b: str) -> None:
    form = canonical(Kind(name="text"))
    assert (form(a) == form(b)) == (a == b)


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _typed(value: Any) -> Any:
    """Python's equality without True == 1, members in any order."""
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, dict):
        return {k: _typed(v) for k, v in value.items()}
    return [_typed(v) for v in value] if isinstance(value, list) else value


@given(documents, documents)
def test_documents_are_equal_exactly_when_their_values_are(a: Any, b: Any) -> None:
    form = canonical(Kind(name="json"))
    assert (form(json.dumps(a)) == form(json.dumps(b))) == (_typed(a) == _typed(b))


@given(documents)
def test_a_documents_spelling_does_not_matter(document: Any) -> None:
    form = canonical(Kind(name="json"))
    spelled = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True)
    assert form(spelled) == form(json.dumps(document))


@given(documents)
def test_a_canonical_form_is_its_own_canonical_form(document: Any) -> None:
    form = canonical(Kind(name="json"))
    once = form(json.dumps(document))
    assert form(once) == once
