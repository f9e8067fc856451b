"""Every target: rows that are found by a mapping table, nothing being added to the applications'
tables.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import apply.database
from apply.target import Target
from schemas.conflict import ConflictRules
from schemas.errors import Operator, SchemaConflict
from schemas.kinds import Kind
from schemas.table import Column, CompositeKey, ForeignKey, Table
from tests.conformance.targets import (
    ID,
    INT,
    Change,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    held,
    place,
    t,
    u,
)

__all__ = ["place"]


def bare(
    name: str,
    *columns: Column,
    foreign_keys: tuple[ForeignKey, ...] = (),
    uniques: tuple[tuple[str, ...], ...] = (),
) -> Table:
    """A table with a primary key, and nothing for Headwater."""
    return Table(
        family="mysql",
        schema="app",
        name=name,
        columns=(ID, *columns),
        primary_key=("id",),
        identity=("id",),
        uniques=uniques,
        foreign_keys=foreign_keys,
    )


USERS = bare("users", column("mail"), uniques=(("mail",),))
ORDERS = bare(
    "orders",
    column("user_id", INT),
    column("note"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
STRICT = replace(ORDERS, columns=(ID, column("user_id", INT, nullable=False), column("note")))
STAFF = bare(
    "staff", column("boss", INT), column("name"), foreign_keys=(foreign_key("boss", "staff"),)
)
LOCAL = 700


def user(number: int, mail: str | None = None) -> Change:
    return c(USERS, id=number, mail=mail or f"u{number}")


def order(number: int, user_id: int | None, of: Table = ORDERS) -> Change:
    return c(of, id=number, user_id=user_id, note=f"o{number}")


def ready(place: Place, *tables: Table, limit: int = 0, **placement: Any) -> tuple[Stream, Target]:
    """A target of these tables, whose own keys begin where no key of the source is."""
    target = place.target(referees=("app.*",), parked_limit=limit, **placement)
    target.prepare(tables)
    for table in tables:
        if place.is_mysql:
            place.execute(f"alter table {table.name} auto_increment = {LOCAL}")
        elif place.is_sqlite:
            place.execute(f"insert into sqlite_sequence values ('{table.name}', {LOCAL})")
        else:
            sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
            place.execute(f"select setval({sequence}, {LOCAL})")
    return Stream(), target


def pairs(place: Place, name: str = "users", *, ended: bool = False) -> dict[int, int]:
    """Source key -> local key."""
    live = "is null" if ended else "= 1"
    found = place.query(
        "select source_key, local_key from headwater_referee "
        f"where table_name = 'app.{name}' and live {live}"
    )
    return {int(a): int(b) for a, b in found}


def users(place: Place) -> dict[int, str]:
    """What the application sees."""
    return {int(key): mail for key, mail in place.query("select id, mail from users")}


def mails(place: Place) -> dict[int, str]:
    """Source key -> mail, by the referee."""
    here = users(place)
    return {source: here[local] for source, local in pairs(place).items() if local in here}


def orders(place: Place) -> dict[str, str | None]:
    """Note -> the user's mail."""
    found = place.query("select o.note, u.mail from orders o left join users u on u.id = o.user_id")
    return dict(found)


def replay(place: Place, target: Target, batch: Any, before: Any) -> None:
    """Apply a batch again, as after the target was restored but for its rows."""
    place.execute(f"update headwater_checkpoint set log_offset = '{before}'")
    deliver(target, batch)


def test_rows_get_keys_of_their_own_and_are_found_again(place: Place) -> None:
    """T1: the target's row has another key, keeps it, and is the one that changes."""
    stream, target = ready(place, USERS)
    place.execute("insert into users (mail) values ('local')")
    (local,) = users(place)
    deliver(target, stream.batch(user(local), user(2)))
    named = pairs(place)
    assert min(named.values()) > local > LOCAL - 1
    assert users(place) == {local: "local", named[local]: f"u{local}", named[2]: "u2"}
    deliver(target, stream.batch(u(USERS, id=local, mail="x"), user(3)))
    assert pairs(place) | named == pairs(place)
    assert mails(place) == {local: "x", 2: "u2", 3: "u3"}
    deliver(target, stream.batch(d(USERS, id=local, mail="x")))
    assert mails(place) == {2: "u2", 3: "u3"}
    assert users(place)[local] == "local", "it is in no pair"
    assert held(target, USERS) == [{"id": 2, "mail": "u2"}, {"id": 3, "mail": "u3"}]


def test_the_table_gets_nothing_but_its_own_columns(place: Place) -> None:
    _, target = ready(place, USERS)
    place.execute("insert into users (mail) values ('a')")
    assert [len(row) for row in place.query("select * from users")] == [2]
    assert target.prepare([USERS]) == []


def test_references_become_the_parents_local_keys(place: Place) -> None:
    """T13: and children before their parents, and re-pointed ones."""
    for of in (ORDERS, STRICT):
        stream, target = ready(place, USERS, of)
        deliver(target, stream.batch(user(1), user(2), order(1, 1, of), order(2, 2, of)))
        assert orders(place) == {"o1": "u1", "o2": "u2"}
        deliver(target, stream.batch(order(3, 9, of), user(9), u(of, id=1, user_id=2, note="o1")))
        assert orders(place) == {"o1": "u2", "o2": "u2", "o3": "u9"}
        deliver(target, stream.batch(d(of, id=3, user_id=9, note="o3"), d(USERS, id=9, mail="u9")))
        assert orders(place) == {"o1": "u2", "o2": "u2"}
        assert [row["user_id"] for row in held(target, of)] == ['{"id":2}'] * 2
        place.execute("drop table orders", "drop table users")
        target.drop()


def test_a_source_key_used_again_is_another_row(place: Place) -> None:
    """T6: in one transaction, and over several; the old row's children go with it."""
    stream, target = ready(place, USERS, ORDERS)
    deliver(target, stream.batch(user(10, "a"), order(1, 10)))
    first = pairs(place)[10]
    deliver(
        target,
        stream.batch(
            d(ORDERS, id=1, user_id=10, note="o1"),
            d(USERS, id=10, mail="a"),
            user(10, "b"),
            order(2, 10),
        ),
    )
    second = pairs(place)[10]
    assert second != first
    assert users(place) == {second: "b"}
    assert pairs(place, ended=True) == {10: first}
    assert orders(place) == {"o2": "b"}
    deliver(target, stream.batch(d(ORDERS, id=2, user_id=10, note="o2"), d(USERS, id=10, mail="b")))
    deliver(target, stream.batch(user(10, "c")))
    assert pairs(place)[10] not in (first, second)
    assert users(place) == {pairs(place)[10]: "c"}


def test_a_row_deleted_and_inserted_again_gets_a_fresh_key(place: Place) -> None:
    """T6, where nothing references the table."""
    stream, target = ready(place, USERS)
    deliver(target, stream.batch(user(10, "a")))
    first = pairs(place)[10]
    deliver(target, stream.batch(d(USERS, id=10, mail="a"), user(10, "a")))
    assert pairs(place, ended=True) == {10: first}
    assert users(place) == {pairs(place)[10]: "a"}
    assert pairs(place)[10] != first


def test_a_key_that_a_local_row_uses_again_is_not_the_sources(place: Place) -> None:
    """T11: what the server forgets at a restart, a key generator set back does at once."""
    stream, target = ready(place, USERS)
    deliver(target, stream.batch(user(1), user(2)))
    gone = pairs(place)[2]
    deliver(target, stream.batch(d(USERS, id=2, mail="u2")))
    place.execute(f"insert into users (id, mail) values ({gone}, 'local')")
    deliver(target, stream.batch(d(USERS, id=2, mail="u2"), u(USERS, id=1, mail="x")))
    deliver(target, stream.batch(u(USERS, id=2, mail="late"), user(3)))
    assert users(place)[gone] == "local"
    assert gone not in pairs(place).values()
    assert mails(place) == {1: "x", 2: "late", 3: "u3"}
    deliver(target, stream.batch(t(USERS)))
    assert users(place) == {gone: "local"}
    assert pairs(place) == {}


def test_the_same_batch_again_changes_nothing(place: Place) -> None:
    """H98: each of a history's batches twice, and the whole history twice: what it passes through
    that does not fit any more waits in between.
    """
    stream, target = ready(place, USERS, ORDERS, limit=10)
    batches = [
        stream.batch(user(1), user(2), order(1, 1)),
        stream.batch(u(USERS, id=1, mail="x"), order(2, 2), user(3)),
        stream.batch(d(ORDERS, id=2, user_id=2, note="o2"), d(USERS, id=2, mail="u2"), user(4)),
    ]
    deliver(target, batches[0], first=False)
    replay(place, target, batches[1], batches[0].offset)
    replay(place, target, batches[1], batches[0].offset)
    deliver(target, batches[2])
    expected = users(place), pairs(place), orders(place)
    replay(place, target, batches[2], batches[1].offset)
    assert (users(place), pairs(place), orders(place)) == expected
    assert mails(place) == {1: "x", 3: "u3", 4: "u4"}
    for batch, before in zip(batches[1:], batches, strict=False):
        replay(place, target, batch, before.offset)
    assert mails(place) == {1: "x", 3: "u3", 4: "u4"}
    assert orders(place) == {"o1": "x"}
    assert target.parked() == []


def test_unique_values_are_exchanged_and_moved_to_new_rows(place: Place) -> None:
    """H93: a swap, and a new row that gets the value which an old one leaves."""
    stream, target = ready(place, USERS)
    deliver(target, stream.batch(user(1, "a"), user(2, "b"), user(3, "c")))
    before = pairs(place)
    deliver(
        target,
        stream.batch(
            u(USERS, id=1, mail="b"), u(USERS, id=2, mail="a"), u(USERS, id=3, mail="d"),
            user(4, "c"),
        ),
    )  # fmt: skip
    assert mails(place) == {1: "b", 2: "a", 3: "d", 4: "c"}
    assert pairs(place) | before == pairs(place)


def test_trees_are_linked_in_any_order(place: Place) -> None:
    """T16."""
    stream, target = ready(place, STAFF)
    deliver(
        target,
        stream.batch(
            c(STAFF, id=3, boss=2, name="c"), c(STAFF, id=2, boss=1, name="b"),
            c(STAFF, id=1, boss=3, name="a"),
        ),
    )  # fmt: skip
    found = place.query("select s.name, b.name from staff s join staff b on b.id = s.boss")
    assert sorted(found) == [("a", "c"), ("b", "a"), ("c", "b")]
    deliver(target, stream.batch(*(d(STAFF, id=n, boss=None, name="x") for n in (1, 2, 3))))
    assert place.query("select 1 from staff") == []
    assert pairs(place, "staff") == {}


def test_a_refused_row_is_parked_and_named_when_it_can_be_written(place: Place) -> None:
    """H100: parked, retried; no pair and no second row is left of the tries."""
    stream, target = ready(place, USERS, ORDERS, limit=10)
    place.execute("insert into users (mail) values ('taken')")
    (local,) = users(place)
    deliver(target, stream.batch(user(1, "taken"), user(2), order(1, 1), order(2, 2)))
    assert sorted(pairs(place)) == [2]
    assert {c.reason for c in target.parked()} == {"unique", "parent"}
    place.execute(f"update users set mail = 'mine' where id = {local}")
    assert target.retry().parked == []
    assert mails(place) == {1: "taken", 2: "u2"}
    assert orders(place) == {"o1": "taken", "o2": "u2"}
    assert len(users(place)) == 3


def test_local_rows_written_meanwhile_get_no_key_of_ours(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is relied on of MySQL and MariaDB: one row's step reserves as many keys, at once, and a
    rollback does not give them back.
    """
    stream, target = ready(place, USERS)
    written: list[str] = []

    def meanwhile(point: str) -> None:
        if point == "before-target-commit" and not place.is_sqlite:
            written.append(f"local {len(written)}")
            place.execute(f"insert into users (mail) values ('{written[-1]}')")

    monkeypatch.setattr(apply.database, "reach", meanwhile)
    for start in (0, 1_000, 2_000):
        deliver(target, stream.batch(*(user(start + n) for n in range(1, 101))))
        place.execute(f"insert into users (mail) values ('after {start}')")
    here, mine = users(place), pairs(place)
    assert len(here) == 300 + 3 + len(written)
    assert len(set(mine.values())) == 300
    assert all(here[local] == f"u{source}" for source, local in mine.items())


def test_a_server_with_steps_of_its_own_keeps_them(place: Place) -> None:
    """Galera and group replication: each node's keys are its own remainder."""
    if not place.is_mysql:
        return
    stream, target = ready(place, USERS)
    deliver(target, stream.batch(user(1)))
    session = target._session  # type: ignore[attr-defined]
    session.connection.exec_driver_sql(
        "set session auto_increment_increment = 3, auto_increment_offset = 2"
    )
    deliver(target, stream.batch(*(user(n) for n in range(2, 50))))
    keys = [local for source, local in pairs(place).items() if source > 1]
    assert {key % 3 for key in keys} == {2}


def test_a_generator_behind_its_table_stops_before_anybodys_row_is_touched(place: Place) -> None:
    stream, target = ready(place, USERS)
    if place.kind != "postgres":
        return  # the others' generators follow the keys that are there
    place.execute(f"insert into users (id, mail) values ({LOCAL + 1}, 'local')")
    with pytest.raises(Operator, match="its generator gives only now"):
        deliver(target, stream.batch(user(1)))
    assert users(place) == {LOCAL + 1: "local"}


OF_TWO = CompositeKey(columns=("id", "mail"), parent="app.p", parent_columns=("id", "mail"))
REFUSED: tuple[tuple[Table, dict[str, Any], str], ...] = (
    (replace(USERS, primary_key=("id", "mail"), identity=("id", "mail")), {}, "one column"),
    (replace(USERS, columns=(replace(ID, kind=Kind(name="uuid")), *USERS.columns[1:])), {},
     "primary key is uuid"),
    (replace(USERS, composite_keys=(OF_TWO,)), {}, "primary key is a reference"),
    (USERS, {"primary_keys": "copy"}, 'primary_keys = "copy"'),
    (USERS, {"conflicts": {"app.*": ConflictRules(policy="park")}}, "conflicts"),
)  # fmt: skip


def test_what_cannot_be_had_with_it_is_refused(place: Place) -> None:
    for table, placement, words in REFUSED:
        target = place.target(referees=("app.users",), **placement)
        with pytest.raises(SchemaConflict, match=words):
            target.prepare([table])
    assert place.tables() == set()


def test_adopted_tables_need_a_key_that_the_target_generates(place: Place) -> None:
    place.execute("create table users (id bigint not null primary key, mail varchar(50) unique)")
    target = place.target(referees=("app.users",))
    with pytest.raises(SchemaConflict, match="whole number that the target generates"):
        target.prepare([USERS])


def test_a_referee_that_comes_or_goes_later_is_noticed(place: Place) -> None:
    """By the source's keys, rows of others would be written."""
    stream, target = ready(place, USERS)
    place.execute("insert into users (mail) values ('local')")
    assert ["none of them is paired" in f.problem for f in target.check([USERS])] == [True]
    deliver(target, stream.batch(user(1)))
    assert target.check([USERS]) == []
    target.close()
    plain = place.target()
    batch = stream.batch(u(USERS, id=1, mail="x"))
    with pytest.raises(Operator, match="which has no referee any more"):
        deliver(plain, batch)
    assert mails(place) == {1: "u1"}
    place.execute("drop table headwater_referee")
    with pytest.raises(Operator, match="the target is not prepared for it"):
        deliver(place.target(referees=("app.users",)), batch)
