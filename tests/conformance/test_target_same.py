"""Every target: two rows that turn out to be one (T38), by a unique key that configuration calls
decisive. Without it, and where the source has both, the row that comes is parked.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from apply.recorded import outcome
from apply.target import Target
from schemas.conflict import ConflictRules, decide
from schemas.errors import SchemaConflict
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
    place,
    table,
    u,
)

__all__ = ["place"]

USERS = table("users", column("mail"), column("name"), uniques=(("mail",),))
ORDERS = table("orders", column("user_id", INT), foreign_keys=(foreign_key("user_id", "users"),))
TAGS = table("tags", column("word"), column("weight", INT), uniques=(("word",),))
RULES = ConflictRules(same_by=("mail",))


def user(number: int, mail: str, name: str = "source", make: Any = c) -> Change:
    made: Change = make(USERS, id=number, sync_id=f"u{number}", mail=mail, name=name)
    return made


def order(number: int, user_id: int, make: Any = c) -> Change:
    made: Change = make(ORDERS, id=number, sync_id=f"o{number}", user_id=user_id)
    return made


def ready(place: Place, rules: ConflictRules | None = RULES) -> tuple[Stream, Target]:
    """A target with rows of its own: one that has an identity and children, one that has none."""
    conflicts = {} if rules is None else {"app.users": rules}
    target = place.target(parked_limit=100, conflicts=conflicts)
    text = "text" if place.is_sqlite else "varchar(50)"
    place.execute(
        f"create table users (id {place.serial}, sync_id {text} unique, mail {text} unique, "
        f"name {text})"
    )
    target.prepare([USERS, ORDERS, TAGS])
    place.execute(
        "insert into users (id, sync_id, mail, name) values (50, 'local', 'ada', 'mine')",
        "insert into orders (sync_id, user_id) values ('o-local', 50)",
    )
    return Stream(), target


def users(place: Place) -> list[tuple[Any, ...]]:
    return place.query("select id, sync_id, mail, name from users order by mail")


def leads(place: Place) -> dict[str, str]:
    found = place.query(
        "select o.sync_id, u.sync_id from orders o join users u on u.id = o.user_id"
    )
    return dict(found)


def test_it_keeps_its_key_and_takes_the_sources_identity(place: Place) -> None:
    """T38: its children stay, the source's children come to it, and both identities find it."""
    stream, target = ready(place)
    deliver(target, stream.batch(user(1, "ada"), user(2, "bob"), order(1, 1), order(2, 2)))
    assert target.parked() == []
    assert users(place)[0] == (50, "u1", "ada", "source")
    assert leads(place) == {"o-local": "u1", "o1": "u1", "o2": "u2"}
    (recorded,) = target.conflicts()
    assert (recorded.row_key, recorded.outcome) == ('{"sync_id":"u1"}', "source")
    assert recorded.rule == "same_by mail, source_wins"
    assert recorded.conflict.mine == {"sync_id": "local", "mail": "ada", "name": "mine"}
    other = ConflictRules(policy="target_wins")
    kinds = {name: USERS.by_name[name].kind for name in ("mail", "name")}
    assert outcome(recorded.conflict, decide(recorded.conflict, other, kinds)) == "target"
    # A change that names it as it was, and one of a child that came under that key.
    named = c(USERS, id=9, sync_id="local", mail="ada", name="by its alias")
    deliver(target, stream.batch(named, order(3, 9)))
    assert users(place)[0] == (50, "u1", "ada", "by its alias")
    assert leads(place)["o3"] == "u1"
    deliver(target, stream.batch(d(USERS, id=9, sync_id="local", mail="ada", name="x")))
    assert len(users(place)) == 2
    deliver(target, stream.batch(user(1, "ada", "later", make=u)))
    assert users(place)[0] == (50, "u1", "ada", "later")
    assert target.parked() == []


@pytest.mark.full
def test_an_alias_ends_with_its_row(place: Place) -> None:
    """T38: what comes under it later is a row of its own, also in the very batch."""
    stream, target = ready(place)
    deliver(target, stream.batch(user(1, "ada")))
    place.execute("delete from orders")
    gone = d(USERS, id=1, sync_id="u1", mail="ada", name="source")
    new = c(USERS, id=1, sync_id="local", mail="ada", name="new")
    deliver(target, stream.batch(gone, new))
    assert [row[1:] for row in users(place)] == [("local", "ada", "new")]
    assert place.query("select count(*) from headwater_alias") == [(0,)]


@pytest.mark.full
def test_the_policies_decide_its_columns(place: Place) -> None:
    """T38: nothing of it where the target wins, and the key is one all the same."""
    rules = ConflictRules(policy="target_wins", columns={"name": "max"}, same_by=("mail",))
    stream, target = ready(place, rules)
    place.execute("insert into users (id, mail, name) values (51, 'bob', 'zoe')")
    deliver(target, stream.batch(user(1, "ada"), user(2, "bob"), order(2, 2)))
    assert users(place) == [(50, "u1", "ada", "source"), (51, "u2", "bob", "zoe")]
    assert leads(place) == {"o-local": "u1", "o2": "u2"}
    found = [(one.outcome, orjson.loads(one.written or "null")) for one in target.conflicts()]
    assert found == [("merged", {"name": "source"}), ("target", None)]
    # A row without an identity leaves no alias.
    assert place.query("select alias, identity from headwater_alias") == [("local", "u1")]


@pytest.mark.full
def test_of_two_that_are_the_same_row_the_first_is(place: Place) -> None:
    """T38: set-wise, and each row of the target once; the other waits as any collision does."""
    stream, target = ready(place)
    more = ", ".join(f"('l{n}', 'm{n}', 'mine')" for n in range(40))
    place.execute(f"insert into users (sync_id, mail, name) values {more}")
    before = place.query("select id, mail from users order by mail")
    rows = [user(n, f"m{n}") for n in range(40)]
    deliver(target, stream.batch(*rows, user(99, "m7")))
    assert [change.row_key for change in target.parked()] == ['{"sync_id":"u99"}']
    assert place.query("select id, mail from users order by mail") == before
    assert {row[1] for row in users(place)} == {"u" + str(n) for n in range(40)} | {"local"}
    assert len(target.conflicts()) == 40


@pytest.mark.parametrize(
    "rules",
    [
        None,
        pytest.param(
            ConflictRules(policy="park", same_by=("mail",)), id="park", marks=pytest.mark.full
        ),
    ],
)
def test_without_the_rule_nothing_is_altered(place: Place, rules: ConflictRules | None) -> None:
    """T38, default: the other row is as it was, and the one that comes is parked with its child;
    the rule, once set, applies to what is parked.
    """
    stream, target = ready(place, rules)
    deliver(target, stream.batch(user(1, "ada"), order(1, 1)))
    assert [change.reason for change in target.parked()] == ["unique", "parent"]
    assert users(place) == [(50, "local", "ada", "mine")]
    again = place.target(parked_limit=100, conflicts={"app.users": RULES})
    again.retry()
    assert again.parked() == []
    assert users(place) == [(50, "u1", "ada", "source")]
    assert leads(place) == {"o-local": "u1", "o1": "u1"}


@pytest.mark.full
def test_rows_that_are_both_the_sources_are_not_one(place: Place) -> None:
    """T38: a row of its that waits, also of a table that nothing references; one that is here
    already; one that is equal by a collation alone.
    """
    rules = {"app.users": RULES, "app.tags": ConflictRules(same_by=("word",))}
    stream, target = ready(place)
    target = place.target(parked_limit=100, conflicts=rules)
    place.check("tags", "weight", "> 0")
    tag: dict[str, Any] = {"id": 1, "sync_id": "t1", "word": "a", "weight": 1}
    deliver(target, stream.batch(user(2, "b"), c(TAGS, **tag)))
    moved = u(TAGS, **tag | {"word": "x", "weight": -1})
    deliver(target, stream.batch(user(2, "ada", make=u), moved))
    deliver(target, stream.batch(c(TAGS, id=2, sync_id="t2", word="a", weight=2), user(3, "ADA")))
    waits = [(change.row_key, change.reason) for change in target.parked()]
    assert waits[:3] == [
        ('{"sync_id":"u2"}', "unique"),
        ('{"sync_id":"t1"}', "value"),
        ('{"sync_id":"t2"}', "unique"),
    ]
    assert [key for key, _ in waits[3:]] == (['{"sync_id":"u3"}'] if place.is_mysql else [])
    assert place.query("select sync_id, word from tags") == [("t1", "a")]
    assert target.conflicts() == []
    # Mended, each is itself.
    target.edit(target.parked()[1].number, {"weight": 1})
    target.retry()
    assert sorted(place.query("select sync_id, word from tags")) == [("t1", "x"), ("t2", "a")]


def test_the_rule_needs_a_unique_key(place: Place) -> None:
    ready(place)
    strict = place.target(conflicts={"app.tags": ConflictRules(same_by=("weight",))})
    with pytest.raises(SchemaConflict, match="has no unique key"):
        strict.prepare([TAGS])
