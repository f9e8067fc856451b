"""Every source: what identifies a row, other than a column sync_id."""

from __future__ import annotations

import contextlib

import pytest

from schemas.errors import Misconfigured, Poison
from schemas.selection import Selection
from tests.conformance.sources import MAKERS, Change, Tap, whole
from tests.services.database import Database

PRICES = (
    "create table prices (id int primary key, country varchar(2) not null,"
    " article int not null, price int, unique (country, article))"
)


@pytest.fixture(params=MAKERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> Database:
    made: Database = request.getfixturevalue(f"{server}_db")
    return made


def natural(server: str, database: Database, *names: str) -> Selection:
    schema = "public" if server == "postgres" else database.name
    return Selection(include=[f"{schema}.*"], identity={"*.prices": list(names)})


def test_a_natural_key_of_several_columns_is_the_rows_key(server: str, database: Database) -> None:
    """In chunks and in the stream; a changed one is another row (T5)."""
    database.execute(PRICES)
    database.execute("insert into prices values (1, 'de', 7, 10)")
    source = MAKERS[server](database, selection=natural(server, database, "country", "article"))
    source.prepare()
    with Tap(source) as tap:
        (table,) = source.describe()
        assert table.identity == ("country", "article")
        assert whole(source, table).keys == [b'{"country":"de","article":7}']
        database.execute("update prices set price = 11")
        database.execute("update prices set id = 2")
        database.execute("update prices set article = 8")
        database.execute("delete from prices")
        found = [(change.op, change.key) for change in tap.drain()]
        old, new = {"country": "de", "article": 7}, {"country": "de", "article": 8}
        assert found == [("u", old), ("u", old), ("d", old), ("c", new), ("d", new)]


def test_preflight_judges_a_natural_key(server: str, database: Database) -> None:
    """H106: without a unique index, with a column that may be null, without one of its columns."""
    database.execute(PRICES)
    unique = natural(server, database, "country", "article")
    with contextlib.closing(MAKERS[server](database, selection=unique)) as source:
        source.prepare()
        assert source.check() == []
    for names, problem in (
        (("country", "id", "price"), "null"),
        (("article",), "uni"),
        (("article", "region"), "no column region"),
    ):
        selection = natural(server, database, *names)
        with contextlib.closing(MAKERS[server](database, selection=selection)) as source:
            problems = [f.problem for f in source.check() if f.refused]
            assert [p for p in problems if problem in p.lower()], (names, problems)
            if names[-1] == "region":
                with pytest.raises(Misconfigured, match="region"):
                    source.describe()


def test_a_row_whose_identity_is_null_stops_the_capture(server: str, database: Database) -> None:
    """H106: all such rows would be one row of the log. Nothing of its batch is in the log."""
    database.execute("create table t (id int primary key, sync_id varchar(9) unique)")
    if server == "postgres":
        database.execute("alter table t replica identity full")
    database.execute("insert into t values (1, 'a')")
    source = MAKERS[server](database)
    source.prepare()
    with Tap(source) as tap:
        database.execute("insert into t values (2, 'b')")
        assert tap.drain() == [
            Change("c", "t", {"sync_id": "b"}, None, {"id": 2, "sync_id": "b"}),
        ]
        database.execute("insert into t values (3, null)")
        with pytest.raises(Poison, match="t whose sync_id is null"):
            tap.drain()
        (table,) = tap.source.describe()
        with pytest.raises(Poison, match="t whose sync_id is null"):
            tap.source.chunk(table, None, 10, epoch=1, run=1)
