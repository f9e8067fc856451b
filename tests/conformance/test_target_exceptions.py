"""Tables that differ at a target by configuration: filtered, renamed, computed and own columns."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from apply import exempt
from apply.exceptions import TableExceptions
from apply.target import Target
from schemas.change import Sweep
from schemas.errors import Poison, SchemaConflict
from schemas.kinds import Kind
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
    t,
    table,
    u,
)

__all__ = ["place"]

USERS = table(
    "users",
    column("region"),
    column("email"),
    column("price", INT),
    uniques=(("email",),),
)
ORDERS = table(
    "orders",
    column("user_id", INT),
    column("total", INT),
    foreign_keys=(foreign_key("user_id", "users"),),
)
EU: dict[str, Any] = {"where": "region = 'EU'"}


def user(n: int, region: str | None = "EU", **more: Any) -> dict[str, Any]:
    row = {"id": n, "sync_id": f"u{n}", "region": region, "email": f"U{n}@x", "price": n}
    return row | more


def order(n: int, user_id: int | None) -> dict[str, Any]:
    return {"id": n, "sync_id": f"o{n}", "user_id": user_id, "total": n}


def child(place: Place, *tables: Any, **users: Any) -> Target:
    """A prepared target with these exceptions of the table of users."""
    target = place.target(exceptions={"app.users": TableExceptions(**users)})
    target.prepare(tables or [USERS])
    return target


def names(place: Place, what: str = "sync_id", of: str = "users") -> list[Any]:
    return [value for (value,) in place.query(f"select {what} from {of} order by sync_id")]


def test_only_rows_that_meet_the_condition_come_and_stay(place: Place) -> None:
    """T71: rows enter whole and leave; a replay of everything tells the same."""
    target, stream = child(place, **EU), Stream()
    stream.batch(*(c(USERS, **user(n, "EU" if n < 4 else "US")) for n in range(1, 7)))
    stream.batch(
        c(USERS, **user(7, None)), u(USERS, **user(1, "US")), u(USERS, **user(4, "EU", price=40))
    )
    stream.batch(
        u(USERS, **user(2, price=20)), d(USERS, **user(3)), u(USERS, **user(5, "US", price=9))
    )
    stream.batch(
        c(USERS, **user(8)),
        u(USERS, **user(8, "US")),
        c(USERS, **user(9, "US")),
        u(USERS, **user(9)),
    )
    for _ in range(2):
        for batch in stream.batches():
            deliver(target, batch)
        assert place.query("select sync_id, price from users order by sync_id") == [
            ("u2", 20),
            ("u4", 40),
            ("u9", 9),
        ]


@pytest.mark.parametrize("on_leave", ["keep", "mark"])
def test_rows_that_leave_are_kept_or_marked_by_choice(place: Place, on_leave: str) -> None:
    mark = {"mark": "gone_away"} if on_leave == "mark" else {}
    target, stream = child(place, on_leave=on_leave, **mark, **EU), Stream()
    deliver(target, stream.batch(*(c(USERS, **user(n)) for n in range(1, 5))), first=True)
    left = stream.batch(
        u(USERS, **user(1, "US", price=11)), u(USERS, **user(2, "US")), c(USERS, **user(5, "US"))
    )
    deliver(target, left)
    assert names(place) == ["u1", "u2", "u3", "u4"]
    assert names(place, "region")[:2] == ["EU", "EU"], "as it was"
    if mark:
        assert [bool(v) for v in names(place, "gone_away")] == [True, True, False, False]
    # Back again, and deleted at the source.
    deliver(target, stream.batch(u(USERS, **user(1, price=12)), d(USERS, **user(2, "US"))))
    assert place.query("select sync_id, price from users order by sync_id")[0] == ("u1", 12)
    assert names(place) == ["u1", "u3", "u4"]
    if mark:
        assert [bool(v) for v in names(place, "gone_away")] == [False, False, False]


def test_a_partial_row_that_enters_names_what_it_needs(place: Place) -> None:
    """An unchanged TOAST value of a row that was not here is not in the log."""
    target, stream = child(place, **EU), Stream()
    deliver(target, stream.batch(c(USERS, **user(1, "US"))), first=True)
    partial = user(1)
    del partial["email"]
    with pytest.raises(Poison, match="holds only some") as refused:
        deliver(target, stream.batch(u(USERS, **partial)))
    assert "REPLICA IDENTITY FULL" in refused.value.hint


def test_a_condition_over_a_value_that_the_log_lacks_is_not_guessed(place: Place) -> None:
    target, stream = child(place, **EU), Stream()
    partial = user(1)
    del partial["region"]
    # Within a batch the value is in an older row.
    deliver(target, stream.batch(c(USERS, **user(1)), u(USERS, **partial)), first=True)
    assert names(place) == ["u1"]
    with pytest.raises(Poison, match=r"lacks its column region.*batch 2, ordinal 0") as refused:
        deliver(target, stream.batch(u(USERS, **partial)))
    assert "REPLICA IDENTITY FULL" in refused.value.hint


def test_a_reference_to_a_row_that_is_not_here_is_null_until_it_comes(place: Place) -> None:
    """T20: never dangling; it is set when the parent enters, emptied when it leaves."""
    target, stream = child(place, USERS, ORDERS, **EU), Stream()
    batch = stream.batch(
        c(USERS, **user(1)),
        c(USERS, **user(2, "US")),
        c(ORDERS, **order(1, 1)),
        c(ORDERS, **order(2, 2)),
    )
    deliver(target, batch, first=True)
    keys = (
        "select o.sync_id, u.sync_id from orders o left join users u on u.id = o.user_id order by 1"
    )
    assert place.query(keys) == [("o1", "u1"), ("o2", None)]
    assert place.query("select count(*) from orders where user_id is null") == [(1,)]
    deliver(target, stream.batch(u(USERS, **user(2))))
    assert place.query(keys) == [("o1", "u1"), ("o2", "u2")]
    deliver(target, stream.batch(u(USERS, **user(1, "US"))))
    assert place.query(keys) == [("o1", None), ("o2", "u2")]
    deliver(target, stream.batch(u(ORDERS, **order(1, 1) | {"total": 7})))
    assert place.query(keys) == [("o1", None), ("o2", "u2")]
    deliver(target, stream.batch(u(USERS, **user(1)), u(USERS, **user(2, "US"))))
    assert place.query(keys) == [("o1", "u1"), ("o2", None)]


def test_references_to_rows_that_are_not_here_are_left_open_together(place: Place) -> None:
    """T20: ten times as many take no statement more, waiting or when their parent comes."""
    target, stream = child(place, USERS, ORDERS, **EU), Stream()
    statements = []
    engine = target._server.engine  # type: ignore[attr-defined]
    sa.event.listen(engine, "before_cursor_execute", lambda *of: statements.append(of[2]))
    counts = []
    for first, many in ((1, 20), (1_000, 20), (2_000, 200)):
        users = [c(USERS, **user(n, "US")) for n in (first, first + 1)]
        orders = [c(ORDERS, **order(n, first)) for n in range(first, first + many)]
        deliver(target, stream.batch(*users), first=first == 1)
        for batch in (stream.batch(*orders), stream.batch(u(USERS, **user(first)))):
            at = target.checkpoint()
            statements.clear()
            target.apply(batch, expect=at)
            counts.append(len(statements))
        assert place.query("select count(*) from orders where user_id is null") == [(0,)]
    assert counts[2:4] == counts[4:], "once there is something that waits"


def test_a_tree_keeps_its_branches_when_rows_of_it_leave(place: Place) -> None:
    """T20: a table that references itself."""
    people = table(
        "people",
        column("region"),
        column("chief", INT),
        foreign_keys=(foreign_key("chief", "people"),),
    )
    target = place.target(exceptions={"app.people": TableExceptions(**EU)})
    target.prepare([people])
    stream = Stream()

    def person(n: int, region: str, chief: int | None) -> dict[str, Any]:
        return {"id": n, "sync_id": f"p{n}", "region": region, "chief": chief}

    rows = [person(3, "EU", 2), person(1, "EU", None), person(2, "US", 1), person(4, "EU", 3)]
    deliver(target, stream.batch(*(c(people, **row) for row in rows)), first=True)
    tree = (
        "select p.sync_id, c.sync_id from people p left join people c on c.id = p.chief order by 1"
    )
    assert place.query(tree) == [("p1", None), ("p3", None), ("p4", "p3")]
    deliver(target, stream.batch(u(people, **person(2, "EU", 1))))
    assert place.query(tree) == [("p1", None), ("p2", "p1"), ("p3", "p2"), ("p4", "p3")]
    deliver(target, stream.batch(u(people, **person(3, "US", 2))))
    assert place.query(tree) == [("p1", None), ("p2", "p1"), ("p4", None)]


def test_a_reference_that_cannot_be_null_stops_with_the_reason(place: Place) -> None:
    """T20"""
    strict = table(
        "orders",
        column("user_id", INT, nullable=False),
        column("total", INT),
        foreign_keys=(foreign_key("user_id", "users"),),
    )
    target, stream = child(place, USERS, strict, **EU), Stream()
    (warned,) = [f for f in target.check([USERS, strict]) if "is not here" in f.problem]
    assert not warned.refused
    batch = stream.batch(c(USERS, **user(1, "US")), c(strict, **order(1, 1)))
    with pytest.raises(Poison, match="none of the target's rows"):
        deliver(target, batch, first=True)


def test_columns_are_renamed_computed_and_left_to_the_target(place: Place) -> None:
    """T91: other columns change, the price stays."""
    target = child(
        place,
        rename={"email": "mail"},
        set={
            "origin": "'shop'",
            "label": "concat(upper(region), '/', email)",
            "copied": "price",
            "n": "-1",
        },
        own=["price"],
    )
    stream = Stream()
    deliver(target, stream.batch(c(USERS, **user(1)), c(USERS, **user(2, None))), first=True)
    seen = "select sync_id, mail, price, origin, label, copied, n from users order by sync_id"
    assert place.query(seen) == [
        ("u1", "U1@x", 1, "shop", "EU/U1@x", 1, -1),
        ("u2", "U2@x", 2, "shop", None, 2, -1),
    ]
    place.execute("update users set price = 77")
    # A swap of a renamed unique column.
    deliver(
        target,
        stream.batch(
            u(USERS, **user(1, "us", email="U2@x", price=5)), u(USERS, **user(2, email="U1@x"))
        ),
    )
    assert place.query(seen) == [
        ("u1", "U2@x", 77, "shop", "US/U2@x", 5, -1),
        ("u2", "U1@x", 77, "shop", "EU/U1@x", 2, -1),
    ]
    compared = {"sync_id", "region", "email", "origin", "label", "copied", "n"}
    assert set(target.kinds(USERS)) == compared, "by the source's names, without the price"
    partial = user(1)
    del partial["email"]
    deliver(target, stream.batch(u(USERS, **partial | {"price": 6})))
    assert place.query(seen)[0] == ("u1", "U2@x", 77, "shop", "US/U2@x", 6, -1), "not made of parts"


def test_a_column_may_be_computed_in_its_own_place(place: Place) -> None:
    target, stream = child(place, set={"email": "lower(trim(email))"}), Stream()
    deliver(target, stream.batch(c(USERS, **user(1, email=" A@X "))), first=True)
    assert names(place, "email") == ["a@x"]


def test_an_adopted_table_with_other_names_is_filled(place: Place) -> None:
    """A renamed identity and key, a reference by its other name, a column of its own called as
    the source's.
    """
    place.execute(
        f"create table users (number {place.serial}, external_id varchar(36) not null unique,"
        " region varchar(50), mail varchar(50), email varchar(50), price int)",
        "create table orders (id " + place.serial + ", sync_id varchar(36) not null unique,"
        " buyer int, total int, foreign key (buyer) references users (number))",
        "insert into users (number, external_id, email) values (100, 'other', 'mine')",
    )
    target = place.target(
        exceptions={
            "app.users": TableExceptions(
                rename={"id": "number", "sync_id": "external_id", "email": "mail"}
            ),
            "app.orders": TableExceptions(rename={"user_id": "buyer"}),
        }
    )
    target.prepare([USERS, ORDERS])
    stream = Stream()
    deliver(target, stream.batch(c(USERS, **user(1)), c(ORDERS, **order(1, 1))), first=True)
    joined = (
        "select u.external_id, u.mail, u.email, o.total from orders o join users u"
        " on u.number = o.buyer"
    )
    assert place.query(joined) == [("u1", "U1@x", None, 1)]
    deliver(target, stream.batch(u(USERS, **user(1, price=9)), u(ORDERS, **order(1, None))))
    deliver(target, stream.batch(d(USERS, **user(1))))
    assert place.query("select external_id, email from users") == [("other", "mine")]


def test_a_truncate_and_a_merge_know_the_exceptions(place: Place) -> None:
    """A rebuild on top gives what the stream gave."""
    target, stream = child(place, set={"origin": "'shop'"}, own=["price"], **EU), Stream()
    batch = stream.batch(*(c(USERS, **user(n, "EU" if n % 2 else "US")) for n in range(1, 6)))
    deliver(target, batch, first=True)
    place.execute("update users set price = 7, email = 'spoilt' where sync_id = 'u1'")
    place.execute("delete from users where sync_id = 'u3'")
    place.execute("insert into users (sync_id, region) values ('u2', 'US')")
    whole = stream.batch(*(r(USERS, **user(n, "EU" if n % 2 else "US")) for n in range(1, 6)))
    assert target.merge(whole, ["app.users"], expect=target.checkpoint()) == 3
    assert place.query("select sync_id, email, price, origin from users order by sync_id") == [
        ("u1", "U1@x", 7, "shop"),
        ("u3", "U3@x", 3, "shop"),
        ("u5", "U5@x", 5, "shop"),
    ]
    deliver(target, stream.batch(t(USERS), c(USERS, **user(9))))
    assert names(place) == ["u9"]


def test_a_copy_of_the_whole_table_and_a_check_know_the_exceptions(place: Place) -> None:
    """T71, T73: a row wrongly here is extra, and goes with a copy; one that is kept is neither."""
    for on_leave, extra in (("delete", ["u2", "u8"]), ("keep", ["u8"])):
        place.execute("drop table if exists users")
        target, stream = child(place, on_leave=on_leave, **EU), Stream(f"shop_{on_leave}")
        target = place.target(
            f"shop_{on_leave}",
            exceptions={"app.users": TableExceptions(on_leave=on_leave, **EU)},  # type: ignore[arg-type]
        )
        target.prepare([USERS])
        rows = [user(1), user(2, "US"), user(3)]
        deliver(target, stream.batch(*(c(USERS, **row) for row in rows)), first=True)
        for n in ("u2", "u8"):
            place.execute(f"insert into users (sync_id, region, email) values ('{n}', 'EU', '{n}')")
        begins = Sweep("app.users", "1.0", "begins", check=True)
        deliver(target, stream.batch(sweeps=(begins,)))
        deliver(target, stream.batch(*(r(USERS, **row) for row in rows), check=True))
        deliver(target, stream.batch(sweeps=(begins._replace(what="ends"),), check=True))
        (found,) = target.checked()
        assert (found.rows, found.different, sorted(key for _, key in found.listed)) == (
            2,
            0,
            extra,
        )
        copy = Sweep("app.users", "2.0", "begins")
        deliver(target, stream.batch(sweeps=(copy,)))
        deliver(target, stream.batch(*(r(USERS, **row) for row in rows)))
        deliver(target, stream.batch(sweeps=(copy._replace(what="ends"),)))
        assert names(place) == [n for n in ("u1", "u2", "u3") if n not in extra]


@pytest.mark.parametrize(
    ("exceptions", "problem"),
    [
        ({"where": "regoin = 'EU'"}, "regoin"),
        ({"where": "price = 'EU'"}, "compares int with text"),
        ({"set": {"x": "lower(price)"}}, "takes int for text"),
        ({"set": {"sync_id": "'x'"}}, "by which rows are found"),
        ({"own": ["sync_id"]}, "by which rows are found"),
        ({"own": ["prise"]}, "prise"),
        ({"rename": {"mail": "m"}}, "mail"),
        ({"rename": {"email": "region"}}, "two columns"),
    ],
)
def test_exceptions_that_make_no_sense_are_refused_first(
    place: Place, exceptions: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SchemaConflict, match=problem):
        child(place, **exceptions)
    assert place.tables() == set()


def test_exceptions_of_no_table_are_pointed_out(place: Place) -> None:
    target = place.target(exceptions={"app.user": TableExceptions(**EU)})
    (warned,) = [f for f in target.check([USERS]) if "no table" in f.problem]
    assert (warned.where, warned.refused) == ('exceptions."app.user"', False)


def test_a_column_that_the_source_does_not_fill_is_named_first(place: Place) -> None:
    """T98: NOT NULL, no default, unknown to the source."""
    place.execute(
        f"create table users (id {place.serial}, sync_id varchar(36) not null unique,"
        " region varchar(50), email varchar(50), price int, branch varchar(9) not null)"
    )
    with pytest.raises(SchemaConflict, match=r"users\.branch is NOT NULL without a default"):
        child(place)
    target, stream = child(place, set={"branch": "'north'"}), Stream()
    deliver(target, stream.batch(c(USERS, **user(1))), first=True)
    assert names(place, "branch") == ["north"]


def test_excluded_rows_are_left_as_they_are_and_pinned_ones_are_here(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T93: at run time, by the next batch; nothing touches an excluded row."""
    target, stream = child(place, **EU), Stream()
    applier = place.target(exceptions={"app.users": TableExceptions(**EU)})
    rows = [user(1), user(2), user(3, "US"), user(4, "US")]
    deliver(applier, stream.batch(*(c(USERS, **row) for row in rows)), first=True)
    key = b'{"sync_id":"u%d"}'
    monkeypatch.setattr(exempt, "LOOK_S", 0.0)
    target.exempt("app.users", "excluded", [key % 1, key % 9])
    target.exempt("app.users", "pinned", [key % 3])
    assert target.exempted() == {
        "app.users": {key % 1: "excluded", key % 9: "excluded", key % 3: "pinned"}
    }
    deliver(
        applier,
        stream.batch(
            u(USERS, **user(1, price=9)),
            c(USERS, **user(9)),
            u(USERS, **user(3, "US", price=3)),
            u(USERS, **user(2, price=8)),
            u(USERS, **user(4, "US")),
        ),
    )
    seen = "select sync_id, price from users order by sync_id"
    assert place.query(seen) == [("u1", 1), ("u2", 8), ("u3", 3)]
    copy = Sweep("app.users", "2.0", "begins")
    deliver(applier, stream.batch(sweeps=(copy,)))
    deliver(applier, stream.batch(r(USERS, **user(2)), sweeps=(copy._replace(what="ends"),)))
    assert names(place) == ["u1", "u2"], "a copy that lacks them deletes what is not excluded"
    applier.merge(stream.batch(r(USERS, **user(2))), ["app.users"], expect=applier.checkpoint())
    deliver(applier, stream.batch(t(USERS), c(USERS, **user(1, price=2))))
    assert place.query(seen) == [("u1", 1)]
    assert held(applier, USERS) == [], "verify does not read it"
    target.exempt("app.users", "none", [key % 1])
    deliver(applier, stream.batch(u(USERS, **user(1, price=5))))
    assert place.query(seen) == [("u1", 5)]


def test_what_is_computed_may_be_of_any_kind(place: Place) -> None:
    things = table(
        "things",
        column("a", Kind(name="decimal", precision=9, scale=2)),
        column("b", Kind(name="bool")),
        column("c", Kind(name="datetime")),
    )
    target = place.target(
        exceptions={
            "app.things": TableExceptions(set={"x": "coalesce(a, 0.5)", "y": "a > 1", "z": "c"})
        }
    )
    target.prepare([things])
    rows = [
        {"id": n, "sync_id": f"t{n}", "a": a, "b": True, "c": "2026-11-22T12:34:56.7"}
        for n, a in ((1, None), (2, "2.50"))
    ]
    deliver(target, Stream().batch(*(c(things, **row) for row in rows)), first=True)
    found = [
        (float(x), y, str(z)[:19].replace("T", " "))
        for x, y, z in place.query("select x, y, z from things order by sync_id")
    ]
    assert found == [(0.5, None, "2026-11-22 12:34:56"), (2.5, 1, "2026-11-22 12:34:56")]
