"""Probabilistic linking without servers: what is likely, for whom, and whatever the rows' order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from ops.config_match import MatchConfig
from ops.enrol import likely as likely_rows
from ops.enrol.findings import Found, found
from ops.enrol.likely import CLOSE, DOUBTFUL, METHODS, Pattern, methods, probabilities
from ops.enrol.scratch import Scratch
from ops.enrol.side import Block, entries
from ops.enrol.twin import Likely, Parent, Rule, Twin
from tests.unit.test_enrol import twin as twin_of

LIKELY = Likely(
    block=["born"],
    compare={"name": "jaro_winkler", "street": "levenshtein"},
    at_least=0.95,
    margin=0.2,
)
Person = tuple[str, str | None, str | None, str]
"""Key, name, street, born."""
Texts = list[str | None]


def _twin(number: int, rules: list[Rule], kept: list[str], parents: Mapping[str, Parent]) -> Twin:
    made = twin_of(*rules, number=number, parents=dict(parents))
    return replace(made, linked=kept, compared=[])


def _add(scratch: Scratch, twin: Twin, role: str, texts: Mapping[str, Texts]) -> None:
    """Rows without ids in the target, keys counted from 1."""
    rows = len(next(iter(texts.values())))
    ids = [f"i{i}" if role == "source" else None for i in range(rows)]
    block = Block([f"[{i}]" for i in range(rows)], ids, texts)
    scratch.add(twin, role, entries(twin, block, Counter()))


def linked(
    folder: Path, source: Sequence[Person], target: Sequence[Person], likely: Likely = LIKELY
) -> Found:
    twin = _twin(0, [Rule(("born",), (), likely)], ["name", "street"], {})
    folder.mkdir(exist_ok=True)
    scratch = Scratch(folder, [twin])
    unreadable: dict[str, Counter[str]] = {"source": Counter(), "target": Counter()}
    for role, rows in (("source", source), ("target", target)):
        keys, names, streets, born = (list(column) for column in zip(*rows, strict=True))
        ids = [f"i{k}" if role == "source" else None for k in keys]
        texts = {"name": names, "street": streets, "born": born}
        block = Block([f'["{k}"]' for k in keys], ids, texts)
        scratch.add(twin, role, entries(twin, block, unreadable[role]))
    scratch.match(twin)
    result = found(scratch, twin, assigned=0, unreadable=unreadable, limit=10_000)
    scratch.close()
    (folder / "enrol.db").unlink()
    return result


def anybody(chance: random.Random, key: str) -> Person:
    def word(letters: int) -> str:
        return "".join(chance.choice("abcdefghijklmnoprstuvw") for _ in range(letters))

    street = f"{word(7)} {chance.randrange(100)}"
    return key, f"{word(6)} {word(8)}", street, f"day {chance.randrange(20)}"


def test_the_same_rows_in_another_order_give_the_same_partners_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likely_rows, "SAMPLE", 50)
    chance = random.Random(11)
    called = ("anna lee", "anne leigh", "hanna li", "bert lehmann", "berta lohmann")
    source = [
        (key, chance.choice(called) if i % 2 else name, street, born)
        for i in range(200)
        for key, name, street, born in [anybody(chance, f"s{i}")]
    ]
    target = [
        (f"t{i}", name and name[1:], street if i % 3 else None, born)
        for i, (_, name, street, born) in enumerate(source[:150])
    ] + [anybody(chance, f"t{i}") for i in range(150, 200)]
    first = linked(tmp_path, source, target)
    for _ in range(3):
        chance.shuffle(source)
        chance.shuffle(target)
        again = linked(tmp_path, source, target)
        assert (again.likely, again.ambiguous) == (first.likely, first.ambiguous)
    pairs = {(p["source_key"][1:], p["target_key"][1:]) for p in first.likely}
    assert {one for one, _ in pairs} == {other for _, other in pairs}
    assert len(first.likely) > 90
    assert first.ambiguous


def test_strangers_are_nobodys_partners(tmp_path: Path) -> None:
    chance = random.Random(12)
    source = [anybody(chance, f"s{i}") for i in range(200)]
    target = [anybody(chance, f"t{i}") for i in range(200)]
    result = linked(tmp_path, source, target)
    assert (result.matched, list(result.ambiguous)) == (0, [])


@pytest.mark.parametrize("swapped", [False, True])
def test_two_that_are_nearly_as_likely_are_both_left(tmp_path: Path, swapped: bool) -> None:
    """T26, on either side; the one who is only likelier than not is named as such."""
    chance = random.Random(13)
    source = [anybody(chance, f"s{i}") for i in range(100)]
    target: list[Person] = [(f"t{row[0]}", *row[1:]) for row in source]
    source += [("one", "margaret hollins", "abbey road 12", "day 1")]
    target += [("two", "margaret hollins", "abbey road 12", "day 1"),
               ("three", "margareth hollins", "abbey road 12", "day 1")]  # fmt: skip
    result = linked(tmp_path, *((target, source) if swapped else (source, target)))
    assert result.matched == 100
    groups = {(*g.source_keys, *g.target_keys): g.reason[8:] for g in result.ambiguous}
    expected = {("one", "two"), ("one", "three")}
    assert groups == {(pair[::-1] if swapped else pair): CLOSE for pair in expected}


def test_what_is_only_likelier_than_not_is_listed_and_not_matched(tmp_path: Path) -> None:
    chance = random.Random(14)
    source = [anybody(chance, f"s{i}") for i in range(60)]
    target: list[Person] = [(f"t{row[0]}", *row[1:]) for row in source]
    # Nothing but a name that is somewhat alike speaks for the last two.
    source.append(("one", "katharina winterfeld", None, "day 1"))
    target.append(("two", "katrin waterfield", None, "day 1"))
    assert linked(tmp_path, source, target).matched == 61
    result = linked(tmp_path, source, target, replace(LIKELY, at_least=0.999))
    assert (result.matched, len(result.ambiguous)) == (60, 1)
    assert result.ambiguous[0].reason[8:] == DOUBTFUL


def test_a_block_may_be_a_parents_match(tmp_path: Path) -> None:
    """Rooms of one house are compared, whatever the house's key is on either side."""
    houses = _twin(0, [Rule(("name",), ())], ["id"], {})
    rule = Rule((), ("house",), replace(LIKELY, block=["house"], compare={"name": "levenshtein"}))
    rooms = _twin(1, [rule], ["house", "name"], {"house": Parent(0, "id")})
    scratch = Scratch(tmp_path, [houses, rooms])
    words = ["kitchen", "workshop", "library", "nursery", "bathroom", "cellar"]
    for role, first in (("source", 1), ("target", 50)):
        keys: Texts = [str(first + i) for i in range(20)]
        names: Texts = [f"house {i}" for i in range(20)]
        _add(scratch, houses, role, {"id": keys, "name": names})
        texts: Texts = [f"{word} {chr(97 + i) * 4}{'s' * (role == 'target' and i % 3)}"
                            for i in range(20) for word in words]  # fmt: skip
        _add(scratch, rooms, role, {"house": [k for k in keys for _ in words], "name": texts})
    for twin in (houses, rooms):
        scratch.match(twin)
    pairs = [(p.source_row, p.target_row) for c in scratch.to_write(rooms, 50) for p in c]
    assert pairs == [(row, row) for row in range(1, 121)]
    scratch.close()


def test_more_alike_is_more_probable_and_no_value_says_nothing() -> None:
    counts: dict[Pattern, int] = {
        (3, 3): 100,
        (2, 3): 10,
        (1, 0): 30,
        (0, 0): 5_000,
        (3, None): 5,
        (None, None): 3,
    }
    score = probabilities(counts, {(0, 0): 10_000, (1, 0): 60}, [4, 4])
    assert score[(3, 3)] >= score[(2, 3)] > score[(1, 0)] >= score[(0, 0)]
    assert score[(3, 3)] > 0.99
    assert score[(0, 0)] < 0.01
    assert score[(0, 0)] < score[(None, None)] < score[(3, None)]


def test_every_method_knows_equal_texts_from_all_others() -> None:
    assert set(methods()) == set(METHODS)
    for name, likeness in methods().items():
        assert likeness("Ann", "Ann") == METHODS[name][-1]
        assert likeness("Ann", "Anne") < METHODS[name][-1]


def test_a_match_needs_a_key_or_something_to_compare() -> None:
    likely = {"block": ["born"], "compare": {"name": "jaro_winkler"}}
    assert MatchConfig.model_validate({"likely": likely, "normalise": {"name": ["lower"]}})
    for wrong in ({}, {"likely": likely | {"block": []}}, {"likely": likely | {"compare": {}}},
                  {"likely": likely | {"at_least": 0.4}}, {"likely": likely | {"margin": 0.6}},
                  {"likely": likely | {"compare": {"name": "soundex"}}}):  # fmt: skip
        with pytest.raises(ValidationError):
            MatchConfig.model_validate(wrong)
