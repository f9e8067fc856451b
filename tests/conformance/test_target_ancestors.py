"""Rows that are here because others need them, whatever their own table's condition says."""

from __future__ import annotations

import os
from random import Random, SystemRandom
from typing import Any

import pytest

from apply.exceptions import TableExceptions
from apply.target import Target
from schemas.errors import SchemaConflict
from tests.conformance.targets import (
    INT,
    KINDS,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    place,
    r,
    t,
    table,
    u,
)

__all__ = ["place"]

FIRMS = table("firms", column("region"), column("name"))
USERS = table(
    "users",
    column("region"),
    column("firm_id", INT),
    foreign_keys=(foreign_key("firm_id", "firms"),),
)
ORDERS = table(
    "orders",
    column("user_id", INT),
    column("total", INT),
    foreign_keys=(foreign_key("user_id", "users"),),
)
STRICT = table(
    "orders",
    column("user_id", INT, nullable=False),
    column("total", INT),
    foreign_keys=(foreign_key("user_id", "users"),),
)
EU = TableExceptions(where="region = 'EU'")
BRINGS = TableExceptions(where="total > 0", ancestors=True)
CHAIN = (
    "select o.sync_id, u.sync_id, f.sync_id from orders o left join users u on u.id = o.user_id "
    "left join firms f on f.id = u.firm_id order by 1"
)


def child(place: Place, orders: Any = ORDERS, **users: Any) -> Target:
    """A prepared target that has the rows of Europe, orders of any total above 0, and their
    ancestors.
    """
    exceptions = {
        "app.firms": EU,
        "app.users": TableExceptions(where="region = 'EU'", **users),
        "app.orders": BRINGS,
    }
    target = place.target(exceptions=exceptions, parked_limit=1000)
    target.prepare([FIRMS, USERS, orders])
    return target


def firm(n: int, region: str = "US", name: str = "f") -> dict[str, Any]:
    return {"id": n, "sync_id": f"f{n}", "region": region, "name": name}


def user(n: int, region: str = "US", firm_id: int | None = None) -> dict[str, Any]:
    return {"id": n, "sync_id": f"u{n}", "region": region, "firm_id": firm_id}


def order(n: int, user_id: int | None, total: int = 1) -> dict[str, Any]:
    return {"id": n, "sync_id": f"o{n}", "user_id": user_id, "total": total}


def names(place: Place, of: str) -> list[str]:
    return [name for (name,) in place.query(f"select sync_id from {of} order by sync_id")]


def asked(target: Target, number: int = 7) -> dict[str, list[str]]:
    """What is wanted, asked for as ops/ancestors.py does."""
    wanted = {name: sorted(found) for name, found in target.wanted().items()}
    for name, identities in wanted.items():
        target.was_asked(name, identities, number)
    assert target.wanted() == {}
    return wanted


def test_a_row_that_enters_brings_its_ancestors_and_they_leave_with_it(place: Place) -> None:
    """T20, T71: the log passed the ancestors before; a copy that is asked for brings them."""
    target, stream = child(place), Stream()
    deliver(
        target,
        stream.batch(
            c(FIRMS, **firm(1)),
            c(USERS, **user(1, firm_id=1)),
            c(USERS, **user(2, "EU", firm_id=1)),
            c(ORDERS, **order(1, 1, total=0)),
            c(ORDERS, **order(2, 2)),
        ),
        first=True,
    )
    # A user who is here by right needs the firm as well: an order needs her.
    assert place.query(CHAIN) == [("o2", "u2", None)]
    assert asked(target) == {"app.firms": ["f1"]}
    deliver(target, stream.batch(r(FIRMS, **firm(1)), for_target="t", reader="t"))
    assert place.query(CHAIN) == [("o2", "u2", "f1")]
    # The first order enters, and waits with an open reference.
    deliver(target, stream.batch(u(ORDERS, **order(1, 1, total=5))))
    assert place.query(CHAIN) == [("o1", None, None), ("o2", "u2", "f1")]
    assert target.awaited() == 1
    assert asked(target) == {"app.users": ["u1"]}
    came = stream.batch(r(USERS, **user(1, firm_id=1)), for_target="t", reader="t")
    for _ in range(2):  # a request that was made twice
        deliver(target, came, expect=target.checkpoint())
        assert place.query(CHAIN) == [("o1", "u1", "f1"), ("o2", "u2", "f1")]
        assert target.awaited() == 0
    # They are here like any row: changes of theirs come.
    deliver(target, stream.batch(u(FIRMS, **firm(1, name="new"))))
    assert place.query("select name from firms") == [("new",)]
    # One order goes, the other no longer meets the condition.
    deliver(target, stream.batch(d(ORDERS, **order(1, 1))))
    assert (names(place, "users"), names(place, "firms")) == (["u2"], ["f1"])
    deliver(target, stream.batch(u(ORDERS, **order(2, 2, total=0))))
    assert (names(place, "users"), names(place, "firms")) == (["u2"], ["f1"])
    deliver(target, stream.batch(u(USERS, **user(2, "EU"))))
    assert (names(place, "users"), names(place, "firms")) == (["u2"], [])
    assert target.ancestors() == {}


def test_a_row_that_others_need_does_not_leave_before_them(place: Place) -> None:
    """T20: it left its own condition; nothing is asked for, and nothing dangles."""
    target, stream = child(place), Stream()
    deliver(
        target,
        stream.batch(
            c(USERS, **user(1, "EU")), c(USERS, **user(2, "EU")), c(ORDERS, **order(1, 1))
        ),
        first=True,
    )
    deliver(target, stream.batch(u(USERS, **user(1)), u(USERS, **user(2))))
    assert names(place, "users") == ["u1"]
    assert (target.ancestors(), target.wanted()) == ({"app.users": ["u1"]}, {})
    # Back by right, and out again; then the order moves away.
    deliver(target, stream.batch(u(USERS, **user(1, "EU"))))
    assert target.ancestors() == {}
    deliver(target, stream.batch(u(USERS, **user(1)), c(USERS, **user(3, "EU"))))
    assert names(place, "users") == ["u1", "u3"]
    deliver(target, stream.batch(u(ORDERS, **order(1, 3))))
    assert names(place, "users") == ["u3"]
    # A parent that the source deletes goes as any does.
    deliver(target, stream.batch(u(USERS, **user(3))))
    deliver(target, stream.batch(d(ORDERS, **order(1, 3)), d(USERS, **user(3))))
    assert (names(place, "users"), target.ancestors()) == ([], {})


def test_a_row_that_cannot_wait_is_parked_until_its_ancestor_came(place: Place) -> None:
    """T20: and what is awaited no more is not asked for, nor taken when it comes."""
    target, stream = child(place, STRICT), Stream()
    users = [c(USERS, **user(n)) for n in (1, 2)]
    orders = [c(STRICT, **order(n, n)) for n in (1, 2)]
    deliver(target, stream.batch(*users, *orders), first=True)
    assert names(place, "orders") == []
    assert [p.reason for p in target.parked()] == ["parent", "parent"]
    assert asked(target) == {"app.users": ["u1", "u2"]}
    deliver(target, stream.batch(d(STRICT, **order(2, 2))))
    assert target.awaited() == 1
    copy = (r(USERS, **user(1)), r(USERS, **user(2)))
    deliver(target, stream.batch(*copy, for_target="t", reader="t"))
    assert (names(place, "orders"), names(place, "users")) == (["o1"], ["u1"])
    assert (target.parked(), target.awaited()) == ([], 0)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_what_a_request_did_not_bring_is_asked_for_again(place: Place) -> None:
    """T20: a copy that was cancelled; one that is still under way is waited for."""
    target, stream = child(place), Stream()
    deliver(target, stream.batch(c(USERS, **user(1)), c(ORDERS, **order(1, 1))), first=True)
    assert asked(target, 7) == {"app.users": ["u1"]}
    target.ask_again(6, [])  # not taken in yet
    assert target.wanted() == {}
    target.ask_again(9, [7])
    assert target.wanted() == {}
    target.ask_again(9, [])
    assert asked(target) == {"app.users": ["u1"]}


@pytest.mark.parametrize("on_leave", ["mark", pytest.param("keep", marks=pytest.mark.full)])
def test_an_ancestor_that_nothing_needs_is_left_as_rows_that_leave_are(
    place: Place, on_leave: str
) -> None:
    mark = {"mark": "gone_away"} if on_leave == "mark" else {}
    target, stream = child(place, on_leave=on_leave, **mark), Stream()
    deliver(target, stream.batch(c(USERS, **user(1, "EU")), c(ORDERS, **order(1, 1))), first=True)
    deliver(target, stream.batch(u(USERS, **user(1))))
    if mark:
        assert [bool(v) for (v,) in place.query("select gone_away from users")] == [False]
    deliver(target, stream.batch(t(ORDERS)))
    assert (names(place, "users"), target.ancestors()) == (["u1"], {})
    if mark:
        assert [bool(v) for (v,) in place.query("select gone_away from users")] == [True]


def test_a_tree_is_brought_branch_by_branch(place: Place) -> None:
    """T20: a table that references itself."""
    people = table(
        "people",
        column("region"),
        column("chief", INT),
        foreign_keys=(foreign_key("chief", "people"),),
    )
    exceptions = {"app.people": TableExceptions(where="region = 'EU'", ancestors=True)}
    target, stream = place.target(exceptions=exceptions), Stream()
    target.prepare([people])

    def person(n: int, region: str, chief: int | None) -> dict[str, Any]:
        return {"id": n, "sync_id": f"p{n}", "region": region, "chief": chief}

    rows = [person(1, "US", None), person(2, "US", 1), person(3, "EU", 2)]
    deliver(target, stream.batch(*(c(people, **row) for row in rows)), first=True)
    for n in (2, 1):
        assert asked(target) == {"app.people": [f"p{n}"]}
        batch = stream.batch(r(people, **rows[n - 1]), for_target="t", reader="t")
        deliver(target, batch)
    tree = (
        "select p.sync_id, c.sync_id from people p left join people c on c.id = p.chief order by 1"
    )
    assert place.query(tree) == [("p1", None), ("p2", "p1"), ("p3", "p2")]
    deliver(target, stream.batch(u(people, **person(3, "US", 2))))
    assert (place.query(tree), target.ancestors()) == ([], {})


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_ancestors_that_cannot_be_followed_are_refused(place: Place) -> None:
    exceptions = {"app.users": EU, "app.orders": BRINGS}
    target = place.target(exceptions=exceptions, primary_keys="copy")
    with pytest.raises(SchemaConflict, match="cannot be brought as ancestors"):
        target.prepare([USERS, ORDERS, FIRMS])


class Shop:
    """A source that changes at random, and what a child with ancestors is to have of it."""

    def __init__(self, random: Random, orders: Any) -> None:
        self.random, self._orders = random, orders
        self.rows: dict[str, dict[int, dict[str, Any]]] = {"firms": {}, "users": {}, "orders": {}}
        self._tables = {"firms": FIRMS, "users": USERS, "orders": orders}
        self._next = 0

    def change(self) -> Any:
        """One change, as the log has it."""
        name = self.random.choice(list(self.rows))
        rows, table = self.rows[name], self._tables[name]
        what = self.random.choice("cuud")
        if what == "c" or not rows:
            self._next += 1
            rows[self._next] = self._row(name, self._next)
            return c(table, **rows[self._next])
        n = self.random.choice(list(rows))
        column = {"firms": "firm_id", "users": "user_id"}.get(name)
        children = [row for of in self.rows.values() for row in of.values()]
        if what == "d" and not any(row.get(column) == n for row in children if column):
            return d(table, **rows.pop(n))
        rows[n] = self._row(name, n)
        return u(table, **rows[n])

    def _row(self, name: str, n: int) -> dict[str, Any]:
        region = self.random.choice(["EU", "US"])
        if name == "firms":
            return firm(n, region, self.random.choice("abc"))
        parents = list(self.rows["firms" if name == "users" else "users"])
        may_be_null = name == "users" or self._orders is ORDERS or not parents
        parent = self.random.choice([None, *parents] if may_be_null else parents)
        if name == "users":
            return user(n, region, parent)
        return order(n, parent, self.random.choice([0, 1]))

    def copies(self, wanted: dict[str, list[str]]) -> list[Any]:
        """What a copy of these rows brings."""
        found = []
        for name, identities in wanted.items():
            of = name.partition(".")[2]
            table, rows = self._tables[of], self.rows[of]
            for identity in identities:
                row = rows.get(int(identity[1:]))
                lost = {"id": int(identity[1:]), "sync_id": identity}
                found.append(r(table, **row) if row else d(table, **lost))
        return found

    def seen(self) -> list[list[str]]:
        """The orders, users and firms that are to be there."""
        orders = [o for o in self.rows["orders"].values() if o["total"] > 0]
        needed = {o["user_id"] for o in orders}
        users = [p for p in self.rows["users"].values() if p["region"] == "EU" or p["id"] in needed]
        needed = {p["firm_id"] for p in users}
        firms = [f for f in self.rows["firms"].values() if f["region"] == "EU" or f["id"] in needed]
        return [sorted(row["sync_id"] for row in of) for of in (orders, users, firms)]

    def chain(self) -> list[tuple[Any, Any, Any]]:
        """What CHAIN gives there."""
        found = []
        for o in self.rows["orders"].values():
            p = self.rows["users"].get(o["user_id"], {})
            f = self.rows["firms"].get(p.get("firm_id"), {})  # type: ignore[arg-type]
            if o["total"] > 0:
                found.append((o["sync_id"], p.get("sync_id"), f.get("sync_id")))
        return sorted(found)


@pytest.mark.parametrize(
    ("place", "orders"),
    [
        ("sqlite", ORDERS),
        *(
            pytest.param(kind, orders, marks=pytest.mark.full)
            for kind in KINDS
            for orders in (ORDERS, STRICT)
            if (kind, orders) != ("sqlite", ORDERS)
        ),
    ],
    indirect=["place"],
)
def test_any_history_ends_with_what_is_needed_and_nothing_else(place: Place, orders: Any) -> None:
    """T20, T71: copies come late, twice, or when they are needed no more."""
    seed = int(os.environ.get("HEADWATER_SEED", "0")) or SystemRandom().randrange(1 << 32)
    print("HEADWATER_SEED =", seed)
    target, stream, shop = child(place, orders), Stream(), Shop(Random(seed), orders)
    asked_for: list[dict[str, list[str]]] = []
    for n in range(60):
        changes = [shop.change() for _ in range(shop.random.randrange(1, 6))]
        deliver(target, stream.batch(*changes), first=n == 0)
        asked_for += [found] if (found := asked(target)) else []
        if asked_for and shop.random.random() < 0.3:
            copy = shop.copies(shop.random.choice(asked_for))
            deliver(target, stream.batch(*copy, for_target="t", reader="t"))
    while target.awaited():
        target.ask_again(7, [])
        deliver(target, stream.batch(*shop.copies(asked(target)), for_target="t", reader="t"))
    assert [names(place, of) for of in ("orders", "users", "firms")] == shop.seen()
    assert sorted(place.query(CHAIN)) == shop.chain()
    assert target.parked() == []
