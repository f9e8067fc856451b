"""Every target: keys that a warm process remembers mean what they meant at each row's moment."""

from __future__ import annotations

from typing import Any, cast

import pytest
import sqlalchemy as sa

from schemas.errors import Poison
from tests.conformance.targets import (
    INT,
    SOURCE,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    held,
    place,
    s,
    t,
    table,
    u,
)

__all__ = ["SOURCE", "place"]

USERS = table("users", column("name"))
ORDERS = table(
    "orders",
    column("user_id", INT),
    column("payer_id", INT),
    foreign_keys=(foreign_key("user_id", "users"), foreign_key("payer_id", "users")),
)


def user(number: int, sync_id: str) -> Any:
    return c(USERS, id=number, sync_id=sync_id, name=sync_id)


def order(number: int, user_id: int | None, payer_id: int | None = None) -> Any:
    return c(ORDERS, id=number, sync_id=f"o{number}", user_id=user_id, payer_id=payer_id)


def paid(number: int, user_id: int | None, payer_id: int | None = None) -> Any:
    return u(ORDERS, id=number, sync_id=f"o{number}", user_id=user_id, payer_id=payer_id)


def links(target: Any) -> dict[str, tuple[Any, Any]]:
    """sync_id -> the sync_ids of both parents."""
    return {
        row["sync_id"]: tuple(
            row[n] and row[n].split('"')[3] for n in ("user_id", "payer_id")
        )
        for row in held(target, ORDERS)
    }  # fmt: skip


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_key_means_its_row_of_that_moment_within_one_block(place: Place, is_warm: bool) -> None:
    """The key 10 is a's, then nobody's, then b's; 12 is a's from then on."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), user(11, "x"), order(9, 10, 11)))
    target = target if is_warm else place.target()
    deliver(
        target,
        stream.batch(
            order(1, 10, 11),
            u(USERS, id=12, sync_id="a", name="a"),
            user(10, "b"),
            order(2, 10, 12),
            paid(9, 12, 10),
        ),
    )
    assert links(target) == {"o1": ("a", "x"), "o2": ("b", "a"), "o9": ("a", "b")}
    # Remembered now, and what follows is of the new meaning alone.
    deliver(target, stream.batch(order(3, 10, 12), paid(1, 12, 11)))
    assert links(target)["o3"] == ("b", "a")
    assert links(target)["o1"] == ("a", "x")


def test_a_warm_process_writes_references_without_a_look_at_its_own_table(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), user(11, "b")))
    said: list[str] = []
    engine = cast(Any, target)._server.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    deliver(target, stream.batch(order(1, 10, 11), order(2, 11), order(3, None)))
    deliver(target, stream.batch(paid(1, 11, 10), paid(2, None, 10)))
    assert said
    assert not [statement for statement in said if "headwater_identity" in statement]
    expected = {"o1": ("b", "a"), "o2": (None, "a"), "o3": (None, None)}
    assert links(target) == expected


def test_what_was_rolled_back_is_not_remembered(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a")))
    with pytest.raises(Poison):
        deliver(
            target,
            stream.batch(
                u(USERS, id=11, sync_id="a", name="a"), user(10, "z"), order(1, 10), order(2, 99)
            ),
        )
    deliver(target, stream.batch(order(3, 10)))
    assert links(target) == {"o3": ("a", None)}


def test_a_local_row_that_took_the_parents_local_key_is_nobodys_parent(place: Place) -> None:
    """T11, T23: the source's key is remembered, the local key is not."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a")))
    ((key,),) = place.query("select id from users where sync_id = 'a'")
    place.execute(
        "delete from users",
        f"insert into users (id, sync_id, name) values ({key}, 'local', 'somebody else')",
    )
    with pytest.raises(Poison, match=r"app.users for app.orders.user_id"):
        deliver(target, stream.batch(order(1, 10)))
    assert held(target, ORDERS) == []
    # The parent comes again and gets another key; the child goes there.
    again = stream.batch(user(10, "a"), order(2, 10))
    deliver(target, again)
    assert links(target) == {"o2": ("a", None)}
    assert place.query("select user_id from orders") != [(key,)]


def test_a_truncate_and_a_seed_end_what_was_remembered(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), user(11, "b")))
    deliver(target, stream.batch(t(USERS), user(10, "c"), order(1, 10)))
    assert links(target) == {"o1": ("c", None)}
    place.execute("insert into users (sync_id, name) values ('d', 'd')")
    deliver(target, stream.batch(order(2, 11), s(USERS, 11, "d")))
    deliver(target, stream.batch(order(3, 11)))
    assert links(target) == {"o1": ("c", None), "o2": ("d", None), "o3": ("d", None)}


def test_a_changed_key_of_the_source_is_one_rows_update(place: Place) -> None:
    """T8: the row keeps its local key, its children theirs; the new key is known at once."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), order(1, 10)))
    before = place.query("select id, sync_id from users")
    deliver(target, stream.batch(u(USERS, id=11, sync_id="a", name="new"), order(2, 11)))
    assert place.query("select id, sync_id from users") == before
    assert place.query("select name from users") == [("new",)]
    assert links(target) == {"o1": ("a", None), "o2": ("a", None)}
    deliver(target, stream.batch(d(ORDERS, sync_id="o1"), order(3, 11, 11)))
    assert links(target) == {"o2": ("a", None), "o3": ("a", "a")}


def test_updates_that_keep_a_remembered_key_need_no_look(place: Place) -> None:
    """With the key before, without it, and after a restart from the second batch on."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), user(11, "b"), order(1, 10)))
    target = place.target()
    deliver(target, stream.batch(u(USERS, id=10, sync_id="a", name="1"), user(12, "c")))
    said: list[str] = []
    engine = cast(Any, target)._server.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    before = {"id": 10, "sync_id": "a", "name": "1"}
    deliver(
        target,
        stream.batch(
            u(USERS, before, id=10, sync_id="a", name="2"), u(USERS, id=12, sync_id="c", name="2")
        ),
    )
    assert said
    assert not [statement for statement in said if "headwater_identity" in statement]
    names = place.query("select sync_id, name from users order by sync_id")
    assert [tuple(row) for row in names] == [("a", "2"), ("b", "b"), ("c", "2")]


def test_a_key_that_goes_away_and_comes_back_in_one_block_is_followed(place: Place) -> None:
    """No key before is logged: the last update looks as if nothing had changed."""
    stream, target = Stream(), place.target()
    target.prepare([USERS, ORDERS])
    deliver(target, stream.batch(user(10, "a"), order(9, 10)))
    deliver(
        target,
        stream.batch(
            u(USERS, id=11, sync_id="a", name="away"),
            user(10, "b"),
            order(1, 10, 11),
            u(USERS, id=12, sync_id="b", name="b"),
            u(USERS, id=10, sync_id="a", name="back"),
            order(2, 10, 12),
        ),
    )
    assert links(target) == {"o1": ("b", "a"), "o2": ("a", "b"), "o9": ("a", None)}
    deliver(target, stream.batch(order(3, 10, 12)))
    assert links(target)["o3"] == ("a", "b")
    open_ = place.query(
        "select source_key, identity from headwater_identity where to_batch is null"
    )
    assert {tuple(row) for row in open_} == {("10", "a"), ("12", "b")}
