"""Every target: rows that stand for parents which have not come (T15). They are made where that is
configured, become their parents in place, and are never taken for rows.
"""

from __future__ import annotations

from typing import Any

import pytest

from apply.target import Target
from schemas.change import Sweep
from schemas.kinds import Kind
from schemas.table import Table
from tests.conformance.targets import (
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
    r,
    s,
    t,
    table,
    u,
)
from tests.conformance.test_target_random_history import TABLES, Model, applied, assert_equal

__all__ = ["place"]

EACH = {"app.*": "placeholder"}
TEXT = Kind(name="text", length=50)
USERS = table(
    "users",
    column("mail"),
    column("name", TEXT, nullable=False),
    column("born", Kind(name="date"), nullable=False),
    column("score", Kind(name="decimal", precision=8, scale=2), nullable=False),
    uniques=(("mail",),),
)
ORDERS = table(
    "orders",
    column("user_id", INT, nullable=False),
    column("note"),
    foreign_keys=(foreign_key("user_id", "users"),),
)
NODES = table(
    "nodes",
    column("parent_id", INT),
    column("label", TEXT, nullable=False),
    foreign_keys=(foreign_key("parent_id", "nodes"),),
)


def user(number: int, make: Any = c, **more: Any) -> Change:
    row = {"id": number, "sync_id": f"u{number}", "mail": f"m{number}", "name": "Ada"}
    made: Change = make(USERS, **row | {"born": "1815-12-10", "score": "1.50"} | more)
    return made


def order(number: int, user_id: int, make: Any = c) -> Change:
    made: Change = make(ORDERS, id=number, sync_id=f"o{number}", user_id=user_id, note="n")
    return made


def node(number: int, parent_id: int | None, make: Any = c) -> Change:
    made: Change = make(NODES, id=number, sync_id=f"n{number}", parent_id=parent_id, label="l")
    return made


def ready(place: Place, *tables: Table, **placement: Any) -> tuple[Stream, Target]:
    target = place.target(parked_limit=100, missing_parents=EACH, **placement)
    target.prepare(tables or (USERS, ORDERS, NODES))
    return Stream(), target


def standing(target: Target) -> list[tuple[str, str, int, str]]:
    return [(p.table_name, p.source_key, p.is_named, p.wanted_by) for p in target.placeholders()]


def joined(place: Place) -> list[tuple[Any, ...]]:
    return place.query(
        "select o.sync_id, u.sync_id, u.name from orders o join users u on u.id = o.user_id "
        "order by o.sync_id"
    )


def keys(place: Place) -> list[tuple[Any, ...]]:
    return place.query("select id from users order by id")


@pytest.mark.parametrize("primary_keys", ["local", pytest.param("copy", marks=pytest.mark.full)])
def test_the_parent_comes_to_its_placeholder(place: Place, primary_keys: str) -> None:
    """T15: of a parent of which nothing is known, also when two children wait for it; its row takes
    the place, under the same local key, and nothing is left.
    """
    stream, target = ready(place, primary_keys=primary_keys)
    deliver(target, stream.batch(user(3), order(1, 7), order(2, 7), order(3, 3)))
    deliver(target, stream.batch(order(4, 7)))
    assert target.parked() == []
    assert standing(target) == [("app.users", "7", 0, "app.orders.user_id")]
    before = keys(place)
    assert len(before) == 2
    assert [(o, name) for o, _, name in joined(place)] == [
        ("o1", ""), ("o2", ""), ("o3", "Ada"), ("o4", "")
    ]  # fmt: skip
    another = place.target(parked_limit=100, missing_parents=EACH, primary_keys=primary_keys)
    deliver(another, stream.batch(order(5, 7), user(7, u)), target.checkpoint())
    assert standing(another) == []
    assert keys(place) == before
    assert joined(place) == [
        ("o1", "u7", "Ada"), ("o2", "u7", "Ada"), ("o3", "u3", "Ada"), ("o4", "u7", "Ada"),
        ("o5", "u7", "Ada"),
    ]  # fmt: skip
    assert held(another, USERS)[1]["score"] == "1.5"
    deliver(another, stream.batch(user(7, u, name="Lovelace"), order(6, 7)))
    assert {name for _, who, name in joined(place) if who == "u7"} == {"Lovelace"}
    assert standing(another) == []


def test_a_parent_whose_identity_is_known_has_it_from_the_start(place: Place) -> None:
    """T15: the parent is refused itself, or known by a seed alone."""
    stream, target = ready(place)
    place.check("users", "mail", "<> 'bad'")
    deliver(target, stream.batch(user(1, mail="bad"), order(1, 1), s(USERS, 2, "u2"), order(2, 2)))
    assert [change.row_key for change in target.parked()] == ['{"sync_id":"u1"}']
    assert joined(place) == [("o1", "u1", ""), ("o2", "u2", "")]
    assert [(key, named) for _, key, named, _ in standing(target)] == [("1", 1), ("2", 1)]
    # Of a later version only what was changed: it is still incomplete.
    deliver(target, stream.batch(user(2, u, name="Grace")))
    assert [key for _, key, _, _ in standing(target)] == ["1"]
    target.edit(target.parked()[0].number, {"mail": "good"})
    target.retry()
    assert standing(target) == []
    assert joined(place) == [("o1", "u1", "Ada"), ("o2", "u2", "Grace")]


@pytest.mark.full
def test_a_partial_row_leaves_it_incomplete(place: Place) -> None:
    stream, target = ready(place)
    deliver(target, stream.batch(s(USERS, 2, "u2"), order(2, 2)))
    deliver(target, stream.batch(u(USERS, id=2, sync_id="u2", name="Grace")))
    assert [key for _, key, _, _ in standing(target)] == ["2"]
    assert joined(place) == [("o2", "u2", "Grace")]
    deliver(target, stream.batch(user(2, r)))
    assert standing(target) == []


@pytest.mark.full
def test_rows_of_a_tree_stand_for_each_other(place: Place) -> None:
    """T15: a placeholder of the child's own table."""
    stream, target = ready(place)
    deliver(target, stream.batch(node(1, 2), node(3, 2)))
    assert standing(target) == [("app.nodes", "2", 0, "app.nodes.parent_id")]
    deliver(target, stream.batch(node(2, 4)))
    assert standing(target) == [("app.nodes", "4", 0, "app.nodes.parent_id")]
    deliver(target, stream.batch(node(4, None)))
    found = {row["sync_id"]: row["parent_id"] for row in held(target, NODES)}
    assert found == {
        "n1": '{"sync_id":"n2"}',
        "n2": '{"sync_id":"n4"}',
        "n3": '{"sync_id":"n2"}',
        "n4": None,
    }
    assert standing(target) == []


def test_a_delete_removes_it(place: Place) -> None:
    """T15: with the parent's own delete, also under an identity that was not known, and with a
    truncate; and a key that is used again is somebody else's.
    """
    stream, target = ready(place)
    deliver(target, stream.batch(order(1, 7), order(2, 8), s(USERS, 8, "u8")))
    assert len(standing(target)) == 2
    deliver(target, stream.batch(d(ORDERS, id=1, sync_id="o1", user_id=7, note="n"), user(7, d)))
    assert [key for _, key, _, _ in standing(target)] == ["8"]
    deliver(target, stream.batch(user(7, sync_id="u70"), order(3, 7)))
    assert joined(place) == [("o2", "u8", ""), ("o3", "u70", "Ada")]
    deliver(target, stream.batch(t(ORDERS), t(USERS)))
    assert standing(target) == []
    assert keys(place) == []


def test_what_nobody_references_is_removed_on_demand(place: Place) -> None:
    """T15: not what is still referenced; and what was removed may come after all."""
    stream, target = ready(place)
    deliver(target, stream.batch(user(1), order(1, 7), order(2, 8)))
    deliver(target, stream.batch(order(1, 1, u)))
    gone = target.remove_placeholders(["app.users"])
    assert [one.source_key for one in gone] == ["7"]
    assert [key for _, key, _, _ in standing(target)] == ["8"]
    assert target.remove_placeholders() == []
    assert len(keys(place)) == 2
    deliver(target, stream.batch(order(3, 7)))
    assert [key for _, key, _, _ in standing(target)] == ["8", "7"]
    deliver(target, stream.batch(user(7), user(8)))
    assert standing(target) == []
    assert [(o, u) for o, u, _ in joined(place)] == [("o1", "u1"), ("o2", "u8"), ("o3", "u7")]


@pytest.mark.full
def test_a_parent_that_the_target_had_all_along_takes_the_children(place: Place) -> None:
    """T15: nothing said under which key; the two rows become one, and its own columns stay."""
    stream, target = ready(place)
    place.execute(
        "insert into users (sync_id, mail, name, born, score) "
        "values ('u7', 'mine', 'Mine', '2000-01-01', 1)"
    )
    deliver(target, stream.batch(order(1, 7), order(2, 7)))
    assert len(keys(place)) == 2
    deliver(target, stream.batch(user(7, u)))
    assert len(keys(place)) == 1
    assert joined(place) == [("o1", "u7", "Ada"), ("o2", "u7", "Ada")]
    assert standing(target) == []


def test_what_cannot_be_made_is_parked_as_before(place: Place) -> None:
    """T15: a unique column that is NOT NULL, a reference that is, a check; preflight says which."""
    strict = table("strict", column("code", TEXT, nullable=False), uniques=(("code",),))
    picky = table("picky", column("size", INT, nullable=False))
    child = table(
        "child",
        column("order_id", INT, nullable=False),
        column("strict_id", INT),
        column("picky_id", INT),
        foreign_keys=(
            foreign_key("order_id", "orders"),
            foreign_key("strict_id", "strict"),
            foreign_key("picky_id", "picky"),
        ),
    )
    tables = [USERS, ORDERS, strict, picky, child]
    stream, target = ready(place, *tables)
    place.check("picky", "size", "> 0")
    row = {"strict_id": None, "picky_id": None}
    first = [user(1), order(1, 1)]
    deliver(target, stream.batch(
        *first,
        c(child, id=1, sync_id="c1", order_id=9, **row),
        c(child, id=2, sync_id="c2", order_id=1, **row | {"strict_id": 9}),
        c(child, id=3, sync_id="c3", order_id=1, **row | {"picky_id": 9}),
        c(child, id=4, sync_id="c4", order_id=1, **row),
    ))  # fmt: skip
    assert [(one.row_key, one.reason, one.waits_key) for one in target.parked()] == [
        (f'{{"sync_id":"c{n}"}}', "parent", "9") for n in (1, 2, 3)
    ]
    assert standing(target) == []
    warned = {f.where for f in target.check(tables) if "placeholders" in f.problem}
    assert warned == {"app.child.order_id", "app.child.strict_id"}
    parents = [c(strict, id=9, sync_id="s9", code="x"), c(picky, id=9, sync_id="p9", size=1)]
    deliver(target, stream.batch(order(9, 1), *parents))
    assert target.parked() == []


@pytest.mark.full
def test_a_placeholder_is_no_conflict(place: Place) -> None:
    """T15: what the source's row differs in was nobody's change."""
    from schemas.conflict import ConflictRules

    rules = {"app.users": ConflictRules(policy="target_wins")}
    stream, target = ready(place, conflicts=rules)
    deliver(target, stream.batch(s(USERS, 2, "u2"), order(2, 2)))
    after = user(2, u).after
    assert after is not None
    deliver(target, stream.batch(u(USERS, before=after | {"name": "old"}, **after)))
    assert target.conflicts() == []
    assert joined(place) == [("o2", "u2", "Ada")]


@pytest.mark.full
def test_it_is_made_in_a_referees_table_too(place: Place) -> None:
    """T15: its pair is known from the start."""
    users = table("users", column("name", TEXT, nullable=False), identity=("id",))
    stream, target = ready(place, users, ORDERS, referees=["app.users"])
    place.execute("insert into users (name, sync_id) values ('mine', 'x')")
    deliver(target, stream.batch(order(1, 7), order(2, 7)))
    assert standing(target) == [("app.users", "7", 1, "app.orders.user_id")]
    deliver(target, stream.batch(c(users, id=7, sync_id="y", name="Ada")))
    assert standing(target) == []
    assert joined(place) == [("o1", "y", "Ada"), ("o2", "y", "Ada")]
    assert len(keys(place)) == 2


@pytest.mark.full
def test_copies_and_rebuilds_settle_them(place: Place) -> None:
    """T15: a copy of the whole table deletes those that the source has not, and a rebuild keeps
    what is still referenced.
    """
    stream, target = ready(place)
    deliver(target, stream.batch(user(1), order(1, 7), order(2, 8), s(USERS, 8, "u8")))
    deliver(target, stream.batch(order(1, 1, u)))
    begins, ends = (Sweep("app.users", "1", what) for what in ("begins", "ends"))
    deliver(target, stream.batch(user(1, r), sweeps=(begins,)))
    deliver(target, stream.batch(sweeps=(ends,)))
    assert [key for _, key, _, _ in standing(target)] == ["8"]
    assert len(keys(place)) == 2
    deliver(target, stream.batch(order(3, 9)))
    every = stream.batch(user(1, r), user(8, r), order(1, 1, r), order(2, 8, r), order(3, 9, r))
    target.merge(every, ["app.users", "app.orders"], expect=target.checkpoint())
    assert [key for _, key, _, _ in standing(target)] == ["9"]
    assert [(o, name) for o, _, name in joined(place)] == [("o1", "Ada"), ("o2", "Ada"), ("o3", "")]
    deliver(target, stream.batch(user(9)))
    assert standing(target) == []


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 20))
def test_a_random_history_leaves_none(place: Place, seed: int) -> None:
    """T15: of rows that the target refuses for a while, of every shape of reference."""
    model, stream = Model(seed, bad=0.1), Stream()
    target = place.target(parked_limit=1000, missing_parents=EACH)
    target.prepare(list(TABLES.values()))
    for name in TABLES:
        place.check(name, "note", "<> 'bad'")
    applied(target, stream, model)
    for name in TABLES:
        place.uncheck(name)
    target.retry()
    assert (target.parked(), target.placeholders()) == ([], [])
    assert_equal(target, model)
