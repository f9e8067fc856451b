"""Every target: keys inside JSON documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from apply.declared import InDocument
from apply.target import Target
from schemas.canonical import canonical
from schemas.conflict import ConflictRules
from schemas.errors import SchemaConflict
from schemas.kinds import Kind
from schemas.table import Table
from tests.conformance.targets import (
    Change,
    Place,
    Stream,
    c,
    column,
    deliver,
    held,
    place,
    table,
    u,
)
from tests.conformance.test_target_declared import POSTS, USERS, named, renumber, sampled

__all__ = ["place"]

EVENTS = table("events", column("facts", Kind(name="json")), column("note", Kind(name="text")))
AT = InDocument(at={"$.user": "app.users.id", "$.items[*].post": "app.posts.id"})
TEXT = InDocument(at={"$.user": "app.users.id"})


def event(number: int, facts: Any, make: Any = c, note: str | None = None) -> Change:
    text = facts if isinstance(facts, str) or facts is None else orjson.dumps(facts).decode()
    made: Change = make(EVENTS, id=number, sync_id=f"e{number}", facts=text, note=note)
    return made


def ready(place: Place, *tables: Table, **more: Any) -> tuple[Stream, Target]:
    references = {"app.events.facts": AT, "app.events.note": TEXT}
    target = place.target(references=references, parked_limit=10, **more)
    target.prepare(tables or [USERS, POSTS, EVENTS])
    if more.get("primary_keys") != "copy":
        renumber(place, "users", 1000)
        renumber(place, "posts", 2000)
    return Stream(), target


def keys(place: Place, name: str) -> dict[str, int]:
    """By name, the target's own keys."""
    return {str(one): int(key) for one, key in place.query(f"select name, id from {name}")}


def facts(place: Place) -> dict[str, Any]:
    """By event, its document in the target."""
    found = place.query("select sync_id, facts from events where facts is not null")
    return {
        str(one): orjson.loads(document) if isinstance(document, str) else document
        for one, document in found
    }


def test_keys_in_documents_become_the_local_ones(place: Place) -> None:
    """T13: wherever they stand, as numbers and as texts; all else as it is. Updates, too."""
    stream, target = ready(place)
    whole = {
        "user": 1,
        "items": [{"post": 1, "n": 1}, {"post": "2"}, {"post": None}, {}, 1],
        "post": 1,
        "deep": {"user": 1},
    }
    deliver(
        target,
        stream.batch(
            event(1, whole),
            event(2, {"other": 1}),
            event(3, None),
            event(4, [1]),
            named(USERS, 1, "u1"),
            named(POSTS, 1, "p1"),
            named(POSTS, 2, "p2"),
        ),
    )
    user, posts = keys(place, "users")["u1"], keys(place, "posts")
    now = whole | {"user": user}
    one, two = {"post": posts["p1"], "n": 1}, {"post": str(posts["p2"])}
    now["items"] = [one, two, {"post": None}, {}, 1]
    assert facts(place) == {"e1": now, "e2": {"other": 1}, "e4": [1]}
    read = {row["sync_id"]: row["facts"] for row in held(target, EVENTS)}
    assert read["e1"] == canonical(Kind(name="json"))(orjson.dumps(whole).decode())
    deliver(target, stream.batch(event(1, {"user": 1}, u), event(3, {"items": [{"post": 2}]}, u)))
    assert facts(place)["e1"] == {"user": user}
    assert facts(place)["e3"] == {"items": [{"post": posts["p2"]}]}
    assert target.parked() == []


@sampled("mysql")
def test_a_text_keeps_every_other_byte(place: Place) -> None:
    """Spaces, the form of numbers, the order and a second member of one name."""
    stream, target = ready(place)
    note = ' { "z":1.10, "user" :  1,"a":"\\u00e9\\t1", "user":1 , "n":1e400}\n'
    deliver(target, stream.batch(named(USERS, 1, "u1"), event(1, None, note=note)))
    user = keys(place, "users")["u1"]
    expected = note.replace(':  1,"', f':  {user},"').replace('"user":1 ', f'"user":{user} ')
    assert place.query("select note from events") == [(expected,)]
    assert [row["note"] for row in held(target, EVENTS)] == [note]


@sampled("mysql")
def test_a_key_means_what_it_meant_at_the_changes_own_moment(place: Place) -> None:
    """T11: two documents of one batch hold one key, of two users."""
    stream, target = ready(place)
    deliver(target, stream.batch(named(USERS, 1, "ada")))
    deliver(
        target,
        stream.batch(
            event(1, {"user": 1}),
            u(USERS, id=2, sync_id="ada", name="ada"),
            named(USERS, 1, "bob"),
            event(2, {"user": 1}),
        ),
    )
    users = keys(place, "users")
    assert facts(place) == {"e1": {"user": users["ada"]}, "e2": {"user": users["bob"]}}


def test_a_document_without_one_of_its_parents_waits_for_all(place: Place) -> None:
    """T21: parked, also an update, whose row stays as it was; others of the batch flow."""
    stream, target = ready(place, missing_parents={"app.*": "null_then_fix"})
    deliver(target, stream.batch(named(USERS, 1, "u1"), event(1, {"user": 1})))
    both = {"user": 2, "items": [{"post": 1}]}
    deliver(target, stream.batch(event(1, both, u), event(2, {"user": 1})))
    users = keys(place, "users")
    assert facts(place) == {"e1": {"user": users["u1"]}, "e2": {"user": users["u1"]}}
    (first,) = target.parked()
    assert (first.reason, first.waits_table, first.waits_key) == ("parent", "app.users", "2")
    deliver(target, stream.batch(named(USERS, 2, "u2")))
    (first,) = target.parked()
    assert (first.waits_table, first.waits_key) == ("app.posts", "1")
    deliver(target, stream.batch(named(POSTS, 5, "p5")))
    assert target.parked() == [first], "not tried for another one"
    deliver(target, stream.batch(named(POSTS, 1, "p1")))
    assert target.parked() == []
    posts, users = keys(place, "posts"), keys(place, "users")
    assert facts(place)["e1"] == {"user": users["u2"], "items": [{"post": posts["p1"]}]}


@sampled("postgres")
def test_what_is_no_key_is_parked(place: Place) -> None:
    """Nothing is guessed; a text that is no document neither."""
    stream, target = ready(place)
    deliver(
        target,
        stream.batch(
            named(USERS, 1, "u1"),
            event(1, {"user": True}),
            event(2, None, note='{"user":1'),
            event(3, {"user": 1}),
        ),
    )
    assert list(facts(place)) == ["e3"]
    reasons = [(change.reason, change.row_key) for change in target.parked()]
    assert reasons == [("value", '{"sync_id":"e1"}'), ("value", '{"sync_id":"e2"}')]
    assert "holds something else than a key" in target.parked()[0].problem
    assert "is no JSON document" in target.parked()[1].problem


@sampled("postgres")
def test_parents_that_a_referee_knows(place: Place) -> None:
    columns = tuple(c for c in USERS.columns if c.name != "sync_id")
    users = replace(USERS, identity=("id",), columns=columns)
    stream, target = ready(place, users, POSTS, EVENTS, referees=("app.users",))
    rows = [event(1, {"user": 1}), event(2, {"user": "x"}), event(3, {"user": 9})]
    deliver(target, stream.batch(c(users, id=1, name="ada"), *rows))
    assert facts(place) == {"e1": {"user": keys(place, "users")["ada"]}}
    assert [change.waits_key for change in target.parked()] == ["x", "9"]
    assert '"user":1e0' in str(held(target, EVENTS)[0]["facts"])


@sampled("sqlite")
def test_with_copied_keys_nothing_of_it_is_needed(place: Place) -> None:
    stream, target = ready(place, primary_keys="copy")
    deliver(target, stream.batch(event(1, {"user": 9, "items": [{"post": True}]})))
    assert facts(place) == {"e1": {"user": 9, "items": [{"post": True}]}}


@sampled("mariadb")
def test_rows_that_are_right_already_are_not_written_again(place: Place) -> None:
    """T86: a batch of all rows, on top of the same ones."""
    stream, target = ready(place)
    rows = [named(USERS, 1, "u1"), named(USERS, 2, "u2"), event(1, {"user": 1}), event(2, None)]
    deliver(target, stream.batch(*rows))
    tables = ["app.users", "app.events"]
    assert target.merge(stream.batch(*rows), tables, expect=target.checkpoint()) == 0
    rows[2] = event(1, {"user": 2})
    assert target.merge(stream.batch(*rows), tables, expect=target.checkpoint()) == 1
    assert facts(place) == {"e1": {"user": keys(place, "users")["u2"]}}


@sampled("mysql")
def test_a_conflict_is_seen_through_the_translation(place: Place) -> None:
    """T33: the same document under other keys is none."""
    rules = {"app.events": ConflictRules(policy="target_wins")}
    stream, target = ready(place, conflicts=rules)
    first = event(1, {"user": 1})
    deliver(target, stream.batch(named(USERS, 1, "u1"), named(USERS, 2, "u2"), first))
    second = event(1, {"user": 2})
    deliver(target, stream.batch(u(EVENTS, first.after, **second.after or {})))
    assert target.conflicts() == []
    assert facts(place) == {"e1": {"user": keys(place, "users")["u2"]}}
    place.execute("update events set note = '{}'")
    deliver(target, stream.batch(u(EVENTS, second.after, **first.after or {})))
    assert len(target.conflicts()) == 1
    assert facts(place) == {"e1": {"user": keys(place, "users")["u2"]}}


@sampled("mariadb")
def test_many_documents_are_translated_in_blocks(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr("apply.look_up.BLOCK", 3)
    stream, target = ready(place)
    rows = [event(n, {"user": n % 3 + 1}) for n in range(1, 12)]
    deliver(target, stream.batch(*(named(USERS, n, f"u{n}") for n in (1, 2)), *rows))
    assert len(facts(place)) == 7
    deliver(target, stream.batch(named(USERS, 3, "u3")))
    users = keys(place, "users")
    assert facts(place) == {f"e{n}": {"user": users[f"u{n % 3 + 1}"]} for n in range(1, 12)}


@pytest.mark.parametrize(
    ("declared", "match"),
    [
        ({"app.events.facts": InDocument(at={"user": "app.users.id"})}, "cannot be read"),
        ({"app.events.facts": InDocument(at={"$.user": "app.none.id"})}, "not captured"),
        ({"app.events.id": InDocument(at={"$.user": "app.users.id"})}, "neither JSON nor text"),
        ({"app.events.none": InDocument(at={"$.user": "app.users.id"})}, "no such column"),
    ],
)
def test_what_cannot_be_followed_is_refused(sqlite_db: Any, declared: Any, match: str) -> None:
    target = Place("sqlite", sqlite_db).target(references=declared)
    with pytest.raises(SchemaConflict, match=match):
        target.prepare([USERS, POSTS, EVENTS])
    target.close()
