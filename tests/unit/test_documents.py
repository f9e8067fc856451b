"""Keys inside JSON documents: which they are, and what is left of a document with others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apply.documents import Unreadable, keys, steps, turned

DOCUMENT = (
    ' { "a" : [ {"id": 1, "x":1.10}, {"id":"7"}, {"id":null} ,3], "id":5, "e":[] , "o":{} }\n'
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.id", ["5"]),
        ('$."id"', ["5"]),
        ("$.a[*].id", ["1", "7"]),
        ("$.a[*].x.y", []),
        ("$.b", []),
        ("$.e[*]", []),
        ("$.o.id", []),
        ("$[*]", []),
        ("$.a.id", []),
    ],
)
def test_keys_stand_where_a_path_leads(path: str, found: list[str]) -> None:
    assert [key.key for key in keys(DOCUMENT, steps(path))] == found


def test_only_keys_are_replaced_and_stay_numbers_or_texts() -> None:
    paths = [steps("$.id"), steps("$.a[*].id")]
    new = turned(DOCUMENT, paths, lambda nth, key: f"{nth}{key}")
    assert new == DOCUMENT.replace('"id":5', '"id":05').replace(": 1,", ": 11,").replace(
        '"7"', '"17"'
    )
    assert turned('{"id":5}', paths, lambda nth, key: None) == '{"id":"no such row"}'


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("$.id", "{"),
        ("$.id", ""),
        ("$.id", '{"id" 1}'),
        ("$.id", '{"id":1'),
        ("$.id", '{"id":true}'),
        ("$.id", '{"id":1.0}'),
        ("$.id", '{"id":{}}'),
        ("$[*]", "[1 2]"),
        ("$[*]", '["a'),
    ],
)
def test_what_is_no_document_and_what_is_no_key_is_said(path: str, document: str) -> None:
    with pytest.raises(Unreadable):
        keys(document, steps(path))


@pytest.mark.parametrize("path", ["", "$", "a", "$.", "$[0]", "$.a b", "$..a", '$."a'])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path like"):
        steps(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "a", "é", "b"]), inner),
    max_leaves=12,
)


@given(value=VALUES, path=st.sampled_from(["$.id", "$.a[*].id", "$[*].a", '$."é".b']))
def test_a_document_without_new_keys_is_the_same(value: object, path: str) -> None:
    """Whatever it holds, and however it is written."""
    for document in (json.dumps(value, indent=1), json.dumps(value, ensure_ascii=False)):
        try:
            found = keys(document, steps(path))
        except Unreadable:
            continue
        assert turned(document, [steps(path)], lambda nth, key: key) == document or any(
            key.is_text for key in found
        )
        changed = json.loads(turned(document, [steps(path)], lambda nth, key: key))
        assert changed == json.loads(document)
