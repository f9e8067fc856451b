"""Rows that no key matches, and that are probably the same, on real servers."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.enrol import likely
from ops.enrol.assign import resolve, undo
from ops.enrol.findings import Found
from ops.enrol.likely import CLOSE, DECIDED
from ops.enrol.run import Said, both_sides, both_twins, enrol
from ops.enrol.scratch import CHANGED, UNDONE
from schemas.errors import Misconfigured
from tests.acceptance.test_operator_errors import NewDatabase, a_name, unchanged
from tests.conformance.test_enrol import KEY
from tests.faults.pipeline import Pipeline, pipeline, schema_of, scheme

MATCH = {
    "keys": [["email"]],
    "normalise": {"name": ["lower"]},
    "likely": {
        "block": ["born"],
        "compare": {"name": "jaro_winkler", "street": "levenshtein"},
        "at_least": 0.95,
    },
}
Row = tuple[int, str | None, str | None, str | None, str]
FIRST = ("Alma", "Boris", "Clara", "Dimitri", "Esther", "Fergus", "Gudrun", "Hamid", "Ivonne")
LAST = ("Okonkwo", "Petersen", "Quintana", "Rasmussen", "Szymanski", "Thorvald", "Underwood")
STREETS = ("Mill Lane", "Harbour Street", "Orchard Road", "Station Square", "Castle Hill")


def people() -> tuple[list[Row], list[Row]]:
    """Sixty on both sides, every other one spelt otherwise there, then some of one side only."""
    chance = random.Random(7)
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    here: list[Row] = []
    there: list[Row] = []
    for i, name in enumerate(chance.sample(names, 60), start=1):
        street, day = f"{chance.choice(STREETS)} {i}", f"1970-01-{1 + i % 12:02}"
        here.append((i, None, name, street, day))
        if i % 2:
            name = (name[:4] + name[5:]).upper()
        if i % 5 == 0:
            street = street.replace("a", "e", 1)
        there.append((100 + i, None, name, street, day))
    # Found by e-mail, under another name; whoever looks like one of them gets no partner by that.
    here += [(71, "zed@x.org", "Ottilie Hume", "Far Field 8", "1970-01-01"),
             (72, None, "Zoltan Mossberg", "Elm Row 1", "1970-01-01")]  # fmt: skip
    there.append((171, "zed@x.org", "Zoltan Mossberg", "Elm Row 1", "1970-01-01"))
    # Two of one name at one place there: nobody can know.
    here.append((73, None, "Yara Yilmaz", "Oak Way 3", "1970-01-02"))
    there += [(172, None, "Yara Yilmaz", "Oak Way 3", "1970-01-02"),
              (173, None, "YARA YILMAZ", "Oak Way 3", "1970-01-02")]  # fmt: skip
    # Nobody there is like her; and he is on another day, so never compared.
    here.append((74, None, "Xenia Xu", "Lime Quay 9", "1970-01-03"))
    here.append((75, None, "Walt Witt", "Fir End 7", "1970-01-04"))
    there.append((175, None, "Walt Witt", "Fir End 7", "1970-02-04"))
    return here, there


SAME = {str(100 + i): str(i) for i in range(1, 61)}


@pytest.fixture(params=["postgres-mysql", pytest.param("mysql-postgres", marks=pytest.mark.full)])
def flow(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    source, target = (
        new_database(request.getfixturevalue(kind)) for kind in request.param.split("-")
    )
    for database, rows in zip((source, target), people(), strict=True):
        database.execute(
            f"create table people (id {KEY[scheme(database)]}, email varchar(80), "
            "name varchar(50), street varchar(50), born date)"
        )
        marks = ", ".join(["(%s, %s, %s, %s, %s)"] * len(rows))
        database.execute(f"insert into people values {marks}", *(v for row in rows for v in row))
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as made:
        made.target_settings["match"] = {f"{schema_of(source)}.people": MATCH}
        made.configure()
        yield made


def matched(flow: Pipeline, *, apply: bool, said: Said = lambda what, rows: None) -> Found:
    (found,) = enrol(flow.config, flow.name, "branch", apply=apply, said=said).tables
    return found


def partners(flow: Pipeline) -> dict[str, str]:
    """Source rows by the target rows that have their ids."""
    read = "select id, sync_id from people where sync_id is not null"
    here = {str(identity): str(key) for key, identity in flow.source.query(read)}
    there = flow.targets["branch"].query(read)
    return {str(key): here[str(identity)] for key, identity in there}


def test_likely_rows_get_one_id_and_what_is_in_doubt_gets_none(flow: Pipeline) -> None:
    """T25, T26, T30: scores first, then ids; a tie is for a person, who may also take back."""
    source, target = flow.source, flow.targets["branch"]
    with unchanged(source, target):
        planned = matched(flow, apply=False)
    report = matched(flow, apply=True)
    assert partners(flow) == SAME | {"171": "71"}
    rule = "likely (born; name, street)"
    assert report.matched_by == {"email": 1, rule: 60}
    assert [p["score"] for p in report.likely] == sorted(p["score"] for p in report.likely)
    assert {(str(p["target_key"]), str(p["source_key"])) for p in report.likely} == set(
        SAME.items()
    )
    assert all(0.95 <= p["score"] <= 1 for p in report.likely)
    reasons = {(g.source_keys[0], g.target_keys[0]): g.reason for g in report.ambiguous}
    assert {pair: reason[8:] for pair, reason in reasons.items()} == {
        (72, 171): DECIDED,
        (73, 172): CLOSE,
        (73, 173): CLOSE,
    }
    assert all(re.match(r"[01]\.\d{4}: ", reason) for reason in reasons.values())
    assert (report.only_source_keys, report.only_target_keys) == ([74, 75], [175])
    assert (planned.likely, planned.ambiguous) == (report.likely, report.ambiguous)
    kept = target.query("select rule from headwater_enrolled where local_key = '[101]'")
    assert re.fullmatch(re.escape(rule) + r": [01]\.\d{4}", kept[0][0])
    # A second run changes nothing; a match that was taken back is not made again; one by hand is.
    assert (matched(flow, apply=True).assigned, partners(flow)) == (0, SAME | {"171": "71"})
    ((identity,),) = target.query("select sync_id from people where id = 101")
    with both_sides(flow.config, "branch") as both:
        (twin,) = both_twins(flow.config, "branch", both)
        undo(both, twin, [str(identity)], mint=False)
        again = matched(flow, apply=True)
        assert [g.source_keys for g in again.ambiguous if g.reason == UNDONE] == [[1]]
        resolve(both, twin, "[73]", "[173]")
    still = {there: here for there, here in SAME.items() if there != "101"}
    assert partners(flow) == still | {"171": "71", "173": "73"}


@pytest.mark.parametrize("flow", ["postgres-mysql"], indirect=True)
def test_what_was_compared_and_changes_meanwhile_leaves_no_match(flow: Pipeline) -> None:
    """T28: a name at the source, a street in the target, a block."""
    source, target = flow.source, flow.targets["branch"]

    def somebody(what: str, rows: int) -> None:
        if what.startswith("matches"):
            source.execute("update people set name = 'Somebody Else' where id = 1")
            target.execute("update people set street = null where id = 102")
            target.execute("update people set born = '2000-01-01' where id = 103")

    report = matched(flow, apply=True, said=somebody)
    assert partners(flow) == {k: v for k, v in SAME.items() if int(v) > 3} | {"171": "71"}
    changed = [g.source_keys for g in report.ambiguous if g.reason == CHANGED]
    assert sorted(changed) == [[1], [2], [3]]


@pytest.mark.parametrize("flow", ["postgres-mysql"], indirect=True)
def test_what_cannot_be_linked_is_refused_with_what_to_do(
    flow: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = flow.source, flow.targets["branch"]
    with unchanged(source, target), monkeypatch.context() as without:
        without.setitem(sys.modules, "rapidfuzz.distance", None)
        with pytest.raises(Misconfigured, match="RapidFuzz") as raised:
            matched(flow, apply=True)
    assert raised.value.hint == "pip install 'headwater[linking]'"
    with unchanged(source, target), monkeypatch.context() as small:
        small.setattr(likely, "MOST_PAIRS", 100)
        with pytest.raises(Misconfigured, match=r"found 3\d\d pairs .* same born, \d+ of them"):
            matched(flow, apply=False)
    by_id = {"compare": {"name": "exact", "id": "exact"}}
    for wrong, words in (
        ({"block": ["birth"]}, "no column birth"),
        (by_id, "differ from database to database"),
    ):
        settings = MATCH | {"likely": MATCH["likely"] | wrong}  # type: ignore[operator]
        flow.target_settings["match"] = {"public.people": settings}
        flow.configure()
        with unchanged(source, target), pytest.raises(Misconfigured, match=words):
            matched(flow, apply=True)
