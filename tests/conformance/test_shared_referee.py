"""A referee in a third database: what two targets of one source map there, and how it heals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apply.opened import opened
from apply.target import Placement, SharedAt, Target
from tests.conformance.targets import SOURCE, Change, Stream, c, column, d, deliver, t, u
from tests.conformance.test_target_referee import bare
from tests.services.database import Database
from tests.services.server import Server

USERS = bare("users", column("mail"))
ALWAYS = ("sqlite", "postgres")
THIRDS = (ALWAYS, *(pytest.param(pair, marks=pytest.mark.full) for pair in (
    ("postgres", "mysql"), ("mysql", "mariadb"), ("mariadb", "sqlite"))))  # fmt: skip


class Here:
    """Two targets, and the database that they share."""

    def __init__(self, third: Any, targets: dict[str, Any]) -> None:
        self.third, self.databases = third, targets
        self.stream = Stream()

    def target(self, name: str) -> Target:
        """One of them, prepared."""
        target = self.opened(name)
        target.prepare([USERS])
        return target

    def opened(self, name: str, *, shared: bool = True) -> Target:
        at = SharedAt(self.third, _family(self.third), name)
        placement = Placement(
            schemas={"app": _schema(self.databases[name])},
            referees=("app.*",),
            shared=at if shared else None,
        )
        return _target(name, self.databases[name], placement)

    def rows(self, *, live: bool = True) -> list[tuple[str, int, str, str]]:
        """(environment, local key, sync_id, state), of all or of those that are live."""
        of = "where live = 1" if live else ""
        sql = f"select environment, local_key, sync_id, state from headwater_shared {of}"
        with closing_engine(self.third) as run:
            return sorted((str(e), int(k), str(s), str(state)) for e, k, s, state in run(sql))

    def names(self) -> dict[str, dict[str, str]]:
        """By sync_id, what each environment calls the row: its mail, or the source's key."""
        found: dict[str, dict[str, str]] = {}
        for environment, key, sync_id, state in self.rows():
            assert state == "active", (environment, key, state)
            found.setdefault(sync_id, {})[environment] = self.called(environment, key)
        return found

    def called(self, environment: str, key: int) -> str:
        if environment == SOURCE:
            return str(key)
        with closing_engine(self.databases[environment]) as run:
            ((mail,),) = run(f"select mail from users where id = {key}")
            return str(mail)


def _family(url: str) -> str:
    scheme = url.partition(":")[0]
    return {"postgresql": "postgres", "sqlite": "sqlite"}.get(scheme, "mysql")


def _schema(url: str) -> str:
    return {"postgres": "public", "sqlite": "main"}.get(_family(url), url.rpartition("/")[2])


def _target(name: str, url: str, placement: Placement) -> Target:
    from apply.mysql import MySQLTarget
    from apply.postgres import PostgresTarget
    from apply.sqlite import SqliteTarget

    make = {"postgres": PostgresTarget, "sqlite": SqliteTarget}.get(_family(url), MySQLTarget)
    return make(name, url, SOURCE, placement)


@contextmanager
def closing_engine(url: str) -> Iterator[Callable[[str], list[Any]]]:
    """Runs statements there."""
    engine = opened(url, _family(url)).engine
    with engine.connect() as connection:

        def run(sql: str) -> list[Any]:
            found = connection.exec_driver_sql(sql)
            rows = list(found.fetchall()) if found.returns_rows else []
            connection.commit()
            return rows

        yield run


@pytest.fixture(params=THIRDS, ids="-".join)
def here(
    request: pytest.FixtureRequest, new_database: Callable[[Server], Database], tmp_path: Path
) -> Here:
    def url(kind: str, name: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{name}.db"
        return new_database(request.getfixturevalue(kind)).url

    third, other = request.param
    return Here(url(third, "third"), {"one": url(other, "one"), "two": url("sqlite", "two")})


def user(make: Callable[..., Change], number: int, mail: str = "") -> Change:
    return make(USERS, id=number, mail=mail or f"u{number}")


def test_one_row_has_one_sync_id_in_every_environment(here: Here) -> None:
    """T6, T31: whoever comes first; a key that is used again is another row to each at its place;
    what was in a target before is told; an end is told when the last one has it no more.
    """
    plain = here.opened("one", shared=False)
    plain.prepare([USERS])
    batches = [
        here.stream.batch(user(c, 1), user(c, 2)),
        here.stream.batch(user(c, 3), user(u, 2, "x")),
        here.stream.batch(user(d, 1)),
        here.stream.batch(user(c, 1, "again"), user(d, 3)),
        here.stream.batch(t(USERS)),
    ]
    deliver(plain, batches[0])
    plain.close()
    one, two = here.target("one"), here.target("two")
    for batch in batches[1:4]:
        deliver(one, batch)
    assert sorted(n["one"] for n in here.names().values() if "one" in n) == ["again", "x"]
    for batch in batches[:2]:
        deliver(two, batch)
    behind = {name["two"]: id_ for id_, name in here.names().items() if "two" in name}
    ahead = {name["one"]: id_ for id_, name in here.names().items() if "one" in name}
    assert behind["x"] == ahead["x"]
    assert behind["u1"] != ahead["again"]
    for batch in batches[2:4]:
        deliver(two, batch)
    both = {"x": "2", "again": "1"}
    assert sorted(map(sorted, (n.items() for n in here.names().values()))) == sorted(
        sorted({SOURCE: key, "one": mail, "two": mail}.items()) for mail, key in both.items()
    )
    deliver(one, batches[4])
    assert {e for e, _, _, _ in here.rows()} == {SOURCE, "two"}
    deliver(two, batches[4])
    assert here.rows() == []
    assert len(here.rows(live=False)) == 4 + 4 + 4
    listed = list(one.mappings("app.users", [2], ended=True))
    assert [m.environment for m in listed] == [SOURCE, "one", "two"]
    one.close()
    two.close()


def test_people_correct_it_and_what_is_lost_is_made_again(here: Here) -> None:
    """Corrections are told; a target that lost pairs, or came from a backup, says what is so."""
    one = here.target("one")
    deliver(one, here.stream.batch(user(c, 1), user(c, 2)))
    with closing_engine(here.databases["one"]) as run:
        run("insert into users (mail) values ('local')")
        ((local,),) = run("select id from users where mail = 'local'")
    one.assign("app.users", [(1, local)])
    assert sorted(n["one"] for n in here.names().values()) == ["local", "u2"]
    assert one.end_pairs("app.users", [2]) != []
    (name,) = (n for n in here.names().values() if "one" in n)
    assert name == {SOURCE: "1", "one": "local"}
    deliver(one, here.stream.batch(user(u, 2, "new")))
    assert {SOURCE: "2", "one": "new"} in here.names().values()
    # The target's pairs as of a backup: row 2 is unknown to it, and comes again.
    with closing_engine(here.databases["one"]) as run:
        run("delete from headwater_referee where live = 1 and source_key = 2")
    deliver(one, here.stream.batch(user(u, 2, "newer")))
    assert sorted(n["one"] for n in here.names().values() if "one" in n) == ["local", "newer"]
    one.drop()
    assert {e for e, _, _, _ in here.rows(live=False)} == {SOURCE}
    one.close()
