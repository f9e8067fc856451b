"""Runs tests/cases/*.case: SQL in, the exact list of changes out, on every server that it names.

A case begins with `-- servers: mysql mariadb postgres`. Statements above the line `-- stream` run
before the stream begins. A line `-> {JSON}` is one change, with the members op, table, key, before
and after (those left out are null, those of an absent row too); `-> ! words` is an error whose
message has the words. `->` lines follow the statements they result from, in order.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from schemas.errors import Operator
from tests.conformance.sources import MAKERS, Tap
from tests.services.database import Database

CASES = sorted((Path(__file__).parents[1] / "cases").glob("*.case"))


def servers(case: Path) -> list[str]:
    first = case.read_text().splitlines()[0]
    assert first.startswith("-- servers:"), f"{case.name} does not say which servers it is for"
    return first.removeprefix("-- servers:").split()


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """Statements, and the expectations after them."""
    found: list[tuple[list[str], list[str]]] = [([], [])]
    for line in text.splitlines():
        if line.startswith("->"):
            found[-1][1].append(line[2:].strip())
        elif line.strip() and not line.startswith("--"):
            if found[-1][1]:
                found.append(([], []))
            found[-1][0].append(line)
    return [("\n".join(sql), expected) for sql, expected in found]


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for case in CASES for kind in servers(case)],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_a_case_gives_exactly_its_changes(
    case: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind not in MAKERS:
        pytest.fail(f"no source for {kind} in tests/conformance/sources.py")
    database: Database = request.getfixturevalue(f"{kind}_db")
    setup, _, stream = case.read_text().partition("-- stream\n")
    if any(not line.startswith("--") and line.strip() for line in setup.splitlines()):
        database.execute(setup)
    source = MAKERS[kind](database)
    source.prepare()
    with Tap(source) as tap:
        for sql, expected in blocks(stream):
            database.execute(sql)
            if expected and expected[0].startswith("!"):
                with pytest.raises(Operator, match=expected[0][1:].strip()):
                    tap.drain()
                return
            assert [asdict(change) for change in tap.drain()] == [
                {"op": None, "table": None, "key": None, "before": None, "after": None}
                | json.loads(line)
                for line in expected
            ]
    source.drop()
