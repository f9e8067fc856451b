"""Copies of whole tables: what the source no longer has is deleted at their end (H53)."""

from __future__ import annotations

from typing import Any

from schemas.change import Sweep
from tests.conformance.targets import (
    INT,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    held,
    place,
    r,
    table,
    u,
)

__all__ = ["place"]

USERS = table("users", column("n", INT))
ORDERS = table("orders", column("user_id", INT), foreign_keys=(foreign_key("user_id", "users"),))


def sweep(what: str, name: str = "users", number: str = "7.0", **bounds: int) -> Sweep:
    return Sweep(f"app.{name}", number, what, **bounds)  # type: ignore[arg-type]


def rows_of(target: object, of: object) -> list[str]:
    return [str(row["sync_id"]) for row in held(target, of)]  # type: ignore[arg-type]


def test_rows_that_neither_the_copy_nor_the_stream_brought_are_deleted(place: Place) -> None:
    stream, target = Stream(), place.target()
    place.execute(f"create table users (id {place.serial}, sync_id varchar(36) unique, n int)")
    target.prepare([USERS])
    begin = [c(USERS, id=i, sync_id=f"s{i}", n=i) for i in range(1, 6)]
    deliver(target, stream.batch(*begin))
    place.execute("insert into users (sync_id, n) values (null, 9)")
    deliver(target, stream.batch(sweeps=(sweep("begins"),)))
    deliver(target, stream.batch(r(USERS, id=1, sync_id="s1", n=10)))
    # The stream changes one row, brings one, and takes one away.
    deliver(
        target,
        stream.batch(
            u(USERS, id=2, sync_id="s2", n=20),
            c(USERS, id=8, sync_id="s8", n=80),
            d(USERS, id=3, sync_id="s3", n=3),
        ),
    )
    # A crash in the middle: another process goes on.
    target.close()
    target = place.target()
    deliver(target, stream.batch(r(USERS, id=4, sync_id="s4", n=4), sweeps=(sweep("ends"),)))
    assert rows_of(target, USERS) == ["s1", "s2", "s4", "s8"]
    assert place.query("select count(*) from users where sync_id is null") == [(1,)]
    assert place.query("select count(*) from headwater_seen") == [(0,)]


def test_a_target_that_did_not_see_the_beginning_deletes_nothing(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS])
    deliver(target, stream.batch(c(USERS, id=1, sync_id="s1", n=1)))
    deliver(target, stream.batch(r(USERS, id=2, sync_id="s2", n=2), sweeps=(sweep("ends"),)))
    deliver(target, stream.batch(sweeps=(sweep("begins", number="8.0"),)))
    deliver(target, stream.batch(sweeps=(sweep("begins", number="8.1"),)))
    deliver(target, stream.batch(sweeps=(sweep("ends", number="8.0"),)))
    deliver(target, stream.batch(sweeps=(sweep("given up", number="8.1"),)))
    deliver(target, stream.batch(sweeps=(sweep("ends", number="8.1"),)))
    assert rows_of(target, USERS) == ["s1", "s2"]


def test_children_go_before_their_parents_and_what_is_referenced_stays(place: Place) -> None:
    stream, target = Stream(), place.target()
    place.execute(
        f"create table users (id {place.serial}, sync_id varchar(36) not null unique, n int)",
        f"create table orders (id {place.serial}, sync_id varchar(36) unique, user_id int,"
        " foreign key (user_id) references users (id))",
    )
    target.prepare([USERS, ORDERS])
    deliver(
        target,
        stream.batch(
            *(c(USERS, id=i, sync_id=f"u{i}", n=i) for i in (1, 2, 3)),
            c(ORDERS, id=1, sync_id="o1", user_id=1),
            c(ORDERS, id=2, sync_id="o2", user_id=2),
        ),
    )
    # A local order refers to a user whom the source has not any more.
    place.execute(
        "insert into orders (sync_id, user_id) select null, id from users where sync_id = 'u3'"
    )
    both = ("users", "orders")
    deliver(target, stream.batch(sweeps=tuple(sweep("begins", name) for name in both)))
    deliver(target, stream.batch(r(USERS, id=1, sync_id="u1", n=1)))
    last = r(ORDERS, id=1, sync_id="o1", user_id=1)
    deliver(target, stream.batch(last, sweeps=tuple(sweep("ends", name) for name in both)))
    assert rows_of(target, ORDERS) == ["o1"]
    assert rows_of(target, USERS) == ["u1", "u3"]


def test_a_range_of_numbers_is_swept_alone(place: Place) -> None:
    numbered = table("users", column("n", INT), identity=("id",))
    stream, target = Stream(), place.target(primary_keys="copy")
    target.prepare([numbered])
    deliver(target, stream.batch(*(c(numbered, id=i, sync_id=f"s{i}", n=i) for i in range(1, 10))))
    bounds: dict[str, Any] = {"after": 3, "until": 6}
    deliver(target, stream.batch(sweeps=(sweep("begins", **bounds),)))
    last = r(numbered, id=5, sync_id="s5", n=50)
    deliver(target, stream.batch(last, sweeps=(sweep("ends", **bounds),)))
    assert [row["id"] for row in held(target, numbered)] == [1, 2, 3, 5, 7, 8, 9]


def test_what_is_for_another_target_moves_only_the_checkpoint(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS])
    row = c(USERS, id=1, sync_id="s1", n=1)
    deliver(target, stream.batch(row, for_target="other", reader="t"))
    assert held(target, USERS) == []
    deliver(target, stream.batch(c(USERS, id=2, sync_id="s2", n=2), for_target="t", reader="t"))
    assert rows_of(target, USERS) == ["s2"]
