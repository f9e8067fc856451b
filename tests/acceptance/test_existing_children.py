"""An authority and three children that existed before anybody thought of syncing them: enrolled,
brought up, and equal through their exceptions while the authority is written to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import tomlkit

from ops.compose import opened_log
from tests.acceptance.family import DECLARED, MATCH, TABLES, Own, Writer, fill, make, own_rows
from tests.acceptance.test_operator_errors import NewDatabase, a_name
from tests.faults.pipeline import (
    Pipeline,
    Worker,
    pipeline,
    schema_of,
    scheme,
    types,
    until,
    user_url,
)
from tests.services.database import Database

KINDS = ("postgres", "mysql", "mariadb")
IDS = Own("sync_id")


DERIVED: Mapping[str, Any] = {
    "order_lines": ["order_id", "line"],
    "profiles": "user_id",
    "categories": "name",
    "*": "primary_key",
}
"""Of what the authority's identities are computed, where it has no column for them."""


@contextmanager
def family(
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
    kind: str,
    identity: Mapping[str, Any],
    children: Sequence[str] = KINDS,
) -> Iterator[Pipeline]:
    """The authority of that kind, and children of these kinds, filled; nothing is enrolled yet."""
    rng = random.Random(7)
    source = new_database(request.getfixturevalue(kind))
    targets = {f"at_{k}": new_database(request.getfixturevalue(k)) for k in children}
    for number, database in enumerate([source, *targets.values()]):
        make(database)
        fill(database, rng, 1.0 if database is source else 0.6, 1500 * number)
        if database is not source:
            own_rows(database)
    with pipeline(tmp_path, a_name(), source, targets, "sqlite") as flow:
        flow.configure(
            **({} if kind != "postgres" else {"slot": a_name(), "publication": a_name()}),
            **({"identity": identity} if identity else {}),
        )
        with_exceptions(flow)
        yield flow


def with_exceptions(flow: Pipeline) -> None:
    """Each child has some of its own: an own column, a filter, both."""
    path, schema = flow.folder / "headwater.toml", schema_of(flow.source)
    document = tomlkit.parse(path.read_text())
    if scheme(flow.source) != "postgresql":
        document["sources"][flow.name]["cascades"] = "carry"
    owns = {f"{schema}.products": {"own": ["price"]}}
    filters = {f"{schema}.addresses": {"where": "street not like '%3'"}}
    every: Mapping[str, Mapping[str, Any]] = {
        "at_postgres": owns | filters,
        "at_mysql": owns,
        "at_mariadb": filters,
    }
    for name in flow.targets:
        document["targets"][name]["exceptions"] = every[name]
        document["targets"][name]["match"] = {f"{schema}.{t}": m for t, m in MATCH.items()}
        document["targets"][name]["references"] = {
            f"{schema}.{where}": _in_schema(of, schema) for where, of in DECLARED.items()
        }
        document["targets"][name]["url"] = user_url(flow.targets[name])
    path.write_text(tomlkit.dumps(document))


def _in_schema(declared: Mapping[str, Any], schema: str) -> Mapping[str, Any]:
    return {
        word: {value: f"{schema}.{to}" for value, to in of.items()} if word in ("to", "at") else of
        for word, of in declared.items()
    }


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("mysql", 8.0), *(pytest.param(kind, 60.0, marks=pytest.mark.full) for kind in KINDS)],
)
def test_children_that_existed_are_equal_through_their_exceptions(
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
    kind: str,
    seconds: float,
) -> None:
    with family(request, new_database, tmp_path, kind, {}) as flow:
        are_equal_in_the_end(flow, seconds)


@pytest.mark.parametrize(
    ("kind", "seconds", "children"),
    [
        ("postgres", 3.0, ["mysql"]),
        *(pytest.param(kind, 60.0, KINDS, marks=pytest.mark.full) for kind in KINDS),
    ],
)
def test_children_of_an_authority_that_may_not_be_altered_are_equal(
    request: pytest.FixtureRequest,
    new_database: NewDatabase,
    tmp_path: Path,
    kind: str,
    seconds: float,
    children: Sequence[str],
) -> None:
    """The same with identities that are derived: nothing is added to the authority's tables."""
    identity = {f"*.{table}": {"derived": of} for table, of in DERIVED.items()}
    with family(request, new_database, tmp_path, kind, identity, children) as flow:
        before = columns_of(flow.source)
        are_equal_in_the_end(flow, seconds)
        assert columns_of(flow.source) == before


def columns_of(database: Database) -> list[tuple[Any, ...]]:
    """The columns of the twelve tables."""
    tables = ", ".join(f"'{table}'" for table in TABLES)
    return database.query(
        "select table_name, column_name, column_default from information_schema.columns "
        f"where table_name in ({tables}) and table_schema = '{schema_of(database)}' order by 1, 2"
    )


def are_equal_in_the_end(flow: Pipeline, seconds: float, own: Own = IDS) -> None:
    """Enrol, bring up, write for so long, and compare."""
    for name in flow.targets:
        assert told(flow, "enrol", flow.name, name, "--apply", "--json")["applied"], name
    before = {name: own.rows(child) for name, child in flow.targets.items()}
    assert all(len(rows["users"]) >= 2 for rows in before.values())
    running = flow.start("run")
    # What is deleted before the capture begins is in no log.
    until(lambda: has_begun(flow, running), "the capture's beginning")
    with closing(Writer(flow.source, seed=5)) as writer:
        end = monotonic() + seconds
        while monotonic() < end:
            writer.change()
            running.alive()
        assert writer.done > 50
    for name, child in flow.targets.items():
        wrong = unexplained(flow, name, own)
        assert not wrong, f"{name}:\n" + "\n".join(wrong)
        assert own.rows(child) == before[name], name
    assert running.stop() == 0


def has_begun(flow: Pipeline, running: Worker) -> bool:
    running.alive()
    with opened_log(flow.config, flow.name) as log:
        return log.span() is not None


def unexplained(flow: Pipeline, name: str, own: Own) -> list[str]:
    """What verify finds, or is parked, for no reason of the child's own: a row that is gone from
    the authority stays, parked, as long as rows that only the child has reference it.
    """
    report = told(flow, "verify", name, "--once", "--values", "--timeout", "120", "--json")
    parked = told(flow, "parked", "list", name, "--json")["parked"]
    kept, found = set(), []
    for change in parked:
        table = change["table_name"].partition(".")[2]
        key = change["row_key"][own.key]
        by = own.holders(flow.targets[name], table, key)
        if change["reason"] == "referenced" and any(is_local for _, is_local in by):
            kept.add((change["table_name"], key))
        else:
            found.append(f"{table} {key} is parked: {change['problem']}; held by {by}")
    for table in report["tables"]:
        found += [
            f"{d['table']} {d['key']} is {d['kind']}: {d['columns']} {d['values']}"
            for d in table["differences"]
            if (d["table"], json.loads(d["key"])[own.key]) not in kept or d["kind"] != "extra"
        ]
        if table["verdict"] == "unknown":
            found.append(f"{table['table']} is unknown")
    return found


def told(flow: Pipeline, *words: str) -> Any:
    """The JSON that a command prints, whatever it ends with; without a process of its own."""
    done = types(flow.folder, *words)
    assert done.stdout, done.output
    return json.loads(done.stdout.splitlines()[-1])
