"""First matching without servers: what makes two keys equal, and who is whose partner."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from ops.enrol.findings import Found, found
from ops.enrol.rules import digests, normalised, step
from ops.enrol.scratch import CHANGED, MANY, OTHER, TAKEN, UNDONE, Scratch
from ops.enrol.side import Block, entries
from ops.enrol.twin import Parent, Rule, Twin
from schemas.table import Table

NFD = unicodedata.normalize("NFD", "José")


@pytest.mark.parametrize(
    ("steps", "one", "other"),
    [
        (["trim"], " Ann ", "Ann"),
        (["lower"], "ANN@X.ORG", "ann@x.org"),
        (["lower"], "Straße", "STRASSE"),
        (["spaces"], " Ann \t Lee", "Ann Lee"),
        (["nfc"], NFD, "José"),
        (["nfkc"], "\ufb01ne", "fine"),
        (["accents"], NFD, "Jose"),
        (["accents", "lower"], "JOSÉ", "jose"),
        (["digits"], "+1 (555) 01", "155501"),
        (["number"], "007.50", "7.5"),
        (["decimal_comma"], "1.234,50", "1234.5"),
        (["date:%d.%m.%Y"], "24.12.2001", "2001-12-24"),
    ],
)
def test_values_are_one_under_declared_steps_only(steps: list[str], one: str, other: str) -> None:
    """T25: case, blanks, Unicode form, accents, numbers and dates."""
    chosen = [step(name) for name in steps]
    assert normalised([one], chosen) == normalised([other], chosen)
    assert digests([[one]], 1) != digests([[other]], 1)


def test_what_a_step_cannot_read_has_no_key_and_is_counted() -> None:
    assert normalised(["1", "one", None, ""], [step("number")]) == (["1", None, None, None], 2)
    assert digests([["a", None], ["b", "b"]], 2)[1] is None


def test_keys_of_several_columns_do_not_run_into_each_other() -> None:
    first, second = digests([["a", "a1:"], ["1:b", "b"]], 2)
    assert first != second


def test_a_step_that_is_none_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"has no step upper: choose from trim, .*date:%d"):
        step("upper")


KEY = Rule(("email",), ())
NAME = Rule(("name",), ())
Rows = Sequence[Sequence[str | None]]


def twin(*rules: Rule, number: int = 0, parents: dict[str, Parent] | None = None) -> Twin:
    table = Table(
        family="postgres", schema="s", name=f"t{number}", columns=(), primary_key=("id",),
        identity=("sync_id",),
    )  # fmt: skip
    there = sa.Table(f"t{number}", sa.MetaData())
    return Twin(
        number=number, table=table, sync="sync_id", source=there, target=there, rules=rules,
        parents=parents or {}, linked=["id", *(parents or {})], compared=["name"],
    )  # fmt: skip


def fill(scratch: Scratch, of: Twin, source: Rows, target: Rows) -> None:
    """Rows as (key, id, email, name, other columns …)."""
    for role, rows in (("source", source), ("target", target)):
        key, ids, email, name, *more = [list(column) for column in zip(*rows, strict=True)]
        texts = {"id": key, "email": email, "name": name}
        texts |= dict(zip(of.parents, more, strict=True))
        block = Block([f"[{k}]" for k in key], ids, texts)
        scratch.add(of, role, entries(of, block, Counter()))


@pytest.fixture
def one(tmp_path: Path) -> Iterator[tuple[Scratch, Twin]]:
    of = twin(KEY, NAME)
    scratch = Scratch(tmp_path, [of])
    yield scratch, of
    scratch.close()


def matched(scratch: Scratch, of: Twin) -> Found:
    scratch.match(of)
    return reported(scratch, of)


def reported(scratch: Scratch, of: Twin) -> Found:
    result = found(scratch, of, assigned=0, unreadable={}, limit=10)
    assert result.source_rows == result.matched + result.ambiguous_source + result.only_source
    assert result.target_rows == result.matched + result.ambiguous_target + result.only_target
    return result


def pairs(scratch: Scratch, of: Twin) -> list[tuple[str, str, int]]:
    return [
        (p.source_key[1:-1], p.target_key[1:-1], p.rule)
        for chunk in scratch.to_write(of, 2)
        for p in chunk
    ]


def test_the_first_rule_that_gives_one_partner_on_both_sides_wins(
    one: tuple[Scratch, Twin],
) -> None:
    scratch, of = one
    source = [("1", "i1", "a", "Ann"), ("2", "i2", None, "Bob"), ("3", "i3", "c", "Cy")]
    target = [("11", None, "a", "Cy"), ("12", None, "b", "Bob"), ("13", None, "", "Dee")]
    fill(scratch, of, source, target)
    result = matched(scratch, of)
    assert pairs(scratch, of) == [("1", "11", 0), ("2", "12", 1)]
    # 3 has the name of 11, which an earlier rule gave away.
    assert [(g.reason, g.source_keys, g.target_keys) for g in result.ambiguous] == [
        (TAKEN, [3], [11])
    ]
    assert (result.differing, result.differing_by) == (1, {"name": 1})
    assert result.only_target_keys == [13]


def test_duplicates_on_either_side_are_listed_and_take_no_part_in_later_rules(
    one: tuple[Scratch, Twin],
) -> None:
    """T26, T25: 1:n and n:1 are ambiguous, with both sides' keys; nothing is assigned."""
    scratch, of = one
    source = [("1", "i1", "a", "Ann"), ("2", "i2", "b", "Bob"), ("3", "i3", "b", "Bea")]
    target = [("11", None, "a", "Ann"), ("12", None, "a", "Al"), ("13", None, "b", "Bea")]
    fill(scratch, of, source, target)
    result = matched(scratch, of)
    assert pairs(scratch, of) == []
    assert [(g.rule, g.reason, g.source_keys, g.target_keys) for g in result.ambiguous] == [
        ("email", MANY, [1], [11, 12]),
        ("email", MANY, [2, 3], [13]),
    ]


def test_equal_ids_come_first_and_another_id_of_the_target_is_kept(
    one: tuple[Scratch, Twin],
) -> None:
    scratch, of = one
    source = [("1", "i1", "a", "Ann"), ("2", "i2", "b", "Bob")]
    target = [("11", "i1", "x", "Ann"), ("12", "own", "b", "Bob")]
    fill(scratch, of, source, target)
    result = matched(scratch, of)
    assert pairs(scratch, of) == []
    assert result.matched_by == {"the same id": 1}
    assert [g.reason for g in result.ambiguous] == [OTHER]


def test_what_was_undone_or_changed_is_matched_no_more(one: tuple[Scratch, Twin]) -> None:
    """T28, T30: the report says why."""
    scratch, of = one
    source = [("1", "i1", "a", "Ann"), ("2", "i2", "b", "Bob"), ("3", "i3", "c", "Cy")]
    fill(scratch, of, source, [(f"1{row[0]}", None, *row[2:]) for row in source])
    scratch.match(of)
    scratch.undone(of, [("[11]", "i1"), ("[11]", "i2")])
    scratch.changed(of, [2])
    assert pairs(scratch, of) == [("3", "13", 0)]
    assert [g.reason for g in reported(scratch, of).ambiguous] == [UNDONE, CHANGED]


def test_a_childs_key_may_hold_its_parents_match(tmp_path: Path) -> None:
    """Lines number 1 of two users here are those of the same users there, under other keys."""
    users = twin(KEY)
    key = Rule(("email",), ("user_id",))
    orders = twin(key, number=1, parents={"user_id": Parent(0, "id")})
    scratch = Scratch(tmp_path, [users, orders])
    fill(scratch, users, [("1", "u1", "a", "A"), ("2", "u2", "b", "B"), ("3", "u3", "c", "C")],
         [("7", None, "b", "B"), ("8", None, "a", "A"), ("9", None, "z", "Z")])  # fmt: skip
    scratch.match(users)
    fill(scratch, orders,
         [("1", "o1", "n1", "", "1"), ("2", "o2", "n1", "", "2"), ("3", "o3", "n1", "", "3")],
         [("1", None, "n1", "", "7"), ("2", None, "n1", "", "8"), ("3", None, "n1", "", "9"),
          ("4", None, "n1", "", None)])  # fmt: skip
    result = matched(scratch, orders)
    assert pairs(scratch, orders) == [("2", "1", 0), ("1", "2", 0)]
    assert (result.differing, result.only_source_keys, result.only_target_keys) == (0, [3], [3, 4])
    scratch.close()


def test_a_reference_to_another_row_is_a_difference(tmp_path: Path) -> None:
    users, orders = twin(KEY), twin(KEY, number=1, parents={"user_id": Parent(0, "id")})
    scratch = Scratch(tmp_path, [users, orders])
    fill(scratch, users, [("1", "u1", "a", "A"), ("2", "u2", "b", "B")],
         [("1", None, "b", "B"), ("2", None, "a", "A")])  # fmt: skip
    scratch.match(users)
    fill(scratch, orders, [("1", "o1", "x", "", "1"), ("2", "o2", "y", "", "1")],
         [("1", None, "x", "", "2"), ("2", None, "y", "", "1")])  # fmt: skip
    result = matched(scratch, orders)
    assert result.differing_by == {"user_id": 1}
    assert result.differing_keys == [{"source_key": 2, "target_key": 2, "columns": ["user_id"]}]
    scratch.close()
