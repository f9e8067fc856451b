"""Every target: the pairs of a referee over copies, checks and rebuilds, and as people correct
them.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from random import Random
from typing import Any

import pytest

import apply.database
from apply.target import Target
from schemas.change import Sweep
from schemas.errors import Misconfigured
from tests.conformance.targets import (
    Change,
    Place,
    Stream,
    c,
    d,
    deliver,
    foreign_key,
    held,
    place,
    r,
    u,
)
from tests.conformance.test_target_referee import (
    ORDERS,
    STAFF,
    USERS,
    mails,
    order,
    orders,
    pairs,
    ready,
    replay,
    user,
    users,
)

__all__ = ["place"]


COPYING = {"what": "rows", "after": None, "done": False}
COPIED = {"what": "rows", "after": None, "done": True}


def sweep(what: Any, name: str = "users", **more: Any) -> Sweep:
    return Sweep(f"app.{name}", "7.0", what, **more)


def checked(target: Target) -> dict[str, tuple[int, int, int | None]]:
    return {c.table: (c.rows, c.different, c.extra) for c in target.checked()}


def test_rows_that_were_there_before_are_paired_by_hand(place: Place) -> None:
    """And the pair that was wrong: both rows stay, nothing is written twice."""
    stream, target = ready(place, USERS, ORDERS)
    place.execute(*(f"insert into users (mail) values ('{m}')" for m in ("a", "b", "mine")))
    a, b, mine = (key for key, _ in sorted(users(place).items()))
    assert target.assign("app.users", [(1, a), (2, b)]) == []
    deliver(target, stream.batch(user(1, "a"), user(2, "b2"), user(3, "c"), order(1, 2)))
    assert users(place) == {a: "a", b: "b2", mine: "mine", pairs(place)[3]: "c"}
    assert orders(place) == {"o1": "b2"}
    third = pairs(place)[3]
    assert target.assign("app.users", [(3, mine), (1, a)]) == [(3, third)]
    deliver(target, stream.batch(u(USERS, id=3, mail="d"), order(2, 3)))
    assert users(place) == {a: "a", b: "b2", mine: "d", third: "c"}
    assert orders(place) == {"o1": "b2", "o2": "d"}
    assert target.end_pairs("app.users", [1, 9]) == [(1, a)]
    deliver(target, stream.batch(d(USERS, id=1, mail="a")))
    assert users(place)[a] == "a"
    every = [(p.source_key, p.local_key, p.state) for p in target.pairs("app.users", ended=True)]
    assert every == [(1, a, "ended"), (2, b, "live"), (3, third, "ended"), (3, mine, "live")]
    assert len({p.sync_id for p in target.pairs("app.users", ended=True)}) == 4


def test_a_pair_that_cannot_be_is_refused_and_nothing_changes(place: Place) -> None:
    stream, target = ready(place, USERS)
    deliver(target, stream.batch(user(1), user(2)))
    before = pairs(place)
    for wanted, words in (
        ([(3, before[1])], "paired with source key 1"),
        ([(3, 999_999)], "found no row 999999"),
        ([(1, before[2]), (2, before[2])], "one key twice"),
    ):
        with pytest.raises(Misconfigured, match=words):
            target.assign("app.users", wanted)
    with pytest.raises(Misconfigured, match="with a referee"):
        place.target().end_pairs("app.users", [1])
    assert pairs(place) == before


def test_references_wait_for_the_chunk_that_brings_their_parent(place: Place) -> None:
    """T16 over a first copy, children first; another process goes on; a tree in chunks."""
    stream, target = ready(place, USERS, ORDERS, STAFF)
    copying = {f"app.{n}": COPYING for n in ("users", "orders", "staff")}
    deliver(
        target,
        stream.batch(
            r(ORDERS, id=1, user_id=9, note="o1"),
            r(STAFF, id=1, boss=2, name="a"),
            progress=copying,
        ),
    )
    assert orders(place) == {"o1": None}
    target = place.target(referees=("app.*",))
    done = copying | {"app.users": COPIED, "app.staff": COPIED}
    deliver(
        target,
        stream.batch(r(USERS, id=9, mail="u9"), r(STAFF, id=2, boss=1, name="b"), progress=done),
    )
    assert orders(place) == {"o1": "u9"}
    found = place.query("select s.name, b.name from staff s join staff b on b.id = s.boss")
    assert sorted(found) == [("a", "b"), ("b", "a")]
    assert place.query("select count(*) from headwater_waiting") == [(0,)]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_what_the_log_does_not_show_of_a_cascade_is_done_to_the_sources_rows(
    place: Place, action: str
) -> None:
    """H20, T18: by their own keys, which other rows have at the source."""
    of = replace(ORDERS, foreign_keys=(foreign_key("user_id", "users", action),))
    place.execute(
        f"create table users (id {place.serial}, mail varchar(50) unique)",
        f"create table orders (id {place.serial}, user_id int, note varchar(50))",
    )
    stream, target = Stream(), place.target(referees=("app.*",))
    target.prepare([USERS, of])
    place.execute("insert into orders (note) values ('local'), ('local too')")
    deliver(target, stream.batch(*(user(n) for n in (1, 2, 3))))
    deliver(target, stream.batch(*(order(n, n, of) for n in (1, 2, 3))))
    deliver(target, stream.batch(d(USERS, id=1, mail="u1")))
    left = {"o2": "u2", "o3": "u3", "local": None, "local too": None}
    assert orders(place) == (left if action == "CASCADE" else left | {"o1": None})
    assert sorted(pairs(place, "orders")) == ([2, 3] if action == "CASCADE" else [1, 2, 3])
    # Deleted and inserted again in one transaction: its orders went in between.
    deliver(target, stream.batch(d(USERS, id=2, mail="u2"), user(2, "again")))
    assert mails(place) == {2: "again", 3: "u3"}
    if action == "CASCADE":
        assert orders(place) == {"o3": "u3", "local": None, "local too": None}


def test_a_copy_deletes_only_rows_with_a_pair(place: Place) -> None:
    """H53; and of a range of the source's keys."""
    stream, target = ready(place, USERS)
    place.execute("insert into users (mail) values ('local')")
    deliver(target, stream.batch(*(user(n) for n in range(1, 10))))
    deliver(target, stream.batch(sweeps=(sweep("begins", after=3, until=6),)))
    ends = (sweep("ends", after=3, until=6),)
    deliver(target, stream.batch(r(USERS, id=5, mail="five"), sweeps=ends))
    assert sorted(pairs(place)) == [1, 2, 3, 5, 7, 8, 9]
    deliver(target, stream.batch(sweeps=(sweep("begins"),)))
    rows = [r(USERS, id=n, mail=f"u{n}") for n in (2, 5)]
    deliver(target, stream.batch(*rows, c(USERS, id=20, mail="new"), sweeps=(sweep("ends"),)))
    assert mails(place) == {2: "u2", 5: "u5", 20: "new"}
    assert sorted(users(place).values()) == ["local", "new", "u2", "u5"]


def test_a_check_compares_rows_through_their_pairs(place: Place) -> None:
    """T73, T66: a wrong row, a missing one, one too many, and a local one that is none of it."""
    stream, target = ready(place, USERS, ORDERS)
    deliver(target, stream.batch(*(user(n) for n in range(1, 6)), order(1, 2)))
    named = pairs(place)
    for damage in (False, True):
        if damage:
            place.execute(
                "insert into users (mail) values ('local')",
                f"update users set mail = 'wrong' where id = {named[1]}",
                f"delete from users where id = {named[3]}",
                f"update orders set user_id = {named[1]}",
            )
        both = ("users", "orders")
        begins = tuple(sweep("begins", name, check=True) for name in both)
        ends = tuple(sweep("ends", name, check=True) for name in both)
        deliver(target, stream.batch(sweeps=begins))
        rows = [r(USERS, id=n, mail=f"u{n}") for n in range(1, 5)]
        last = r(ORDERS, id=1, user_id=2, note="o1")
        deliver(target, stream.batch(*rows, last, check=True, sweeps=ends))
        wrong = (2, 1) if damage else (0, 0)
        assert checked(target) == {"app.users": (4, wrong[0], 1), "app.orders": (1, wrong[1], 0)}
        (users_,) = [c for c in target.checked() if c.table == "app.users"]
        assert ["extra", "5"] in [list(pair) for pair in users_.listed]


def test_a_rebuild_on_top_keeps_pairs_and_local_rows(place: Place) -> None:
    """T86, H93: what is right is not touched, what is too much goes, with its pair."""
    stream, target = ready(place, USERS, ORDERS)
    place.execute("insert into users (mail) values ('local')")
    deliver(target, stream.batch(*(user(n) for n in (1, 2, 3, 4)), order(1, 2), order(2, 4)))
    named = pairs(place)
    place.execute(f"update users set mail = 'wrong' where id = {named[1]}")
    batch = stream.batch(user(1), user(2), user(3), user(7), order(1, 7))
    tables = ["app.users", "app.orders"]
    written = target.merge(batch, tables, expect=target.checkpoint())
    assert written == 5
    assert mails(place) == {1: "u1", 2: "u2", 3: "u3", 7: "u7"}
    assert {n: pairs(place)[n] for n in (1, 2, 3)} == {n: named[n] for n in (1, 2, 3)}
    assert orders(place) == {"o1": "u7"}
    assert "local" in users(place).values()
    assert len(users(place)) == 5
    assert target.merge(batch, tables, expect=target.checkpoint()) == 0


def test_a_target_restored_from_a_backup_goes_on_from_it(place: Place) -> None:
    """T53: rows, pairs and checkpoint are of one moment, so nothing is there twice."""
    stream, target = ready(place, USERS)
    deliver(target, stream.batch(user(1), user(2)))
    saved = ("users", "headwater_referee", "headwater_checkpoint")
    place.execute(*(f"create table kept_{name} as select * from {name}" for name in saved))
    later = [
        stream.batch(u(USERS, id=1, mail="x"), user(3)),
        stream.batch(d(USERS, id=2, mail="u2"), user(4)),
    ]
    for batch in later:
        deliver(target, batch)
    expected = mails(place)
    for name in saved:
        place.execute(f"delete from {name}", f"insert into {name} select * from kept_{name}")
    target = place.target(referees=("app.*",))
    for batch in later:
        deliver(target, batch)
    assert mails(place) == expected == {1: "x", 3: "u3", 4: "u4"}
    assert len(users(place)) == 3
    assert held(target, USERS)[0] == {"id": 1, "mail": "x"}


def test_a_batch_that_is_not_committed_leaves_neither_row_nor_pair(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H138, within the one transaction: the keys that were drawn are lost, nothing else."""
    stream, target = ready(place, USERS)
    batch = stream.batch(user(1), user(2))

    def dies(point: str) -> None:
        if point == "before-target-commit":
            raise InterruptedError(point)

    with monkeypatch.context() as patch:
        patch.setattr(apply.database, "reach", dies)
        with pytest.raises(InterruptedError):
            deliver(target, batch)
    assert (users(place), pairs(place)) == ({}, {})
    deliver(place.target(referees=("app.*",)), batch)
    assert mails(place) == {1: "u1", 2: "u2"}
    assert len(users(place)) == 2


def test_any_history_ends_as_at_the_source_beside_local_rows(place: Place) -> None:
    """Rows, references and keys used again, in batches of any size, some of them twice."""
    seed = int(os.environ.get("HEADWATER_SEED") or secrets.randbits(32))
    print(f"HEADWATER_SEED={seed}")
    random = Random(seed)
    stream, target = ready(place, USERS, ORDERS, limit=1000)
    people: dict[int, str] = {}
    bought: dict[int, int | None] = {}
    local: dict[int, str] = {}
    before, number = None, 0

    def step() -> Change:
        nonlocal number
        number += 1
        key, free = random.randint(1, 12), [n for n in people if n not in bought.values()]
        match random.randint(0, 5):
            case 0 if free:
                gone = random.choice(free)
                return d(USERS, id=gone, mail=people.pop(gone))
            case 1 if bought:
                gone = random.choice(list(bought))
                return d(ORDERS, id=gone, user_id=bought.pop(gone), note=f"o{gone}")
            case 2 | 3 if people:
                make = u if key in bought else c
                bought[key] = random.choice([None, *people])
                return make(ORDERS, id=key, user_id=bought[key], note=f"o{key}")
            case _:
                make = u if key in people else c
                people[key] = f"m{number}"
                return make(USERS, id=key, mail=people[key])

    for at in range(25):
        batch = stream.batch(*(step() for _ in range(random.choice((1, 3, 40)))))
        deliver(target, batch, before, first=at == 0)
        if at and random.random() < 0.3:
            replay(place, target, batch, before)
        before = batch.offset
        if random.random() < 0.3:
            place.execute(f"insert into users (mail) values ('local {at}')")
            ((key,),) = place.query(f"select id from users where mail = 'local {at}'")
            local[key] = f"local {at}"
    assert target.parked() == []
    assert mails(place) == people
    assert users(place) == local | {pairs(place)[key]: mail for key, mail in people.items()}
    expected = {f"o{n}": None if key is None else people[key] for n, key in bought.items()}
    assert orders(place) == expected
