"""A column of rows' after-images found without parsing them is the one that parsing gives."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import ABSENT, Envelope, after_column, after_of, image
from schemas.table import Table

TABLE = Table(
    family="mysql", schema="shop", name="t", columns=(), primary_key=("a",), identity=("a",)
)
NAMES = ("region", "op", "db", 'q"uote', "back\\slash", "a.*b", "été", "after")
NASTY = ',"region":"x"}{[]\\"\n'
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(alphabet=st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"]))),
)


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), min_size=1, max_size=5))
def test_it_is_what_parsing_gives(images: list[dict[str, Any]]) -> None:
    envelope = Envelope(
        TABLE, connector="mysql", source="s", epoch=1, run=1, committed_at=0, place=',"region":1'
    )
    texts = [image(list(i), [orjson.dumps(v).decode() for v in i.values()]) for i in images]
    values = [envelope.update(texts[(n + 1) % len(texts)], text, n) for n, text in enumerate(texts)]
    for name in NAMES:
        parsed = [after_of(value).get(name, ABSENT) for value in values]
        assert after_column(values, name) == parsed
