"""Every target: checkpoint and fencing, rows by identity, replays, partial rows, truncates,
unique keys, poison.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from schemas.errors import Fenced, Operator, Poison, Transient
from schemas.kinds import Kind
from tests.conformance.targets import (
    INT,
    SERVERS,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    foreign_key,
    held,
    place,
    private_place,
    r,
    t,
    table,
    u,
)

__all__ = ["place", "private_place"]

# A file has no connection that could be lost.
servers = pytest.mark.parametrize("place", SERVERS, indirect=True)

ITEMS = table("items", column("name"), column("price", INT))
MAILS = table("mails", column("email"), uniques=(("email",),))
STRICT_MAILS = table("mails", column("email", nullable=False), uniques=(("email",),))
NUMBERS = table("numbers", column("number", INT, nullable=False), uniques=(("number",),))


def names(target: Any, of: Any = ITEMS) -> dict[str, Any]:
    return {row["sync_id"]: row["name"] for row in held(target, of)}


# Checkpoint.


def test_a_target_that_was_never_prepared_says_what_to_run(place: Place) -> None:
    with pytest.raises(Operator) as caught:
        place.target().checkpoint()
    assert "headwater prepare" in caught.value.hint


def test_the_checkpoint_moves_with_the_rows(place: Place) -> None:
    target, stream = place.target(), Stream()
    target.prepare([ITEMS])
    assert target.checkpoint() is None
    assert target.applied() is None
    batch = stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1))
    assert target.apply(batch, expect=None) == 1
    assert target.checkpoint() == batch.offset
    applied = target.applied()
    assert applied is not None
    assert (applied.position, applied.batch, applied.rows) == (batch.position, batch.batch, 1)
    assert applied.committed_at == batch.committed_at
    # Another process finds the same.
    assert place.target().checkpoint() == batch.offset


def test_an_applier_that_is_not_where_the_checkpoint_is_writes_nothing(place: Place) -> None:
    stream, ours, theirs = Stream(), place.target(), place.target()
    ours.prepare([ITEMS])
    first = stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1))
    second = stream.batch(c(ITEMS, id=2, sync_id="b", name="B", price=1))
    theirs.apply(first, expect=None)
    with pytest.raises(Fenced) as caught:
        ours.apply(second, expect=None)
    assert caught.value.exit_code == 75
    with pytest.raises(Fenced):
        ours.apply(first, expect=None)
    assert names(ours) == {"a": "A"}
    assert ours.checkpoint() == first.offset


def test_offsets_are_compared_exactly(place: Place) -> None:
    """A collation that ignores case or trailing blanks would let a stale applier pass."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    batch = stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1))
    target.apply(batch, expect=None)
    after = stream.batch(c(ITEMS, id=2, sync_id="b", name="B", price=1))
    for stale in (batch.offset.upper(), batch.offset + " "):
        with pytest.raises(Fenced):
            target.apply(after, expect=type(batch.offset)(stale))


def test_a_locked_checkpoint_row_is_another_applier(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import apply.mysql
    import apply.postgres
    import apply.sqlite

    monkeypatch.setattr(apply.sqlite, "BUSY_MS", 100)
    monkeypatch.setitem(apply.postgres.SESSION, "lock_timeout", "100")
    quick = tuple(
        s.replace("lock_wait_timeout = 10", "lock_wait_timeout = 1") for s in apply.mysql.SESSION
    )
    monkeypatch.setattr(apply.mysql, "SESSION", quick)
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    batch = stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1))
    with closing(place.database.connect()) as other, other.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("update headwater_checkpoint set batch = batch")
        if not place.is_sqlite:
            cursor.execute("select * from headwater_checkpoint for update")
        # SQLite locks the whole file, for anybody: whoever is next is told by the checkpoint.
        with pytest.raises(Transient if place.is_sqlite else Fenced):
            target.apply(batch, expect=None)
        cursor.execute("rollback")
    assert target.apply(batch, expect=None) == 1


@servers
def test_a_lost_connection_is_transient_and_the_batch_can_be_applied_again(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    first = stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1))
    target.apply(first, expect=None)
    if place.is_mysql:
        sessions = place.query(
            "select concat('kill ', id) from information_schema.processlist "
            "where db = database() and id <> connection_id()"
        )
        place.execute(*(kill for (kill,) in sessions))
    else:
        place.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    second = stream.batch(c(ITEMS, id=2, sync_id="b", name="B", price=1))
    with pytest.raises(Transient):
        target.apply(second, expect=first.offset)
    target.apply(second, expect=target.checkpoint())
    assert names(target) == {"a": "A", "b": "B"}


def test_a_deadlock_is_transient_and_leaves_nothing_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H101: the batch is given back whole."""
    monkeypatch.setattr("apply.sqlite.BUSY_MS", 100)
    stream, target = Stream(), place.target()
    target.prepare([ITEMS, MAILS])
    target.apply(
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1), c(MAILS, id=1, sync_id="m", email="x")
        ),
        expect=None,
    )
    batch = stream.batch(
        u(ITEMS, id=1, sync_id="a", name="B", price=1), u(MAILS, id=1, sync_id="m", email="y")
    )
    with _deadlocked(place, "mails"):
        with pytest.raises(Transient):
            deliver(target, batch)
        assert names(target) == {"a": "A"}
    deliver(target, batch)
    assert names(target) == {"a": "B"}


@contextmanager
def _deadlocked(place: Place, name: str) -> Iterator[None]:
    """Updates fail as in a deadlock: raised by a trigger, so that no second session is needed. In
    SQLite, where one writes at a time, it is another writer.
    """
    if place.is_sqlite:
        with closing(place.database.connect()) as other:
            other.execute("begin immediate")
            yield
        return
    _raise_on_update(place, name)
    yield
    place.execute("drop trigger hw_fail" + ("" if place.is_mysql else f" on {name}"))


def _raise_on_update(place: Place, name: str) -> None:
    if place.is_mysql:
        place.execute(
            f"create trigger hw_fail before update on {name} for each row "
            "signal sqlstate '40001' set mysql_errno = 1213, message_text = 'Deadlock found'"
        )
    else:
        place.execute(
            "create function hw_fail() returns trigger language plpgsql as "
            "$$ begin raise exception 'deadlock' using errcode = '40P01'; end $$",
            f"create trigger hw_fail before update on {name} "
            "for each row execute function hw_fail()",
        )


# Rows by identity.


def test_rows_are_written_changed_and_deleted_by_identity(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1),
            c(ITEMS, id=2, sync_id="b", name="B", price=None),
            c(ITEMS, id=3, sync_id="c", name="", price=3),
        ),
    )
    deliver(
        target,
        stream.batch(u(ITEMS, id=1, sync_id="a", name=None, price=7), d(ITEMS, sync_id="b")),
    )
    assert held(target, ITEMS) == [
        {"sync_id": "a", "name": None, "price": 7},
        {"sync_id": "c", "name": "", "price": 3},
    ]


def test_several_changes_of_one_row_in_a_batch_end_as_the_last(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="1", price=1),
            u(ITEMS, id=1, sync_id="a", name="2", price=1),
            d(ITEMS, sync_id="a"),
            c(ITEMS, id=2, sync_id="a", name="3", price=2),
            c(ITEMS, id=3, sync_id="b", name="x", price=2),
            d(ITEMS, sync_id="b"),
        ),
    )
    assert names(target) == {"a": "3"}


def test_a_replay_of_any_suffix_converges(place: Place) -> None:
    """H95, H98: the checkpoint keeps a replay out; put back by hand, every suffix ends the same."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    batches = [
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A1", price=1),
            c(ITEMS, id=2, sync_id="b", name="B1", price=1),
        ),
        stream.batch(u(ITEMS, id=1, sync_id="a", name="A2", price=2), d(ITEMS, sync_id="b")),
        stream.batch(
            c(ITEMS, id=4, sync_id="b", name="B2", price=2),
            d(ITEMS, sync_id="a"),
            c(ITEMS, id=5, sync_id="a", name="A3", price=3),
        ),
        stream.batch(u(ITEMS, id=4, sync_id="b", name="B3", price=4)),
    ]
    for batch in batches:
        deliver(target, batch)
    ended = held(target, ITEMS)
    with pytest.raises(Fenced):
        target.apply(batches[0], expect=None)
    for start in range(len(batches)):
        offset = "null" if not start else f"'{batches[start - 1].offset}'"
        place.execute(f"update headwater_checkpoint set log_offset = {offset}")
        for batch in batches[start:]:
            deliver(target, batch)
        assert held(target, ITEMS) == ended


def test_what_the_target_has_decides_whether_a_row_is_inserted(place: Place) -> None:
    """Inserted rows that are there, and updated rows that are not, beside others."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    a, b, x = (c(ITEMS, id=n, sync_id=k, name="0", price=n) for n, k in enumerate("abx"))
    deliver(target, stream.batch(a, b))
    written = deliver(
        target,
        stream.batch(
            c(ITEMS, id=3, sync_id="new", name="1", price=3),
            c(ITEMS, id=0, sync_id="a", name="1", price=1),
            u(ITEMS, id=1, sync_id="b", name="1", price=2),
            u(ITEMS, id=4, sync_id="absent", name="1", price=4),
        ),
    )
    assert written == 4
    assert deliver(target, stream.batch(x, u(ITEMS, id=5, sync_id="late", name="1", price=5))) == 2
    assert names(target) == {"a": "1", "b": "1", "new": "1", "absent": "1", "x": "0", "late": "1"}


def test_an_identity_that_is_judged_at_commit_only_is_still_written_once(place: Place) -> None:
    """Only PostgreSQL defers."""
    deferred = "" if place.kind != "postgres" else " deferrable initially deferred"
    place.execute(
        f"create table items (id {place.serial}, sync_id varchar(36) not null, name varchar(50),"
        f" price int, constraint one_identity unique (sync_id){deferred})"
    )
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    for name in "AB":
        deliver(target, stream.batch(c(ITEMS, id=1, sync_id="a", name=name, price=1)))
    assert names(target) == {"a": "B"}


def test_local_keys_and_local_columns_stay(place: Place) -> None:
    """T1: the target's row keeps its own primary key, and what the source does not have."""
    place.execute(
        f"create table items (id {place.serial}, sync_id varchar(36) unique, name varchar(50), "
        "price int, note varchar(20) default 'new')",
        "insert into items (id, sync_id, name, price, note) values (77, 'a', 'old', 1, 'mine')",
    )
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            u(ITEMS, id=10, sync_id="a", name="new", price=2),
            c(ITEMS, id=11, sync_id="b", name="B", price=1),
        ),
    )
    rows = place.query("select id, sync_id, name, price, note from items order by sync_id")
    assert rows[0] == (77, "a", "new", 2, "mine")
    assert rows[1][1:] == ("b", "B", 1, "new")
    assert len(rows) == 2


def test_rows_that_only_the_target_has_are_never_touched(place: Place) -> None:
    """T10: rows without a sync_id are not updated, not deleted, not reported, not truncated."""
    place.execute(
        f"create table items (id {place.serial}, sync_id varchar(36) unique, "
        "name varchar(50), price int)",
        "insert into items (name) values ('local'), ('local')",
    )
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1),
            u(ITEMS, id=2, sync_id="b", name="B", price=1),
            d(ITEMS, sync_id="c"),
        ),
    )
    assert names(target) == {"a": "A", "b": "B"}
    deliver(target, stream.batch(t(ITEMS)))
    assert place.query("select id, sync_id, name from items order by id") == [
        (1, None, "local"),
        (2, None, "local"),
    ]


def test_deleting_and_inserting_one_key_with_a_new_identity(place: Place) -> None:
    """T6: the old row goes, the new one gets a fresh local key."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1)))
    (before,) = place.query("select id from items")
    deliver(
        target,
        stream.batch(d(ITEMS, sync_id="a", id=1), c(ITEMS, id=1, sync_id="b", name="B", price=1)),
    )
    assert names(target) == {"b": "B"}
    assert place.query("select id from items") != [before]


def test_a_changed_source_key_changes_nothing_in_the_target(place: Place) -> None:
    """T8: id 10 -> 11 under the same sync_id."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=10, sync_id="a", name="A", price=1)))
    before = place.query("select * from items")
    deliver(target, stream.batch(u(ITEMS, id=11, sync_id="a", name="A", price=1)))
    assert place.query("select * from items") == before


def test_rows_identified_by_primary_key_keep_it(place: Place) -> None:
    plain = table("items", column("name"), identity=("id",))
    stream, target = Stream(), place.target()
    target.prepare([plain])
    deliver(
        target,
        stream.batch(
            c(plain, id=5, sync_id="x", name="five"),
            c(plain, id=0, sync_id="y", name="zero"),
            c(plain, id=-3, sync_id="z", name="minus"),
        ),
    )
    deliver(target, stream.batch(u(plain, id=0, sync_id="y", name="nought"), d(plain, id=5)))
    assert place.query("select id, name from items order by id") == [(-3, "minus"), (0, "nought")]


def test_copied_primary_keys_follow_the_source(place: Place) -> None:
    stream, target = Stream(), place.target(primary_keys="copy")
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=10, sync_id="a", name="A", price=1)))
    deliver(target, stream.batch(u(ITEMS, id=11, sync_id="a", name="A", price=1)))
    assert place.query("select id, sync_id from items") == [(11, "a")]


def test_a_row_without_identity_is_poison(place: Place) -> None:
    """H106: NULL finds no row, and would be inserted again at every replay."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    with pytest.raises(Poison, match="ordinal 1"):
        deliver(
            target,
            stream.batch(
                c(ITEMS, id=1, sync_id="a", name="A", price=1),
                c(ITEMS, id=2, sync_id=None, name="B", price=1),
            ),
        )
    assert target.checkpoint() is None
    assert names(target) == {}


def test_identities_that_only_a_collation_takes_for_one_are_two(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="lower", price=1),
            c(ITEMS, id=2, sync_id="A", name="upper", price=1),
            c(ITEMS, id=3, sync_id="á", name="accent", price=1),
            c(ITEMS, id=4, sync_id="a ", name="blank", price=1),
        ),
    )
    deliver(target, stream.batch(d(ITEMS, sync_id="a")))
    assert names(target) == {"A": "upper", "á": "accent", "a ": "blank"}


def test_the_rows_of_a_first_copy_are_written_like_others(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(target, stream.batch(r(ITEMS, id=1, sync_id="a", name="A", price=1)))
    deliver(target, stream.batch(r(ITEMS, id=1, sync_id="a", name="B", price=1)))
    assert names(target) == {"a": "B"}


def test_a_batch_larger_than_a_block_is_one_transaction(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    rows = [c(ITEMS, id=i, sync_id=f"s{i:05}", name=str(i), price=i) for i in range(45_000)]
    bad = c(ITEMS, id=1, sync_id="bad", name="x", price=2**63)
    with pytest.raises(Poison, match=r"items.price exactly .batch 1, ordinal 45000"):
        deliver(target, stream.batch(*rows, bad))
    assert place.query("select count(*) from items") == [(0,)]
    place.execute("delete from headwater_checkpoint")
    target.prepare([ITEMS])
    assert deliver(target, stream.batch(*rows)) == 45_000
    assert place.query("select count(*), sum(price) from items") == [(45_000, 45_000 * 44_999 // 2)]


# Partial rows.


def test_absent_columns_keep_their_values(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1),
            c(ITEMS, id=2, sync_id="b", name="B", price=2),
            c(ITEMS, id=3, sync_id="c", name="C", price=3),
        ),
    )
    deliver(
        target,
        stream.batch(
            u(ITEMS, id=1, sync_id="a", price=10),
            u(ITEMS, id=2, sync_id="b", name=None),
            u(ITEMS, id=3, sync_id="c", name="D", price=30),
            u(ITEMS, id=3, sync_id="c", price=31),
        ),
    )
    assert [tuple(row.values()) for row in held(target, ITEMS)] == [
        ("a", "A", 10),
        ("b", None, 2),
        ("c", "D", 31),
    ]


def test_a_partial_row_after_its_insert_is_whole(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1), u(ITEMS, id=1, sync_id="a", price=2)
        ),
    )
    assert held(target, ITEMS) == [{"sync_id": "a", "name": "A", "price": 2}]


def test_a_partial_row_that_the_target_lacks_waits_for_its_chunk_or_is_poison(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    copying = {"app.items": {"what": "rows", "after": None, "done": False}}
    deliver(target, stream.batch(u(ITEMS, id=1, sync_id="a", price=2), progress=copying))
    assert held(target, ITEMS) == []
    copied = {"app.items": {"what": "rows", "after": None, "done": True}}
    with pytest.raises(Poison, match="lacks"):
        deliver(target, stream.batch(u(ITEMS, id=1, sync_id="a", price=2), progress=copied))


# Truncates.


def test_a_truncate_stands_at_its_place_in_the_batch(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1),
            t(ITEMS),
            c(ITEMS, id=2, sync_id="b", name="B", price=1),
            t(ITEMS),
            c(ITEMS, id=3, sync_id="c", name="C", price=1),
        ),
    )
    assert names(target) == {"c": "C"}


def test_parents_and_children_are_truncated_together(place: Place) -> None:
    lines = table("lines", column("item", INT), foreign_keys=(foreign_key("item", "items"),))
    stream, target = Stream(), place.target()
    target.prepare([lines, ITEMS])
    deliver(
        target,
        stream.batch(
            c(ITEMS, id=1, sync_id="a", name="A", price=1), c(lines, id=1, sync_id="l", item=1)
        ),
    )
    deliver(target, stream.batch(t(ITEMS), t(lines)))
    assert (held(target, ITEMS), held(target, lines)) == ([], [])


# Secondary unique keys.


@pytest.mark.parametrize("mails", [MAILS, STRICT_MAILS], ids=["nullable", "not null"])
def test_unique_values_may_swap_and_move_in_chains(place: Place, mails: Any) -> None:
    """H93: a swap, a chain of three, and a value taken over from a deleted row."""
    stream, target = Stream(), place.target()
    target.prepare([mails])
    start = {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6"}
    deliver(target, stream.batch(*(c(mails, id=1, sync_id=k, email=v) for k, v in start.items())))
    ids = place.query("select sync_id, id from mails where sync_id <> 'f' order by sync_id")
    deliver(
        target,
        stream.batch(
            # A swap, through a third value as SQL needs it.
            u(mails, id=1, sync_id="a", email="0"),
            u(mails, id=1, sync_id="b", email="1"),
            u(mails, id=1, sync_id="a", email="2"),
            # A chain: c takes a free one, d takes c's, e takes d's, a new row takes e's.
            u(mails, id=1, sync_id="c", email="9"),
            u(mails, id=1, sync_id="d", email="3"),
            u(mails, id=1, sync_id="e", email="4"),
            c(mails, id=1, sync_id="g", email="5"),
            d(mails, sync_id="f"),
            c(mails, id=1, sync_id="h", email="6"),
        ),
    )
    assert {row["sync_id"]: row["email"] for row in held(target, mails)} == {
        "a": "2",
        "b": "1",
        "c": "9",
        "d": "3",
        "e": "4",
        "g": "5",
        "h": "6",
    }
    kept = place.query("select sync_id, id from mails where sync_id <= 'e' order by sync_id")
    assert kept == ids


def test_unique_numbers_may_swap(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([NUMBERS])
    deliver(
        target,
        stream.batch(
            c(NUMBERS, id=1, sync_id="a", number=1), c(NUMBERS, id=2, sync_id="b", number=2)
        ),
    )
    deliver(
        target,
        stream.batch(
            u(NUMBERS, id=1, sync_id="a", number=2), u(NUMBERS, id=2, sync_id="b", number=1)
        ),
    )
    assert [row["number"] for row in held(target, NUMBERS)] == [2, 1]


def test_another_row_with_the_same_unique_value_is_never_written(place: Place) -> None:
    """T3: what ON DUPLICATE KEY UPDATE would do to a local row, shown by doing it."""
    place.execute(
        f"create table mails (id {place.serial}, sync_id varchar(36) unique, "
        "email varchar(50) unique)",
        "insert into mails (email) values ('taken')",
    )
    stream, target = Stream(), place.target()
    target.prepare([MAILS])
    batch = stream.batch(
        c(MAILS, id=1, sync_id="b", email="free"), c(MAILS, id=2, sync_id="a", email="taken")
    )

    def local_row_is_untouched() -> bool:
        return place.query("select sync_id from mails where email = 'taken'") == [(None,)]

    with pytest.raises(Poison, match="ordinal 1") as caught:
        deliver(target, batch)
    assert "taken" not in str(caught.value)
    assert local_row_is_untouched()
    assert target.checkpoint() is None
    naive = "insert into mails (sync_id, email) values ('a', 'taken') "
    if place.is_mysql:
        place.execute(naive + "on duplicate key update sync_id = values(sync_id)")
    else:
        place.execute(naive + "on conflict (email) do update set sync_id = excluded.sync_id")
    assert not local_row_is_untouched()


# Poison.


def test_a_row_that_a_check_refuses_is_named(place: Place) -> None:
    """H100: table, batch and ordinal, without a value; nothing of the batch is kept."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    place.check("items", "price", "> 0")
    rows = [c(ITEMS, id=i, sync_id=f"s{i}", name="secret", price=i - 700) for i in range(701, 900)]
    rows.insert(123, c(ITEMS, id=1, sync_id="bad", name="secret", price=-4))
    with pytest.raises(Poison, match=r"app.items.*batch 1, ordinal 123") as caught:
        deliver(target, stream.batch(*rows))
    assert "secret" not in str(caught.value)
    assert caught.value.hint
    assert held(target, ITEMS) == []
    assert target.checkpoint() is None


def test_a_row_that_a_deferred_constraint_refuses_is_poison(place: Place) -> None:
    """Only PostgreSQL defers; elsewhere the same row fails at once."""
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    unique = "create unique index one_price on items (price)"
    deferred = "alter table items add unique (price) deferrable initially deferred"
    place.execute(deferred if place.kind == "postgres" else unique)
    with pytest.raises(Poison, match=r"app.items.*batch 1, ordinal 1") as caught:
        deliver(
            place.target(),
            stream.batch(
                c(ITEMS, id=1, sync_id="a", name="A", price=4711),
                c(ITEMS, id=2, sync_id="b", name="B", price=4711),
            ),
        )
    assert "4711" not in str(caught.value)
    assert held(target, ITEMS) == []


def test_generated_columns_of_the_target_are_not_written(place: Place) -> None:
    """H105, H36."""
    place.execute(
        f"create table items (id {place.serial}, sync_id varchar(36) unique, name varchar(50), "
        "price int generated always as (length(name)) stored)"
    )
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=1, sync_id="a", name="four", price=99)))
    assert place.query("select name, price from items") == [("four", 4)]


def test_the_servers_defaults_do_not_matter(private_place: Place) -> None:
    """H105: a lenient sql_mode, another time zone, another date style."""
    place = private_place
    clock = table(
        "clocks", column("at", Kind(name="timestamp")), column("name", Kind(name="text", length=3))
    )
    if place.is_mysql:
        place.execute("set global sql_mode = ''", "set global time_zone = '+09:00'")
    else:
        place.execute(
            f"alter database {place.database.name} set timezone = 'Asia/Tokyo'",
            f"alter database {place.database.name} set datestyle = 'German'",
        )
    stream, target = Stream(), place.target()
    target.prepare([clock])
    good: dict[str, Any] = {
        "id": 1,
        "sync_id": "a",
        "at": "2026-03-29T01:30:00.5Z",
        "name": "abc",
    }
    deliver(target, stream.batch(c(clock, **good)))
    assert held(target, clock) == [{k: v for k, v in good.items() if k != "id"}]
    with pytest.raises(Poison):
        deliver(target, stream.batch(c(clock, **(good | {"sync_id": "b", "name": "abcd"}))))


# Own tables.


def test_drop_removes_own_tables_and_no_rows(place: Place) -> None:
    stream, target = Stream(), place.target()
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=1, sync_id="a", name="A", price=1)))
    listed = target.drop(dry_run=True)
    assert target.checkpoint() is not None
    assert target.drop() == listed
    assert place.query("select count(*) from items") == [(1,)]
    assert place.tables() == {"items"}
    assert target.drop() == []


def test_drop_keeps_the_tables_of_other_sources(place: Place) -> None:
    ours, theirs = place.target(), place.target("other")
    ours.prepare([ITEMS])
    theirs.prepare([MAILS])
    ours.drop()
    assert theirs.checkpoint() is None
    with pytest.raises(Operator):
        ours.checkpoint()
