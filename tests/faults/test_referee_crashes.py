"""An applier that dies between reserving a pair in a third database, writing its row, and
confirming it: one active mapping is left, and no second row.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ops.compose import opened_log
from ops.prepare import prepare_all
from tests.acceptance.test_operator_errors import a_name
from tests.faults.pipeline import Pipeline, Worker, pipeline, schema_of, scheme, until, user_url
from tests.services.database import Database
from tests.services.server import Server

STEPS: tuple[tuple[str, list[str], list[str]], ...] = (
    ("after-reserve", [], ["reserved"] * 2),
    ("after-target-write", [], ["reserved"] * 3),
    ("before-confirm", ["a", "x", "after-reserve", "after-target-write"], ["reserved"] * 4),
)
"""Where it dies, which of its rows are there then, and what its mappings are."""
ALWAYS = ("mysql", "postgres", "mysql")
KINDS = [ALWAYS, *(pytest.param(kinds, marks=pytest.mark.full) for kinds in (
    ("postgres", "mysql", "mariadb"), ("mariadb", "mariadb", "postgres")))]  # fmt: skip
KEY = {"postgresql": "bigserial primary key"}


def make(database: Database) -> None:
    key = KEY.get(scheme(database), "bigint auto_increment primary key")
    database.execute(f"create table users (id {key}, mail varchar(50) unique)")


def mapped(third: Database) -> dict[str, list[tuple[str, int, str]]]:
    """By sync_id, the live mappings."""
    found: dict[str, list[tuple[str, int, str]]] = {}
    for sync_id, *rest in third.query(
        "select sync_id, environment, local_key, state from headwater_shared where live = 1 "
        "order by environment"
    ):
        found.setdefault(sync_id, []).append((rest[0], int(rest[1]), rest[2]))
    return found


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_a_crash_at_any_step_leaves_one_mapping_and_one_row(
    kinds: tuple[str, str, str],
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
    tmp_path: Path,
) -> None:
    """T31: after the reservation, after the row, before the confirmation: one after the other."""
    source, target, third = (new_database(request.getfixturevalue(kind)) for kind in kinds)
    make(source)
    make(target)
    source.execute("insert into users (mail) values ('a'), ('b')")
    target.execute("insert into users (mail) values ('local')")
    name, every = a_name(), f"{schema_of(source)}.*"
    with pipeline(tmp_path, name, source, {"branch": target}, "sqlite") as flow:
        flow.target_settings |= {
            "identity": {every: "referee"},
            "referee": {"url": user_url(third), "environment": "the branch"},
        }
        flow.configure(identity={every: "primary_key"})
        prepare_all(flow.config, [name], ["branch"])
        capture = flow.capture()
        until(lambda: rows_logged(flow, capture) == 2, "the first copy")
        source.execute("update users set mail = 'x' where mail = 'b'")
        until(lambda: rows_logged(flow, capture) == 3, "the change")
        for number, (step, here, states) in enumerate(STEPS):
            worker = flow.apply("branch", fault=f"{step}:1")
            assert worker.wait() == -9, worker.said
            assert mails(target) == sorted([*here, "local"]), step
            assert sorted(states_of(third)) == states, step
            source.execute(f"insert into users (mail) values ('{step}')")
            until(lambda n=number: rows_logged(flow, capture) == 4 + n, "the next row")  # type: ignore[misc]
        assert capture.stop() == 0
        flow.run("apply", "branch", "--once")
        assert mails(target) == sorted(["a", "x", "local", *(step for step, _, _ in STEPS)])
        named = dict(source.query("select id, mail from users"))
        there = dict(target.query("select id, mail from users"))
        found = mapped(third)
        assert len(found) == len(named)
        for one, other in (sorted(m, key=lambda m: m[0] != name) for m in found.values()):
            assert (one[0], other[0], one[2], other[2]) == (name, "the branch", "active", "active")
            assert named[one[1]] == there[other[1]]
        assert target.query("select count(*) from headwater_untold") == [(0,)]
        assert flow.verify("branch").verdict == "valid"


def rows_logged(flow: Pipeline, capture: Worker) -> int:
    """How many rows the log holds."""
    capture.alive()
    with opened_log(flow.config, flow.name) as log:
        return sum(batch.row_count for batch in log.read(None, follow=False) if batch)


def states_of(third: Database) -> list[str]:
    """Of the branch's mappings."""
    of = "select state from headwater_shared where environment = 'the branch' and live = 1"
    return [str(state) for (state,) in third.query(of)]


def mails(target: Database) -> list[str]:
    return sorted(str(mail) for (mail,) in target.query("select mail from users"))
