"""The whole log applied to a target that lost everything: the third use of a log.

The transactions are test_pipeline.py's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.conformance.test_pipeline import CREATE, SYNC_ID, Life
from tests.faults.pipeline import scheme
from tests.faults.replica import replica
from tests.services.database import Database
from tests.services.server import Server

PAIRS = [("mysql", "postgres"), ("postgres", "mysql"), ("postgres", "mariadb")]


@pytest.mark.parametrize("kinds", PAIRS, ids="-to-".join)
def test_a_target_whose_tables_were_dropped_is_rebuilt_from_the_log(
    kinds: tuple[str, str],
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
) -> None:
    """T85: local keys may differ afterwards, foreign keys are right."""
    source, target = (new_database(request.getfixturevalue(kind)) for kind in kinds)
    family = "postgres" if scheme(source) == "postgresql" else "mysql"
    source.execute(CREATE.format(sync_id=SYNC_ID[family]))
    with closing(source.connect()) as connection:
        life = Life(connection.cursor(), int(os.environ["HEADWATER_SEED"]))
        for _ in range(20):
            life.transaction()
        with replica(source.name, source, target) as flow:
            for _ in range(8):
                for _ in range(8):
                    life.transaction()
                flow.catch_up()
            flow.target.drop()
            for name in ("pets", "notes", "people"):
                target.execute(f"drop table {name}")
            flow.target.prepare(flow.source.describe())
            flow.apply()
            report = flow.verify()
            assert (report.verdict, report.differences) == ("valid", [])
            assert sum(table.target_rows for table in report.tables) > 20
