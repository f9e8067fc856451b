"""Every target: columns that hold keys of several tables, and another one that says which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from apply.declared import ByType
from apply.exceptions import TableExceptions
from apply.target import Target
from schemas.conflict import ConflictRules
from schemas.errors import SchemaConflict
from schemas.kinds import Kind
from schemas.table import Column, Table
from tests.conformance.targets import (
    ID,
    INT,
    KINDS,
    Change,
    Place,
    Stream,
    c,
    column,
    d,
    deliver,
    held,
    place,
    s,
    table,
    u,
)

__all__ = ["place"]

USERS = table("users", column("name"))
POSTS = table("posts", column("name"))
COMMENTS = table("comments", column("owner_type"), column("owner_id", INT), column("note"))
STRICT = replace(
    COMMENTS,
    columns=tuple(replace(c, nullable=c.name != "owner_id") for c in COMMENTS.columns),
)
OWNERS = ByType(
    by="owner_type",
    to={"User": "app.users.id", "App\\Post": "app.posts.id", "Comment": "app.comments.id"},
)
OF = {"user": "User", "post": "App\\Post", "comment": "Comment"}


def sampled(*always: str) -> pytest.MarkDecorator:
    """These kinds of target always, the others with the whole matrix (`make faults`)."""
    kinds = [pytest.param(k, marks=() if k in always else pytest.mark.full) for k in KINDS]
    return pytest.mark.parametrize("place", kinds, indirect=True)


def named(of: Table, number: int, sync_id: str) -> Change:
    return c(of, id=number, sync_id=sync_id, name=sync_id)


def comment(
    number: int, kind: str | None, owner: int | None, make: Any = c, of: Table = COMMENTS
) -> Change:
    owner_type = OF.get(kind or "", kind)
    values = {"owner_type": owner_type, "owner_id": owner, "note": f"n{number}"}
    made: Change = make(of, id=number, sync_id=f"c{number}", **values)
    return made


def ready(
    place: Place, comments: Table = COMMENTS, references: Any = OWNERS, **more: Any
) -> tuple[Stream, Target]:
    """A target whose users have keys from 1001, posts from 2001 and comments from 3001."""
    target = place.target(references={"app.comments.owner_id": references}, parked_limit=10, **more)
    target.prepare([USERS, POSTS, comments])
    if more.get("primary_keys") != "copy":
        for first, of in ((1000, USERS), (2000, POSTS), (3000, comments)):
            renumber(place, of.name, first)
    return Stream(), target


def renumber(place: Place, name: str, last: int) -> None:
    """Let the target's next own key of a table be the one after `last`."""
    if place.is_mysql:
        place.execute(f"alter table {name} auto_increment = {last + 1}")
    elif place.is_sqlite:
        place.execute(f"insert into sqlite_sequence values ('{name}', {last})")
    else:
        place.execute(f"select setval(pg_get_serial_sequence('{name}', 'id'), {last})")


def owners(place: Place) -> dict[str, str | None]:
    """By comment, the row of the target that it leads to."""
    found = place.query(
        "select c.sync_id, case c.owner_type when 'User' then u.sync_id when 'Comment' then "
        "k.sync_id else p.sync_id end from comments c left join users u on u.id = c.owner_id "
        "left join posts p on p.id = c.owner_id left join comments k on k.id = c.owner_id"
    )
    return {str(one): other and str(other) for one, other in found}


def test_the_type_says_whose_key_becomes_the_local_one(place: Place) -> None:
    """T13: three tables with one key each, the table itself among them; T16: in any order."""
    stream, target = ready(place)
    deliver(
        target,
        stream.batch(
            comment(3, "comment", 2),
            comment(2, "post", 1),
            comment(1, "user", 1),
            comment(4, "comment", 4),
            comment(5, None, None),
            comment(6, "user", None),
            named(USERS, 1, "u1"),
            named(POSTS, 1, "p1"),
        ),
    )
    assert owners(place) == {
        "c1": "u1",
        "c2": "p1",
        "c3": "c2",
        "c4": "c4",
        "c5": None,
        "c6": None,
    }
    assert target.parked() == []
    assert place.query("select owner_id from comments where sync_id = 'c1'") == [(1001,)]
    moved = [comment(1, "post", 1, u), comment(2, "user", 1, u), comment(3, "user", None, u)]
    deliver(target, stream.batch(*moved))
    assert owners(place)["c1"] == "p1"
    assert owners(place)["c2"] == "u1"
    assert {row["sync_id"]: row["owner_id"] for row in held(target, COMMENTS)} == {
        "c1": 1,
        "c2": 1,
        "c3": None,
        "c4": 4,
        "c5": None,
        "c6": None,
    }, "read back as the source has them"


@sampled("sqlite")
def test_a_column_that_is_never_null_is_translated_in_any_order(place: Place) -> None:
    """T16: a chain and a circle of one table cannot wait with NULL."""
    stream, target = ready(place, STRICT)
    strict: Any = {"of": STRICT}
    deliver(
        target,
        stream.batch(
            comment(3, "comment", 2, **strict),
            comment(2, "comment", 1, **strict),
            comment(1, "user", 7, **strict),
            named(USERS, 7, "u7"),
        ),
    )
    assert owners(place) == {"c1": "u7", "c2": "c1", "c3": "c2"}


@sampled("sqlite")
def test_a_key_means_what_it_meant_at_the_changes_own_moment(place: Place) -> None:
    """T11: a key that was given to another row later in the batch; of one table, not the other."""
    stream, target = ready(place)
    deliver(target, stream.batch(named(USERS, 1, "ada"), named(POSTS, 1, "p1")))
    deliver(
        target,
        stream.batch(
            comment(1, "user", 1),
            comment(2, "post", 1),
            u(USERS, id=2, sync_id="ada", name="moved"),
            named(USERS, 1, "bob"),
            comment(3, "user", 1),
            comment(4, "user", 2),
        ),
    )
    assert owners(place) == {"c1": "ada", "c2": "p1", "c3": "bob", "c4": "ada"}


@pytest.mark.parametrize(
    "comments",
    [COMMENTS, pytest.param(STRICT, marks=pytest.mark.full)],
    ids=["null", "not null"],
)
def test_a_row_without_its_parent_waits_for_that_tables_row(place: Place, comments: Table) -> None:
    """T21: not for another table's of the same key; also a later change of the row."""
    stream, target = ready(place, comments)
    deliver(
        target, stream.batch(named(USERS, 1, "u1"), comment(1, "user", 1), comment(2, "post", 1))
    )
    deliver(target, stream.batch(comment(1, "post", 1, u)))
    (first, second) = target.parked()
    assert (first.reason, first.waits_table, first.waits_key) == ("parent", "app.posts", "1")
    assert second.row_key == '{"sync_id":"c1"}'
    assert owners(place) == {"c1": "u1"}, "keeps its parent until the other one comes"
    deliver(target, stream.batch(named(USERS, 2, "u2")))
    assert len(target.parked()) == 2
    deliver(target, stream.batch(named(POSTS, 1, "p1")))
    assert owners(place) == {"c1": "p1", "c2": "p1"}
    assert target.parked() == []


@sampled("mariadb")
def test_a_reference_may_be_null_until_the_parent_of_its_type_comes(place: Place) -> None:
    """null_then_fix: a row of the same key in another table is not the one that it waits for."""
    waits = {"app.comments.*": "null_then_fix"}
    stream, target = ready(place, missing_parents=waits)
    deliver(target, stream.batch(comment(1, "post", 1), comment(2, "user", 1)))
    assert owners(place) == {"c1": None, "c2": None}
    deliver(target, stream.batch(named(USERS, 1, "u1")))
    assert owners(place) == {"c1": None, "c2": "u1"}
    deliver(target, stream.batch(comment(1, "user", 9, u), named(POSTS, 1, "p1")))
    assert owners(place) == {"c1": None, "c2": "u1"}, "it waits for a user now"
    deliver(target, stream.batch(named(USERS, 9, "u9")))
    assert owners(place) == {"c1": "u9", "c2": "u1"}
    assert target.parked() == []


@sampled("mysql")
def test_a_type_that_nothing_tells_of_is_parked_until_it_is_declared(place: Place) -> None:
    """Also none at all, and one that differs by case; never copied, never guessed."""
    stream, target = ready(place)
    deliver(
        target,
        stream.batch(
            named(USERS, 1, "u1"),
            comment(1, "Page", 1),
            comment(2, None, 1),
            comment(3, "USER", 1),
            comment(4, "user", 1),
            comment(5, "Page", None),
        ),
    )
    assert owners(place) == {"c4": "u1", "c5": None}
    waiting = target.parked()
    assert [change.reason for change in waiting] == ["value"] * 3
    assert "its owner_type is none of those" in waiting[0].problem
    more = replace(OWNERS, to={**OWNERS.to, "Page": "app.users.id"})
    later = place.target(references={"app.comments.owner_id": more}, parked_limit=10)
    assert later.retry().applied == [waiting[0].number]
    joined = "comments c join users u on u.id = c.owner_id where c.sync_id = 'c1'"
    assert place.query(f"select u.sync_id from {joined}") == [("u1",)]


@sampled("mysql")
def test_identities_of_other_kinds_and_keys_that_are_kept(place: Place) -> None:
    """A UUID, a natural key, and a table whose own keys are copied, in one column."""
    sync_id = Column(name="sync_id", kind=Kind(name="uuid"), nullable=False)
    users = replace(USERS, columns=(ID, sync_id, USERS.columns[2]))
    posts = replace(POSTS, identity=("name",), uniques=(("name",),))
    kept = replace(table("pages", column("name")), identity=("id",))
    target = place.target(
        references={
            "app.comments.owner_id": replace(OWNERS, to={**OWNERS.to, "Page": "app.pages.id"})
        }
    )
    target.prepare([users, posts, kept, COMMENTS])
    renumber(place, "users", 1000)
    renumber(place, "posts", 2000)
    deliver(
        target,
        Stream().batch(
            named(users, 5, str(UUID(int=1))),
            c(posts, id=5, sync_id="p", name="five"),
            c(kept, id=5, sync_id="k", name="kept"),
            comment(1, "user", 5),
            comment(2, "post", 5),
            comment(3, "Page", 5),
        ),
    )
    found = dict(place.query("select sync_id, owner_id from comments"))
    assert found == {"c1": 1001, "c2": 2001, "c3": 5}
    assert [row["owner_id"] for row in held(target, COMMENTS)] == [5, 5, 5]


@sampled("mysql")
def test_parents_that_a_referee_knows(place: Place) -> None:
    """As of the moment, too: a key that is given to another row later."""
    bare = [
        replace(of, identity=("id",), columns=tuple(c for c in of.columns if c.name != "sync_id"))
        for of in (USERS, POSTS)
    ]
    target = place.target(
        references={"app.comments.owner_id": OWNERS},
        referees=("app.users", "app.posts"),
        parked_limit=10,
    )
    target.prepare([*bare, COMMENTS])
    users, posts = bare
    renumber(place, "users", 1000)
    renumber(place, "posts", 2000)
    stream = Stream()
    deliver(target, stream.batch(c(users, id=1, name="ada"), comment(1, "user", 1)))
    later = [comment(2, "post", 1), comment(3, "post", 8)]
    deliver(target, stream.batch(c(posts, id=1, name="p"), *later))
    assert [row["owner_id"] for row in held(target, COMMENTS)] == [1, 1]
    deliver(target, stream.batch(c(posts, id=8, name="q")))
    ada, p, q = (
        place.query(f"select id from {name}")[0][0]
        for name in ("users", "posts where name = 'p'", "posts where name = 'q'")
    )
    found = dict(place.query("select sync_id, owner_id from comments"))
    assert found == {"c1": ada, "c2": p, "c3": q}
    assert min(ada, p, q) > 1000


@sampled("sqlite")
def test_with_copied_keys_nothing_of_it_is_needed(place: Place) -> None:
    stream, target = ready(place, primary_keys="copy")
    deliver(target, stream.batch(comment(1, "Page", 9), comment(2, "user", 1)))
    assert [row["owner_id"] for row in held(target, COMMENTS)] == [9, 1]


@sampled("postgres")
def test_rows_that_are_right_already_are_not_written_again(place: Place) -> None:
    """T86: a batch of all rows, on top of the same ones."""
    stream, target = ready(place)
    rows = [
        named(USERS, 1, "u1"),
        named(POSTS, 1, "p1"),
        comment(1, "user", 1),
        comment(2, "post", 1),
    ]
    deliver(target, stream.batch(*rows))
    tables = ["app.users", "app.posts", "app.comments"]
    assert target.merge(stream.batch(*rows), tables, expect=target.checkpoint()) == 0
    wrong = "update comments set owner_id = (select id from users) where sync_id = 'c2'"
    place.execute(wrong)
    assert target.merge(stream.batch(*rows), tables, expect=target.checkpoint()) == 1
    assert owners(place) == {"c1": "u1", "c2": "p1"}


@sampled("mariadb")
def test_a_conflict_is_seen_through_the_translation(place: Place) -> None:
    """T33: the same reference under other keys is no conflict; one that was moved here is."""
    rules = {"app.comments": ConflictRules(policy="target_wins")}
    stream, target = ready(place, conflicts=rules)
    deliver(
        target, stream.batch(named(USERS, 1, "u1"), named(POSTS, 1, "p1"), comment(1, "user", 1))
    )
    before = comment(1, "user", 1).after
    change = comment(1, "post", 1).after or {}
    deliver(target, stream.batch(u(COMMENTS, before, **change)))
    assert owners(place) == {"c1": "p1"}
    assert target.conflicts() == []
    place.execute("update comments set owner_type = 'User', owner_id = (select id from users)")
    deliver(target, stream.batch(u(COMMENTS, change, **change | {"note": "new"})))
    (conflict,) = target.conflicts()
    assert '"owner_id":1' in conflict.images
    assert owners(place) == {"c1": "u1"}


@sampled("sqlite")
def test_seeds_teach_what_keys_meant_before_the_stream(place: Place) -> None:
    stream, target = ready(place)
    place.execute("insert into users (sync_id, name) values ('u1', 'here before')")
    deliver(target, stream.batch(comment(1, "user", 1), s(USERS, 1, "u1")))
    assert owners(place) == {"c1": "u1"}


@sampled("postgres")
def test_a_parent_that_was_made_anew_here_is_found_under_its_new_key(place: Place) -> None:
    """T23: local keys are read when they are written."""
    stream, target = ready(place)
    deliver(target, stream.batch(named(USERS, 1, "u1"), comment(1, "user", 1)))
    place.execute("update users set id = 1500")
    deliver(target, stream.batch(comment(1, "user", 1, u), comment(2, "user", 1)))
    assert owners(place) == {"c1": "u1", "c2": "u1"}
    deliver(target, stream.batch(d(USERS, id=1, sync_id="u1", name="u1")))
    deliver(target, stream.batch(comment(3, "user", 1)))
    assert [change.waits_table for change in target.parked()] == ["app.users"]


@pytest.mark.parametrize(
    ("references", "more", "match"),
    [
        (replace(OWNERS, by="nothing"), {}, "no column that is copied"),
        (replace(OWNERS, by="note"), {"exclude_columns": ["*.note"]}, "no column that is copied"),
        (replace(OWNERS, to={"User": "app.none.id"}), {}, "not captured"),
        (replace(OWNERS, to={"User": "app.users.name"}), {}, "of another type"),
        (replace(OWNERS, by="id"), {}, "whose values are other ones"),
        (
            OWNERS,
            {"exceptions": {"app.users": TableExceptions(where="name = 'a'")}},
            "only some rows are here",
        ),
        (
            OWNERS,
            {"exceptions": {"app.comments": TableExceptions(own=["owner_type"])}},
            "the target's own",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(
    sqlite_db: Any, references: ByType, more: dict[str, Any], match: str
) -> None:
    target = Place("sqlite", sqlite_db).target(
        references={"app.comments.owner_id": references}, **more
    )
    with pytest.raises(SchemaConflict, match=match):
        target.prepare([USERS, POSTS, COMMENTS])
    target.close()


@sampled("postgres")
def test_a_key_and_the_column_that_says_whose_it_is_are_written_together(place: Place) -> None:
    """T33: where columns are merged, and the source changed one of the two."""
    stream, target = ready(place, conflicts={"app.comments": ConflictRules(policy="merge_columns")})
    parents = [named(USERS, n, f"u{n}") for n in (1, 2)] + [named(POSTS, 1, "p1")]
    deliver(target, stream.batch(*parents, comment(1, "user", 1)))
    place.execute("update comments set note = 'of here'")
    before = comment(1, "user", 1).after or {}
    deliver(target, stream.batch(u(COMMENTS, before, **before | {"owner_id": 2})))
    assert owners(place) == {"c1": "u2"}
    place.execute("update comments set owner_type = null, owner_id = null")
    before |= {"owner_id": 2}
    deliver(target, stream.batch(u(COMMENTS, before, **before | {"owner_id": 1})))
    assert owners(place) == {"c1": "u1"}
    assert place.query("select note from comments") == [("of here",)]
    assert target.parked() == []


@sampled("mysql")
def test_the_type_may_be_a_number(place: Place) -> None:
    comments = table("comments", column("owner_type", INT), column("owner_id", INT))
    by_number = ByType(by="owner_type", to={"1": "app.users.id", "12": "app.posts.id"})
    stream, target = ready(place, comments, by_number)
    rows = [
        c(comments, id=n, sync_id=f"c{n}", owner_type=kind, owner_id=1)
        for n, kind in enumerate((1, 12, 2, -1))
    ]
    deliver(target, stream.batch(named(USERS, 1, "u1"), named(POSTS, 1, "p1"), *rows))
    user, post = (place.query(f"select id from {name}")[0][0] for name in ("users", "posts"))
    assert dict(place.query("select owner_type, owner_id from comments")) == {1: user, 12: post}
    assert [change.row_key for change in target.parked()] == [
        '{"sync_id":"c2"}',
        '{"sync_id":"c3"}',
    ]
    assert [row["owner_id"] for row in held(target, comments)] == [1, 1]


@sampled("postgres")
def test_a_pair_that_is_unique_is_written_once_it_is_free(place: Place) -> None:
    """H93: swapped in one batch, and parked behind a row of the target's own."""
    comments = replace(COMMENTS, uniques=(("owner_type", "owner_id"),))
    stream, target = ready(place, comments)
    parents = [named(USERS, 1, "u1"), named(POSTS, 1, "p1")]
    unique: Any = {"of": comments}
    two = [comment(1, "user", 1, **unique), comment(2, "post", 1, **unique)]
    deliver(target, stream.batch(*parents, *two))
    swapped = [comment(1, "post", 1, u, **unique), comment(2, "user", 1, u, **unique)]
    deliver(target, stream.batch(*swapped))
    assert owners(place) == {"c1": "p1", "c2": "u1"}
    deliver(target, stream.batch(named(USERS, 2, "u2")))
    user = place.query("select id from users where sync_id = 'u2'")[0][0]
    place.execute(
        f"insert into comments (sync_id, owner_type, owner_id) values ('here', 'User', {user})"
    )
    deliver(target, stream.batch(comment(3, "user", 2, **unique)))
    assert [change.reason for change in target.parked()] == ["unique"]
    place.execute("delete from comments where sync_id = 'here'")
    deliver(target, stream.batch(comment(4, "user", None, **unique)))
    assert owners(place) == {"c1": "p1", "c2": "u1", "c3": "u2", "c4": None}
    assert target.parked() == []
