"""From source to target and back: what identifies a row is the same on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from ops.verify_ranges import Seen, SideRows
from schemas.codec import Wire
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
    rows = ", ".join(f"({n + 1}, 'de', {n}.5, {n})" for n in range(8))
    source.execute(f"insert into prices values {rows}")
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


@pytest.mark.parametrize("kinds", [("mariadb", "postgres"), ("postgres", "mariadb")], ids="-".join)
def test_equal_rows_are_not_read_where_one_side_sorts_uuids_in_another_way(
    kinds: tuple[str, str], pair: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB's uuid sorts by its last digits first: checksums over ranges would never agree."""
    pair.source.execute("create table people (id int primary key, sync_id uuid not null unique)")
    rows = ", ".join(f"({n}, '{n * 7919 % 4096:08x}-0000-4000-8000-{n:012x}')" for n in range(60))
    pair.source.execute(f"insert into people values {rows}")
    looks: list[int] = []
    seen = SideRows._seen

    def look(side: SideRows, found: Sequence[list[Wire]]) -> list[Seen]:
        looks.append(len(found))
        return seen(side, found)

    monkeypatch.setattr(SideRows, "_seen", look)
    with replica(pair.source.name, pair.source, pair.target) as flow:
        flow.chunk_rows = 60
        flow.catch_up()
        assert flow.verify(range_rows=7).verdict == "valid"
    assert looks == []


FORMS = {
    # source's server and form, target's server and form
    "mysql bytes to uuid": ("mysql", "binary(16)", "postgres", "uuid"),
    "mysql bytes to mariadb's uuid": ("mysql", "binary(16)", "mariadb", "uuid"),
    "mariadb bytes to text": ("mariadb", "binary(16)", "mysql", "char(36)"),
    "mysql bytes to sqlite text": ("mysql", "binary(16)", "sqlite", "char(36)"),
    "uuid to mysql bytes": ("postgres", "uuid", "mysql", "binary(16)"),
    "uuid to sqlite bytes": ("postgres", "uuid", "sqlite", "blob"),
    "mariadb's uuid to bytea": ("mariadb", "uuid", "postgres", "bytea"),
    "upper case to uuid": ("mysql", "char(36)", "postgres", "uuid"),
    "upper case to bytes": ("postgres", "varchar(36)", "mariadb", "varbinary(16)"),
    "bytea to uuid": ("postgres", "bytea", "postgres", "uuid"),
    "numbers to decimals": ("mysql", "bigint unsigned", "postgres", "numeric(20,0)"),
}


def spelled(server: str, form: str, n: int) -> str:
    """The n-th identity as SQL: its bytes end in zeros, which fixed lengths must keep."""
    uuid = f"{n:08x}-aBcD-4EF0-8000-{n % 3:012x}"
    digits = uuid.replace("-", "")
    if form in ("binary(16)", "varbinary(16)", "blob"):
        return f"x'{digits}'"
    if form == "bytea":
        return f"'\\x{digits}'"
    if form.startswith(("bigint", "numeric")):
        return str((1 << 63) + n)
    return f"'{uuid.lower() if form == 'uuid' else uuid.upper()}'"


@pytest.mark.parametrize("named", FORMS)
def test_one_identity_in_two_forms_is_the_same_row(
    named: str,
    request: pytest.FixtureRequest,
    new_database: Callable[[Server], Database],
) -> None:
    """T1, T5, T13, T66: rows that both sides have already, under other keys and in another form."""
    theirs, form, mine, other = FORMS[named]
    source, target = (new_database(request.getfixturevalue(kind)) for kind in (theirs, mine))
    serial = {"postgres": "serial primary key", "sqlite": "integer primary key"}.get(
        mine, "int auto_increment primary key"
    )
    for database, key, type_ in ((source, "int primary key", form), (target, serial, other)):
        database.execute(
            f"create table people (id {key}, sync_id {type_} not null unique, name varchar(20))"
        )
        database.execute(
            f"create table pets (id {key}, sync_id {type_} not null unique, owner int,"
            " name varchar(20), foreign key (owner) references people (id))"
        )
    # Row 7 of the source is row 1 of the target, where texts are in lower case.
    seven = spelled(mine, other, 7).lower()
    target.execute(f"insert into people (sync_id, name) values ({seven}, 'here')")
    people = (f"({n}, {spelled(theirs, form, n)}, 'p{n}')" for n in range(1, 9))
    pets = (f"({n}, {spelled(theirs, form, n + 100)}, {9 - n}, 'q{n}')" for n in range(1, 9))
    source.execute(f"insert into people values {', '.join(people)}")
    source.execute(f"insert into pets values {', '.join(pets)}")
    with replica(source.name, source, target) as flow:
        flow.catch_up()
        owned = (
            "select p.id, q.name from people p join pets q on q.owner = p.id where p.name = 'p7'"
        )
        assert target.query(owned) == [(1, "q2")]
        source.execute("update people set name = 'seven' where id = 7")
        source.execute("delete from pets where id = 2")
        source.execute("delete from people where id = 7")
        source.execute(f"insert into people values (7, {spelled(theirs, form, 70)}, 'new')")
        source.execute(f"insert into pets values (2, {spelled(theirs, form, 102)}, 7, 'again')")
        source.execute("update pets set owner = 3 where id = 8")
        source.execute(f"update people set sync_id = {spelled(theirs, form, 50)} where id = 5")
        flow.catch_up()
        report = flow.verify(range_rows=3)
        assert (report.verdict, report.differences) == ("valid", [])
        assert target.query("select name from people where id = 1") == []
        target.execute("update pets set owner = null where name = 'again'")
        target.execute("update people set name = 'x' where name = 'p2'")
        report = flow.verify(range_rows=3)
        assert sorted(d.columns for d in report.differences) == [("name",), ("owner",)]
