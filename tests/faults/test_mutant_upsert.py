"""T3: a target that upserts by what its server has for it, planted; a test of the tests.

Each such statement acts on any unique key: it changes, replaces or skips because of a row of
another identity.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from tests.conformance.targets import Place, Stream, c, column, deliver, place, table

__all__ = ["place"]

USERS = table("users", column("email"), uniques=(("email",),))


def upsert(kind: str, target: sa.Table) -> Any:
    """The insert as somebody would write it who looks at no other unique key."""
    if kind == "postgres":
        return postgresql.insert(target).on_conflict_do_nothing()
    if kind == "sqlite":
        return sa.insert(target).prefix_with("OR REPLACE")
    made = mysql.insert(target)
    columns = [name for name in target.c.keys() if name != "id"]  # noqa: SIM118 (not a mapping)
    return made.on_duplicate_key_update({name: made.inserted[name] for name in columns})


@pytest.mark.parametrize("mutant", [True, False], ids=["mutant", "true"])
def test_an_upsert_by_any_unique_key_is_noticed(
    mutant: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T3: ON DUPLICATE KEY UPDATE, ON CONFLICT, OR REPLACE. A row of the target's own has the
    e-mail of one that comes: it stays as it is, and the one that comes is parked.
    """
    place.execute(
        f"create table users (id {place.serial}, sync_id varchar(36) unique,"
        " email varchar(50) unique)",
        "insert into users (sync_id, email) values ('local', 'ann@example.org')",
    )
    stream, target = Stream(), place.target(parked_limit=10)
    target.prepare([USERS])
    if mutant:
        monkeypatch.setattr("apply.sql._insert", lambda table: upsert(place.kind, table))
    deliver(target, stream.batch(c(USERS, id=7, sync_id="new", email="ann@example.org")))
    is_untouched = place.query("select id, sync_id, email from users") == [
        (1, "local", "ann@example.org")
    ]
    is_parked = [change.reason for change in target.parked()] == ["unique"]
    assert (is_untouched and is_parked) is not mutant
