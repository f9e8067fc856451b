"""From source to target and back: what identifies a row is the same on both sides."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tests.faults.replica import replica
from tests.services.database import Database
from tests.services.server import Server

PAIRS = [
    ("mysql", "postgres"),
    ("postgres", "mariadb"),
    ("mariadb", "mysql"),
    ("postgres", "sqlite"),
]


@pytest.fixture
def pair(
    kinds: tuple[str, str],
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
) -> SimpleNamespace:
    """The databases of a source and a target."""
    source, target = (new_database(request.getfixturevalue(kind)) for kind in kinds)
    return SimpleNamespace(source=source, target=target)


@pytest.mark.parametrize("kinds", PAIRS, ids="-to-".join)
def test_a_natural_key_finds_rows_on_both_sides(
    kinds: tuple[str, str], pair: SimpleNamespace
) -> None:
    """T5, T8: copied, changed under other primary keys, verified and repaired."""
    source, target = pair.source, pair.target
    source.execute(
        "create table prices (id int primary key, country varchar(2) not null,"
        " article decimal(6,2) not null, price int, unique (country, article))"
    )
    for n in range(8):
        source.execute(f"insert into prices values ({n + 1}, 'de', {n}.5, {n})")
    settings = {"identity": {"*.prices": ["country", "article"]}}
    with replica(source.name, source, target, settings) as flow:
        flow.catch_up()
        source.execute("update prices set id = id + 100, price = 100 where article < 3")
        source.execute("update prices set article = 9.25 where article = 7.5")
        source.execute("delete from prices where article = 4.5")
        source.execute("insert into prices values (5, 'fr', 0.5, 1)")
        flow.catch_up()
        report = flow.verify(range_rows=3)
        assert (report.verdict, report.differences) == ("valid", [])
        assert target.query("select count(*), count(distinct id) from prices") == [(8, 8)]
        assert target.query("select country, price from prices where article = 9.25") == [("de", 7)]
        target.execute("update prices set price = -1 where country = 'fr'")
        report = flow.verify(range_rows=3)
        assert [(d.key, d.columns) for d in report.differences] == [
            ('{"country":"fr","article":"0.5"}', ("price",))
        ]
