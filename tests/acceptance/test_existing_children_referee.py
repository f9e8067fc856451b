"""The same children where no table may be altered: not one has a column of ours on any side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tomlkit

from tests.acceptance.family import Own
from tests.acceptance.test_existing_children import (
    KINDS,
    are_equal_in_the_end,
    columns_of,
    family,
)
from tests.acceptance.test_operator_errors import NewDatabase
from tests.faults.pipeline import Pipeline


def with_referees(flow: Pipeline) -> None:
    """Every table's rows are found by pairs in each child."""
    path = flow.folder / "headwater.toml"
    document = tomlkit.parse(path.read_text())
    for name in flow.targets:
        document["targets"][name]["identity"] = {"*": "referee"}
    path.write_text(tomlkit.dumps(document))


@pytest.mark.parametrize(
    ("kind", "seconds", "children"),
    [
        ("mysql", 3.0, ["postgres", "mariadb"]),
        *(pytest.param(kind, 60.0, KINDS, marks=pytest.mark.full) for kind in KINDS),
    ],
)
def test_children_that_existed_are_equal_and_nothing_is_added_anywhere(
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
    kind: str,
    seconds: float,
    children: Sequence[str],
) -> None:
    of = {"*": "primary_key"}
    with family(request, new_database, tmp_path, kind, of, children) as flow:
        with_referees(flow)
        databases = [flow.source, *flow.targets.values()]
        before = [columns_of(database) for database in databases]
        are_equal_in_the_end(flow, seconds, Own("id", is_paired=True))
        assert [columns_of(database) for database in databases] == before
