"""Every target: rows found by a mapping table, of tables that differ there by configuration."""

from __future__ import annotations

from typing import Any

import pytest

from apply import exempt
from apply.exceptions import TableExceptions
from tests.conformance.targets import (
    INT,
    Change,
    Place,
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
from tests.conformance.test_target_referee import (
    ORDERS,
    STRICT,
    bare,
    order,
    orders,
    pairs,
    ready,
    users,
)

__all__ = ["place"]

USERS = bare("users", column("mail"), column("region"), column("price", INT), uniques=(("mail",),))
EU = {"app.users": TableExceptions(where="region = 'EU'", own=("price",))}


def user(make: Any, number: int, region: str = "EU", price: int = 1, mail: str = "") -> Change:
    """The same way: made, changed or deleted."""
    row = {"id": number, "mail": mail or f"u{number}", "region": region, "price": price}
    change: Change = make(USERS, **row)
    return change


def prices(place: Place) -> dict[str, int]:
    return {mail: int(price) for mail, price in place.query("select mail, price from users")}


def test_rows_enter_with_a_new_pair_and_leave_with_their_pair(place: Place) -> None:
    """T71, T20: of a row that enters again, too; references to what is not here are NULL until it
    comes; columns that are the target's own stay; a local row is in nobody's way.
    """
    stream, target = ready(place, USERS, ORDERS, exceptions=EU)
    place.execute("insert into users (mail, region, price) values ('local', 'US', 7)")
    (local,) = users(place)
    deliver(
        target,
        stream.batch(user(c, 1), user(c, 2, "US"), user(c, local), order(1, 1), order(2, 2)),
    )
    first = pairs(place)
    assert sorted(first) == [1, local]
    assert orders(place) == {"o1": "u1", "o2": None}
    place.execute("update users set price = 99 where mail = 'u1'")
    deliver(target, stream.batch(user(u, 1, price=2, mail="x"), user(u, 2)))
    assert prices(place) == {"local": 7, f"u{local}": 1, "x": 99, "u2": 1}
    assert orders(place) == {"o1": "x", "o2": "u2"}
    left = stream.batch(user(u, 1, "US"), user(u, 2, "US"), user(u, local, "US"))
    deliver(target, left)
    assert (prices(place), pairs(place)) == ({"local": 7}, {})
    assert orders(place) == {"o1": None, "o2": None}
    deliver(target, stream.batch(user(u, 1, price=5)))
    assert pairs(place)[1] not in (first[1], local)
    assert prices(place) == {"local": 7, "u1": 5}
    assert orders(place) == {"o1": "u1", "o2": None}
    deliver(target, stream.batch(d(ORDERS, id=2, user_id=2, note="o2"), user(d, 2, "US")))
    deliver(target, stream.batch(user(c, 2)))
    assert orders(place) == {"o1": "u1"}, "the key is another row's now"


def test_a_parent_deleted_there_is_not_taken_for_one_that_left(place: Place) -> None:
    """Its child, parked, keeps its reference: the key may be another row's later."""
    stream, target = ready(place, USERS, ORDERS, limit=9, exceptions=EU)
    deliver(target, stream.batch(user(c, 1), user(c, 3), order(1, 1), order(3, 3)))
    place.execute("update orders set note = null where note = 'o1'")
    deliver(target, stream.batch(user(d, 1), user(u, 3, "US")))
    assert [(p.reason, p.op) for p in target.parked()] == [("referenced", "d")]
    assert sorted(pairs(place)) == [1]
    joined = "select u.mail from orders o left join users u on u.id = o.user_id order by o.id"
    assert place.query(joined) == [("u1",), (None,)]


def test_excluded_rows_stay_as_they_are(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Excluded at run time: not changed, deleted, compared or counted."""
    monkeypatch.setattr(exempt, "LOOK_S", 0.0)
    stream, target = ready(place, USERS, exceptions=EU)
    deliver(target, stream.batch(user(c, 1), user(c, 2), user(c, 3)))
    target.exempt("app.users", "excluded", [b'{"id":1}'])
    target.exempt("app.users", "pinned", [b'{"id":2}'])
    target.close()
    deliver(
        target, stream.batch(user(u, 1, mail="x"), user(u, 2, "US", mail="y"), user(u, 3, "US"))
    )
    assert prices(place) == {"u1": 1, "y": 1}
    assert [row["id"] for row in held(target, USERS)] == [2]
    deliver(target, stream.batch(t(USERS)))
    assert prices(place) == {"u1": 1}


def test_a_parked_delete_takes_the_sources_children_with_it(place: Place) -> None:
    """As soon as no row of the target's own holds it: rows of the source's, which its foreign key
    took away unseen, do not.
    """
    cascade = (foreign_key("user_id", "users", "CASCADE"),)
    bills = bare("bills", column("user_id", INT), foreign_keys=cascade)
    stream, target = ready(place, USERS, ORDERS, bills, limit=9)
    deliver(target, stream.batch(user(c, 1), user(c, 2), c(bills, id=1, user_id=1)))
    place.execute(
        "insert into orders (user_id, note) select id, 'local' from users where mail = 'u1'"
    )
    deliver(target, stream.batch(user(d, 1)))
    assert [p.reason for p in target.parked()] == ["referenced"]
    assert len(place.query("select 1 from bills")) == 1
    place.execute("delete from orders")
    deliver(target, stream.batch(user(u, 2, mail="x")))
    assert target.parked() == []
    assert (prices(place), place.query("select 1 from bills")) == ({"x": 1}, [])
    assert [*pairs(place), *pairs(place, "bills")] == [2]


def test_a_delete_that_is_refused_keeps_its_pair(place: Place) -> None:
    """A row of the target's own references it, and another one is held until its parent's first
    copy has come: what can go is tried before that.
    """
    stream, target = ready(place, USERS, STRICT, limit=9)
    copying = {name: {"after": [2], "done": False} for name in ("app.users", "app.orders")}
    deliver(target, stream.batch(user(c, 1), user(c, 2), progress=copying))
    place.execute(
        "insert into orders (user_id, note) select id, 'local' from users where mail = 'u1'"
    )
    before = pairs(place)
    gone = stream.batch(user(d, 1), user(d, 2), order(9, 8, STRICT), progress=copying)
    deliver(target, gone)
    assert [p.reason for p in target.parked()] == ["referenced"]
    assert (prices(place), pairs(place)) == ({"u1": 1}, {1: before[1]})
    place.execute("delete from orders")
    deliver(target, stream.batch(user(c, 3)))
    assert (prices(place), [*pairs(place)]) == ({"u3": 1}, [3])
