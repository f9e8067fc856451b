"""Stamps and ops of many rows at once are those of each row by itself."""

from __future__ import annotations

import os
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Stamped, op_of, ops_of, stamp_of, stamped


def value(schema: str, epoch: int, run: int, ordinal: int) -> bytes:
    stamp = f'{{"schema":"{schema}","epoch":{epoch},"run":{run},"ordinal":{ordinal}}}'
    return f'{{"before":null,"op":"u","source":{{"headwater":{stamp}}}}}'.encode()


def found(values: list[bytes], epoch: int, run: int) -> list[Stamped]:
    """What the compiled part and the Python code find, which must be the same."""
    fast = stamped(values, epoch, run)
    with patch.dict(os.environ, HEADWATER_NATIVE="off"):
        slow = stamped(values, epoch, run)
    # Which rows: a range or a list, as each comes by them.
    assert [s._replace(at=list(s.at)) for s in slow] == [s._replace(at=list(s.at)) for s in fast]
    return fast


small = st.integers(0, 2)
rows = st.tuples(st.sampled_from(["aa", "ab"]), small, small, st.integers(0, 1 << 40))
foreign = st.sampled_from(
    [
        b"5",
        b"}}}",
        b"{}",
        b'{"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":',
        b'{"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":1}}}2}}}',
        b'{"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":1.5}}}',
        b'{"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":1}}}\n',
        b'{"headwater":{"schema":"aA","epoch":1,"run":1,"ordinal":1}}}',
        b'{"headwater":{"schema":"%s","epoch":1,"run":1,"ordinal":1}}}' % (b"a" * 200),
        b'"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":1}}}',
        b'{"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":07}}}',
        b'{"headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":%d}}}' % (1 << 64),
        b'{"x":1,"op":"\xff","headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":1}}}',
        b'{"x":1,"op":"r","headwater":{"schema":"aa","epoch":1,"run":1,"ordinal":1}}}',
    ]
)


@given(st.lists(st.one_of(rows.map(lambda row: value(*row)), foreign)), small, small)
def test_rows_are_found_among_others(values: list[bytes], epoch: int, run: int) -> None:
    expected: dict[str, list[tuple[int, int, str]]] = {}
    for at, one in enumerate(values):
        try:
            stamp = stamp_of(one)
        except Exception:
            continue
        if (stamp.epoch, stamp.run) == (epoch, run):
            expected.setdefault(stamp.fingerprint, []).append((at, stamp.ordinal, op_of(one)))
    assert expected == {
        s.fingerprint: list(zip(s.at, s.ordinals, s.ops, strict=True))
        for s in found(values, epoch, run)
    }


@given(st.lists(st.integers(0, 1 << 40), min_size=1))
def test_rows_that_all_belong_together_keep_their_order(ordinals: list[int]) -> None:
    values = [value("ab", 3, 4, ordinal) for ordinal in ordinals]
    everything = range(len(values))
    assert found(values, 3, 4) == [Stamped("ab", everything, ordinals, ["u"] * len(values))]


def test_an_op_is_read_behind_the_row() -> None:
    """A row may hold what looks like one, but never unescaped behind its own."""
    tricky = b'{"after":{"note":"x","json":{"a":1,"op":"d"}},"op":"c","source":{}}'
    seed = b'{"table":"t","source_key":1,"identity":{},"source":{}}'
    assert ops_of([tricky, seed]) == ["c", "s"]
    assert op_of(tricky) == "c"
