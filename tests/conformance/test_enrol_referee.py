"""First matching where neither database may be altered: pairs in headwater_referee."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ops.compose import opened_target
from ops.enrol.assign import resolve, undo
from ops.enrol.run import both_sides, both_twins
from ops.enrol.scratch import CHANGED, MANY, OTHER, TAKEN
from ops.prepare import prepare_all
from schemas.errors import Misconfigured, SchemaConflict
from tests.acceptance.test_operator_errors import NewDatabase, unchanged
from tests.conformance.test_enrol import everything, matched, started
from tests.faults.pipeline import Pipeline, schema_of, scheme, types
from tests.services.database import Database

ALWAYS = "mysql-postgres"
DIRECTIONS = (ALWAYS, *(pytest.param(f"{kind}-{kind}", marks=pytest.mark.full)
                        for kind in ("mysql", "postgres", "mariadb")),
              pytest.param("postgres-sqlite", marks=pytest.mark.full))  # fmt: skip


@contextmanager
def refereed(source: Database, target: Database, folder: Path) -> Iterator[Pipeline]:
    """Users and orders, which may get no column on either side."""
    with started(source, target, folder) as flow:
        schema = schema_of(source)
        # SQLite's type for it would round.
        without = [f"{schema}.orders.total"] if scheme(target) == "sqlite" else []
        del flow.target_settings["match"][f"{schema}.places"]  # type: ignore[attr-defined]
        flow.target_settings |= {
            "identity": {f"{schema}.*": "referee"},
            "exclude_columns": [f"{schema}.users.touched", *without],
        }
        flow.configure(exclude=[f"{schema}.places"], identity={f"{schema}.*": "primary_key"})
        yield flow


@pytest.fixture(params=DIRECTIONS)
def flow(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    source, target = (
        new_database(request.getfixturevalue(kind)) for kind in request.param.split("-")
    )
    with refereed(source, target, tmp_path) as made:
        yield made


def told(flow: Pipeline, *words: str) -> str:
    """What a command that must go well printed."""
    done = types(flow.folder, *words)
    assert done.exit_code == 0, done.output
    return done.output


def pairs(flow: Pipeline, table: str = "users") -> dict[int, int]:
    """Source key -> local key, of live pairs."""
    name = f"{schema_of(flow.source)}.{table}"
    found = flow.targets["branch"].query(
        "select source_key, local_key from headwater_referee where live = 1 "
        f"and table_name = '{name}'"
    )
    return {int(a): int(b) for a, b in found}


def names(database: Database) -> list[str]:
    """The columns of users."""
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("select * from users")
        return [str(column[0]) for column in cursor.description]


def test_rows_with_one_partner_are_paired_and_nothing_is_added_to_a_table(flow: Pipeline) -> None:
    """T25, T26, T27: report first; nothing ambiguous is paired; a second run finds all done; then
    the stream writes the rows that were there, and no table has a column more.
    """
    source, target = flow.source, flow.targets["branch"]
    before = {(d.name, t): everything(d, t) for d in (source, target) for t in ("users", "orders")}
    columns = names(source), names(target)
    with unchanged(source) if scheme(target) == "sqlite" else unchanged(source, target):
        planned = matched(flow)
    report = matched(flow, apply=True)
    after = {(d.name, t): everything(d, t) for d in (source, target) for t in ("users", "orders")}
    assert after == before
    assert (names(source), names(target)) == columns
    assert report.steps == planned.steps == {"source": [], "target": []}
    assert pairs(flow) == {1: 101, 2: 102, 3: 103}
    assert pairs(flow, "orders") == {1: 52, 2: 51}
    orders, users = sorted(report.tables, key=lambda f: f.table)
    assert (users.assigned, users.matched_by) == (3, {"email": 2, "name + born": 1})
    assert [(g.reason, g.source_keys, g.target_keys) for g in users.ambiguous] == [
        (MANY, [4], [104, 105]),
        (MANY, [5, 6], [106]),
    ]
    differing = {} if scheme(target) == "sqlite" else {"total": 1}
    assert (orders.assigned, orders.differing_by) == (2, differing)
    again = matched(flow, apply=True)
    assert [(f.assigned, f.matched) for f in again.tables] == [
        (0, f.matched) for f in report.tables
    ]
    assert again.tables[0].matched_by == {"the same id": 3}
    prepare_all(flow.config, [flow.name], ["branch"])
    flow.capture()
    flow.run("catch-up", "branch")
    assert flow.verify("branch").count == 0
    here = dict(target.query("select id, name from users"))
    assert [here[key] for key in (101, 102, 103, 107)] == ["Ann", "José", "Bob", "Zoe"]
    assert {1: 101, 2: 102, 3: 103}.items() <= pairs(flow).items()
    assert not {104, 105, 106, 107} & set(pairs(flow).values())
    assert target.query("select user_id, total from orders where id = 53")[0][0] == 107


@pytest.fixture
def one_flow(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    source, target = (new_database(request.getfixturevalue(kind)) for kind in ("postgres", "mysql"))
    with refereed(source, target, tmp_path) as made:
        yield made


def test_pairs_are_made_and_taken_back_by_hand(one_flow: Pipeline) -> None:
    """T26, T28, T30: rows that change meanwhile get no pair; one of many is named; a wrong one is
    taken back, both rows stay, and it is not made again.
    """
    flow, source, target = one_flow, one_flow.source, one_flow.targets["branch"]
    users = f"{schema_of(source)}.users"

    def somebody(what: str, rows: int) -> None:
        if what.startswith("matches") and what.endswith("users"):
            source.execute("update users set email = 'other@x.org' where id = 1")
            target.execute("update users set email = 'new@x.org' where id = 103")

    report = matched(flow, apply=True, said=somebody)
    found = next(f for f in report.tables if f.table == users)
    assert pairs(flow) == {2: 102}
    changed = [(g.source_keys, g.target_keys) for g in found.ambiguous if g.reason == CHANGED]
    assert sorted(changed) == [([1], [101]), ([3], [103])]
    told(flow, "enrol", "assign", "branch", users, "--source-key", "5", "--target-key", "106")
    assert pairs(flow) == {2: 102, 5: 106}
    before = everything(target, "users")
    with both_sides(flow.config, "branch") as both:
        twin = next(t for t in both_twins(flow.config, "branch", both) if t.name == users)
        for here, there in (("6", "106"), ("5", "107"), ("9", "107"), ("6", "9")):
            with pytest.raises(Misconfigured, match=r"partner|found no row"):
                resolve(both, twin, f"[{here}]", f"[{there}]")
        with pytest.raises(Misconfigured, match="cannot mint"):
            undo(both, twin, ["5"], mint=True)
        with pytest.raises(Misconfigured, match="no assignment"):
            undo(both, twin, ["2", "9"], mint=False)
    assert pairs(flow) == {2: 102, 5: 106}, "all of them or none"
    said = told(flow, "enrol", "undo", "branch", users, "2")
    assert f"headwater snapshot {flow.name} {users} --for branch --id 2" in said
    assert everything(target, "users") == before
    matched(flow, apply=True)
    assert 2 not in pairs(flow)
    ended = "select source_key, local_key from headwater_referee where live is null"
    assert target.query(ended) == [(2, 102)]
    unprepared = pytest.raises(Misconfigured, match="with a referee in target")
    with opened_target(flow.config, "branch") as branch, unprepared:
        list(branch.pairs(users))


def test_a_row_that_has_another_pair_keeps_it(one_flow: Pipeline) -> None:
    """A pair whose own row is gone is made anew."""
    flow, target = one_flow, one_flow.targets["branch"]
    matched(flow, apply=True)
    target.execute(
        "update headwater_referee set source_key = 7 where local_key = 101; "
        "update headwater_referee set source_key = 99 where local_key = 102; "
        "update headwater_referee set local_key = 999 where local_key = 103"
    )
    users = next(f for f in matched(flow, apply=True).tables if f.table.endswith("users"))
    assert pairs(flow) == {7: 101, 99: 102, 3: 103}
    left = [(g.reason, g.source_keys, g.target_keys) for g in users.ambiguous]
    assert {(TAKEN, (1,), (101,)), (OTHER, (2,), (102,))} <= {
        (reason, tuple(here), tuple(there)) for reason, here, there in left
    }


def test_tables_that_can_have_no_pairs_are_refused(one_flow: Pipeline) -> None:
    flow = one_flow
    flow.configure(identity={})
    with (
        unchanged(flow.source, flow.targets["branch"]),
        pytest.raises(SchemaConflict, match=r"not identified by a primary key of one column"),
    ):
        matched(flow, apply=True)
