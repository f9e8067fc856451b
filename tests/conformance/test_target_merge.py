"""Every target: a batch that holds all rows of its tables, on top of right and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from schemas.change import Batch, Rows
from tests.conformance.targets import (
    INT,
    Place,
    Stream,
    c,
    column,
    deliver,
    foreign_key,
    held,
    place,
    table,
)
from tests.conformance.test_target_swaps import VALUES
from transport.batch import StoredBatch

__all__ = ["place"]

ALL = table("every", *(column(name, kind) for name, (kind, _, _) in VALUES.items()))
USERS = table("users", column("email", nullable=False), uniques=(("email",),))
ORDERS = table("orders", column("user_id", INT), foreign_keys=(foreign_key("user_id", "users"),))


def versions(place: Place) -> list[tuple[Any, ...]]:
    """What shows that a row was written again; servers without it give nothing."""
    return place.query("select xmin::text from every") if place.kind == "postgres" else []


class OneByOne(StoredBatch):
    """The same rows, each in a block of its own."""

    def blocks(self, max_rows: int = 20_000) -> Iterator[Sequence[Rows]]:
        yield from super().blocks(1)


def one_by_one(batch: Batch) -> Batch:
    assert isinstance(batch, StoredBatch)
    return OneByOne(
        records=batch.records, offset=batch.offset, fetch=batch.fetch, target=batch.target
    )


@pytest.mark.parametrize("wrong", [*VALUES, "nothing", "missing", "extra", "null"])
def test_only_what_differs_is_written(place: Place, wrong: str) -> None:
    """T66, T86: of every type; -0, spaces and case are differences."""
    stream, target = Stream(), place.target()
    target.prepare([ALL])
    right: dict[str, Any] = {name: one for name, (_, one, _) in VALUES.items()}
    deliver(target, stream.batch(c(ALL, id=1, sync_id="a", **right), c(ALL, id=2, sync_id="b")))
    before, were = held(target, ALL), versions(place)
    if wrong in VALUES:
        changed = right | {wrong: VALUES[wrong][2]}
        rows = [c(ALL, id=1, sync_id="a", **changed), c(ALL, id=2, sync_id="b")]
    else:
        rows = [c(ALL, id=1, sync_id="a", **right), c(ALL, id=2, sync_id="b")]
        rows += [c(ALL, id=3, sync_id="c")] if wrong == "missing" else []
        rows = rows[:1] if wrong == "extra" else rows
        rows[0] = (
            c(ALL, id=1, sync_id="a", **right | {"text": None}) if wrong == "null" else rows[0]
        )
    batch = stream.batch(*rows)
    written = target.merge(batch, ["app.every"], expect=target.checkpoint())
    assert written == (0 if wrong == "nothing" else 1)
    assert target.checkpoint() == batch.offset
    after = held(target, ALL)
    if wrong == "nothing":
        assert (after, versions(place)) == (before, were)
    elif wrong in VALUES:
        assert {n for n, v in after[0].items() if v != before[0][n]} == {wrong}
    else:
        assert len(after) == {"missing": 3, "extra": 1, "null": 2}[wrong]
    assert target.merge(batch, ["app.every"], expect=target.checkpoint()) == 0


def test_case_and_trailing_spaces_are_differences(place: Place) -> None:
    text = table("texts", column("body"))
    stream, target = Stream(), place.target()
    target.prepare([text])
    deliver(target, stream.batch(c(text, id=1, sync_id="a", body="x")))
    for body in ("X", "x ", "\u00e4", "a\u0308"):
        batch = stream.batch(c(text, id=1, sync_id="a", body=body))
        assert target.merge(batch, ["app.texts"], expect=target.checkpoint()) == 1
        assert held(target, text)[0]["body"] == body


def test_references_unique_values_and_keys_of_its_own(place: Place) -> None:
    """T16, T23, H93: a parent that was deleted there gets a new key, and its children follow; a
    unique column's values change hands between blocks; a parent that is too much is deleted
    although its child must move first; rows without an identity stay.
    """
    stream, target = Stream(), place.target()
    place.execute(
        f"create table users (id {place.serial}, sync_id varchar(36) unique, "
        "email varchar(50) not null unique)",
        f"create table orders (id {place.serial}, sync_id varchar(36) unique, user_id int)",
    )
    target.prepare([USERS, ORDERS])
    rows = [
        *(c(USERS, id=10 + n, sync_id=f"u{n}", email=f"{n}@x") for n in range(4)),
        *(c(ORDERS, id=50 + n, sync_id=f"o{n}", user_id=10 + n) for n in range(4)),
    ]
    deliver(target, stream.batch(*rows))
    right = held(target, USERS), held(target, ORDERS)
    place.execute(
        "insert into users (email) values ('mine')",
        "insert into users (sync_id, email) values ('u9', '9@x')",
        "update orders set user_id = (select id from users where sync_id = 'u9') "
        "where sync_id = 'o1'",
        "update users set email = 't' where sync_id = 'u0'",
        "update users set email = '0@x' where sync_id = 'u2'",
        "update users set email = '2@x' where sync_id = 'u0'",
        "update orders set user_id = null where sync_id = 'o3'",
        "delete from users where sync_id = 'u3'",
    )
    batch = one_by_one(stream.batch(*rows))
    expect = target.checkpoint()
    assert target.merge(batch, ["app.users", "app.orders"], expect=expect) >= 6
    assert (held(target, USERS), held(target, ORDERS)) == right
    assert place.query("select count(*) from users where email = 'mine'") == [(1,)]
    assert target.merge(batch, ["app.users", "app.orders"], expect=target.checkpoint()) == 0
