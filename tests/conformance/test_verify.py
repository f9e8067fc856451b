"""`verify` on real servers: equal sides are equal, and every planted difference is found.

Sides are brought together by the real capture and apply, in this process and over a log in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from ops.verify_report import Report
from tests.faults.pipeline import scheme
from tests.faults.replica import Replica, replica
from tests.services.database import Database
from tests.services.server import Server

PAIRS = [
    ("postgres", "postgres"),
    ("postgres", "mysql"),
    ("mysql", "mariadb"),
    ("mariadb", "postgres"),
    ("postgres", "sqlite"),
    ("mysql", "sqlite"),
]

POSTGRES = """
create table people (id bigserial primary key, sync_id uuid not null unique, name text,
  photo bytea, ratio double precision, amount numeric(12,4), facts jsonb, seen_at timestamptz(6),
  secret text);
create table pets (id bigserial primary key, sync_id uuid not null unique,
  owner bigint references people (id), chief bigint references pets (id));
"""
MYSQL = """
create table people (id bigint auto_increment primary key, sync_id char(36) not null unique,
  name varchar(100), photo blob, ratio double, amount decimal(12,4), facts json,
  seen_at timestamp(6) null, secret text);
create table pets (id bigint auto_increment primary key, sync_id char(36) not null unique,
  owner bigint, chief bigint, foreign key (owner) references people (id),
  foreign key (chief) references pets (id));
"""


def key(number: int) -> str:
    """Far enough apart for others between them."""
    return str(UUID(int=number << 8))


def named(number: int) -> str:
    """An identity as reports show it."""
    return f'{{"sync_id":"{key(number)}"}}'


@dataclass
class Sides:
    source: Database
    target: Database
    flow: Replica

    def found(self) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """What a comparison finds: table without schema, identity, kind, columns."""
        return [
            (d.table.rpartition(".")[2], d.key, d.kind, d.columns)
            for d in self.verify().differences
        ]

    def verify(self) -> Report:
        return self.flow.verify()


def fill(source: Database, *, negative_zero: bool) -> None:
    """Twenty people and their pets, two without an owner; primary keys unlike the target's.

    negative_zero: one ratio is -0, which MariaDB and SQLite cannot hold: they store 0.
    """
    source.execute(POSTGRES if scheme(source) == "postgresql" else MYSQL)
    is_postgres = scheme(source) == "postgresql"
    photo = "'\\x00ff10'::bytea" if is_postgres else "x'00ff10'"
    for n in range(1, 21):
        name = "null" if n == 7 else "''" if n == 8 else f"'Ann {n}'"
        zero = ("'-0'::float8" if is_postgres else "-0e0") if negative_zero else "1"
        ratio = zero if n == 9 else n / 8
        source.execute(
            f"insert into people (id, sync_id, name, photo, ratio, amount, facts, seen_at, secret)"
            f" values ({n * 100}, '{key(n)}', {name}, {photo}, {ratio},"
            f""" {n}.50, '{{"b": [1.0, {n}], "a": null}}', '2026-11-22 12:34:56.7', 's')"""
        )
    for n in range(1, 11):
        owner, chief = (n * 100 if n > 2 else "null"), (900 + n - 1 if n > 5 else "null")
        source.execute(f"insert into pets values ({900 + n}, '{key(100 + n)}', {owner}, {chief})")


@pytest.fixture(params=PAIRS, ids="-to-".join)
def sides(
    request: pytest.FixtureRequest, new_database: Callable[[Server], Database]
) -> Iterator[Sides]:
    """A source with rows of many kinds and references, and a target that caught up with it."""
    source, target = (new_database(request.getfixturevalue(name)) for name in request.param)
    fill(source, negative_zero={"mariadb", "sqlite"}.isdisjoint(request.param))
    with replica(source.name, source, target, exclude_columns=["*.people.secret"]) as flow:
        flow.catch_up()
        yield Sides(source, target, flow)


def test_sides_with_other_keys_and_fewer_columns_are_equal(sides: Sides) -> None:
    """T71: excluded columns and translated references make no differences; T10: nor local rows."""
    if scheme(sides.target) == "postgresql":
        sides.target.execute("alter table people alter sync_id drop not null")
    elif scheme(sides.target) != "sqlite":
        sides.target.execute("alter table people modify sync_id char(36) null")
    if scheme(sides.target) != "sqlite":  # It never changes a column: NOT NULL stays.
        sides.target.execute("insert into people (name) values ('of this database alone')")
    report = sides.verify()
    assert (report.verdict, report.count) == ("valid", 0)
    people, pets = (t for t in report.tables if t.table.endswith(("people", "pets")))
    assert (people.source_rows, people.target_rows, pets.target_rows) == (20, 20, 10)
    assert set(people.left_out) == {"id", "secret"}
    assert pets.left_out == ("id",)


def test_every_planted_difference_is_found_in_its_row_and_column(sides: Sides) -> None:
    """T66: a byte, a missing row, one too many, NULL and '', -0 and 0, a reference."""
    is_postgres = scheme(sides.target) == "postgresql"
    photo = "'\\x00fe10'::bytea" if is_postgres else "x'00fe10'"
    plant = sides.target.execute
    plant(f"update people set photo = {photo} where sync_id = '{key(1)}'")
    plant(f"update people set amount = 2.5001 where sync_id = '{key(2)}'")
    plant(f"update people set name = '' where sync_id = '{key(7)}'")
    plant(f"update people set name = null where sync_id = '{key(8)}'")
    plant(f"update people set ratio = 0 where sync_id = '{key(9)}'")
    plant(f"update people set name = 'ann 10' where sync_id = '{key(10)}'")
    plant(f"delete from people where sync_id = '{key(20)}'")
    plant(f"insert into people (sync_id) values ('{key(21)}')")
    other = f"(select id from (select id from people where sync_id = '{key(3)}') p)"
    plant(f"update pets set owner = {other} where sync_id = '{key(104)}'")
    plant(f"update pets set chief = null where sync_id = '{key(107)}'")
    assert sides.found() == [
        ("people", named(1), "different", ("photo",)),
        ("people", named(2), "different", ("amount",)),
        ("people", named(7), "different", ("name",)),
        ("people", named(8), "different", ("name",)),
        ("people", named(9), "different", ("ratio",)),
        ("people", named(10), "different", ("name",)),
        ("people", named(20), "missing", ()),
        ("people", named(21), "extra", ()),
        ("pets", named(104), "different", ("owner",)),
        ("pets", named(107), "different", ("chief",)),
    ]


def test_a_target_that_lags_is_behind_and_then_equal(sides: Sides) -> None:
    """T68: never different; and what arrives while the comparison waits settles."""
    sides.source.execute(f"update people set name = 'late' where sync_id = '{key(4)}'")
    sides.source.execute(f"delete from pets where sync_id = '{key(101)}'")
    behind = sides.flow.verify(moving=False)
    assert (behind.verdict, behind.count, behind.exit_code) == ("unknown", 0, 3)
    assert sides.verify().verdict == "valid"


def test_a_uuid_has_one_spelling_where_the_target_keeps_it_as_one(
    mysql: Server, postgres: Server, new_database: Callable[[Server], Database]
) -> None:
    """MySQL's char(36) in upper case against PostgreSQL's uuid, references to it included."""
    source, target = new_database(mysql), new_database(postgres)
    source.execute(MYSQL)
    upper, other = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12"
    source.execute(f"insert into people (id, sync_id, name) values (7, '{upper}', 'A')")
    source.execute(f"insert into pets (id, sync_id, owner) values (7, '{other}', 7)")
    target.execute(POSTGRES)
    with replica(source.name, source, target, exclude_columns=["*.secret"]) as flow:
        flow.catch_up()
        report = flow.verify()
        assert (report.verdict, report.differences) == ("valid", [])
        target.execute("update pets set owner = null")
        assert [(d.kind, d.columns) for d in flow.verify().differences] == [
            ("different", ("owner",))
        ]


BEHIND_SIX = str(UUID(int=(6 << 8) + 1))


class Killed(Exception):
    """The end of a pass, in a test that has one process."""


def test_a_pass_that_was_killed_goes_on_and_leaves_no_range_out(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T70: also not the row that stands behind one that only the target has, where it died."""
    monkeypatch.setattr("ops.verify_progress.SAVE_S", 0.0)
    seen: list[int] = []

    def see(table: str, rows: int) -> None:
        seen.append(rows)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        sides.flow.verify(range_rows=3, seen=see)
    assert seen == [3, 3]
    sides.target.execute(f"insert into people (sync_id) values ('{BEHIND_SIX}')")
    sides.target.execute(f"update people set amount = 0 where sync_id = '{key(7)}'")
    seen.clear()
    report = sides.flow.verify(range_rows=3, seen=lambda table, rows: seen.append(rows))
    people = next(t for t in report.tables if t.table.endswith("people"))
    assert [(d.key, d.kind) for d in people.differences] == [
        (f'{{"sync_id":"{BEHIND_SIX}"}}', "extra"),
        (named(7), "different"),
    ]
    assert (people.source_rows, people.target_rows) == (20, 21)
    assert sum(seen) == 14 + 10, "what was compared is not compared again"


def test_what_verify_found_stays_in_the_target(sides: Sides) -> None:
    valid = sides.verify()
    name = f"{sides.flow.source.describe()[0].schema}.people"
    held = {v.table_name: v for v in sides.flow.target.verified()}[name]
    assert (held.verdict, held.position, held.progress) == ("valid", valid.position, None)
    sides.target.execute(f"update people set amount = 0 where sync_id = '{key(1)}'")
    sides.verify()
    kept = {v.table_name: v for v in sides.flow.target.verified()}[name]
    assert (kept.verdict, kept.differences) == ("invalid", 1)
    assert (kept.position, kept.held_at) == (held.position, held.held_at), "when it last held"


def test_repair_goes_through_the_pipeline_and_leaves_the_pass_unclean(sides: Sides) -> None:
    """The next pass is the clean one. Here a change at the source sends each row again."""
    plant = sides.target.execute
    plant(f"update people set amount = 0 where sync_id = '{key(1)}'")
    plant(f"update pets set owner = null where sync_id = '{key(104)}'")
    asked: dict[str, list[str]] = {}

    def send(keys: dict[str, list[str]]) -> int:
        asked.update({name.rpartition(".")[2]: listed for name, listed in keys.items()})
        sides.source.execute(f"update people set secret = 'again' where sync_id = '{key(1)}'")
        sides.source.execute(f"update pets set chief = id where sync_id = '{key(104)}'")
        sides.flow.catch_up()
        return 0

    report = sides.flow.verify(repair=send)
    assert asked == {"people": [named(1)], "pets": [named(104)]}
    assert (report.verdict, report.count, report.repaired, report.exit_code) == ("invalid", 2, 2, 1)
    assert sides.verify().verdict == "valid"


@pytest.mark.parametrize("kind", ["postgres", "mysql", "mariadb"])
def test_identities_that_servers_sort_differently_are_compared_all_the_same(
    kind: str, request: pytest.FixtureRequest, new_database: Callable[[Server], Database]
) -> None:
    """Text in two cases and with accents, and keys of two columns: one range, read in pages."""
    server = request.getfixturevalue(kind)
    source, target = new_database(server), new_database(request.getfixturevalue("postgres"))
    for made in (source, target):
        made.execute(
            "create table labels (code varchar(20) primary key, n int);"
            "create table places (a varchar(20), b int, n int, primary key (a, b))"
        )
    codes = ["a", "Z", "b", "ö", "zebra", "Zoo", "10", "9", "", "-", "_x", "é", "f"]
    for n, code in enumerate(codes):
        source.execute(f"insert into labels values ('{code}', {n})")
        source.execute(f"insert into places values ('{code}', {n % 3}, {n})")
    by_key = {"identity": {"*": "primary_key"}}
    with replica(source.name, source, target, by_key, primary_keys="copy") as f:
        f.catch_up()
        assert f.verify(range_rows=2).verdict == "valid"
        target.execute("update labels set n = -1 where code = 'Zoo'")
        target.execute("delete from places where a = 'b'")
        target.execute("insert into places values ('b', 7, 0)")
        found = [(d.key, d.kind) for d in f.verify(range_rows=2).differences]
        assert found == [
            ('{"code":"Zoo"}', "different"),
            ('{"a":"b","b":2}', "missing"),
            ('{"a":"b","b":7}', "extra"),
        ]
