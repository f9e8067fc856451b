"""Stamps and ops of many rows at once are those of each row by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Stamped, op_of, ops_of, stamp_of, stamped


def value(schema: str, epoch: int, run: int, ordinal: int) -> bytes:
    stamp = f'{{"schema":"{schema}","epoch":{epoch},"run":{run},"ordinal":{ordinal}}}'
    return f'{{"before":null,"op":"u","source":{{"headwater":{stamp}}}}}'.encode()


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
    ]
)


@given(st.lists(st.one_of(rows.map(lambda row: value(*row)), foreign)), small, small)
def test_rows_are_found_among_others(values: list[bytes], epoch: int, run: int) -> None:
    expected: dict[str, list[tuple[int, int]]] = {}
    for at, one in enumerate(values):
        try:
            stamp = stamp_of(one)
        except Exception:
            continue
        if (stamp.epoch, stamp.run) == (epoch, run):
            expected.setdefault(stamp.fingerprint, []).append((at, stamp.ordinal))
    found = {
        s.fingerprint: list(zip(s.at, s.ordinals, strict=True)) for s in stamped(values, epoch, run)
    }
    assert found == expected


@given(st.lists(st.integers(0, 1 << 40), min_size=1))
def test_rows_that_all_belong_together_keep_their_order(ordinals: list[int]) -> None:
    values = [value("ab", 3, 4, ordinal) for ordinal in ordinals]
    assert stamped(values, 3, 4) == [Stamped("ab", range(len(values)), ordinals)]


def test_an_op_is_read_behind_the_row() -> None:
    """A row may hold what looks like one, but never unescaped behind its own."""
    tricky = b'{"after":{"note":"x","json":{"a":1,"op":"d"}},"op":"c","source":{}}'
    seed = b'{"table":"t","source_key":1,"identity":{},"source":{}}'
    assert ops_of([tricky, seed]) == ["c", "s"]
    assert op_of(tricky) == "c"
