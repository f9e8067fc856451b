"""Rows that the source inserted need no staging where COPY does what an INSERT would."""

from __future__ import annotations

from typing import Any

import pytest

from apply.postgres import PostgresServer
from schemas.native import load
from tests.conformance.targets import Place, Stream, c, column, d, deliver, held, place, table, u

__all__ = ["place"]

ITEMS = table("items", column("name"))
# LOAD DATA LOCAL steps over rows that an INSERT refuses: only PostgreSQL's COPY will do.
postgres = pytest.mark.parametrize("place", ["postgres"], indirect=True)
DIRECT = ["items"] if load() else ["headwater_stage_0"]


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that rows are copied into."""
    tables: list[str] = []
    stage = PostgresServer.stage

    def noted(self: PostgresServer, connection: Any, into: Any, lines: Any) -> int:
        tables.append(into.name)
        return stage(self, connection, into, lines)

    monkeypatch.setattr(PostgresServer, "stage", noted)
    return tables


def two(stream: Stream) -> Any:
    return stream.batch(
        c(ITEMS, id=1, sync_id="a", name="tab\tand \\N"), c(ITEMS, id=2, sync_id="b", name=None)
    )


def names(target: Any) -> dict[str, Any]:
    return {row["sync_id"]: row["name"] for row in held(target, ITEMS)}


@postgres
def test_new_rows_go_straight_into_their_table(place: Place, filled: list[str]) -> None:
    target, stream = place.target(), Stream()
    target.prepare([ITEMS])
    assert deliver(target, two(stream)) == 2
    assert filled == DIRECT
    assert names(target) == {"a": "tab\tand \\N", "b": None}
    deliver(target, stream.batch(u(ITEMS, id=1, sync_id="a", name="A")))
    assert filled == [*DIRECT, "headwater_stage_0"]


def test_rows_that_are_there_already_are_updated(place: Place) -> None:
    """A replay beside a new row; and a row that an older change has deleted in the same batch."""
    target, stream = place.target(), Stream()
    target.prepare([ITEMS])
    place.execute("insert into items (sync_id, name) values ('a', 'stale'), ('x', 'goes')")
    local = place.query("select id from items where sync_id = 'a'")
    assert deliver(target, two(stream)) == 2
    deliver(
        target, stream.batch(d(ITEMS, id=9, sync_id="x"), c(ITEMS, id=10, sync_id="x", name="new"))
    )
    assert names(target) == {"a": "tab\tand \\N", "b": None, "x": "new"}
    assert place.query("select id from items where sync_id = 'a'") == local


@postgres
def test_a_rule_is_obeyed(place: Place, filled: list[str]) -> None:
    """COPY runs none."""
    target, stream = place.target(), Stream()
    target.prepare([ITEMS])
    place.execute(
        "create table seen (sync_id text)",
        "create rule noted as on insert to items do also insert into seen values (new.sync_id)",
    )
    target = place.target()
    deliver(target, two(stream))
    assert filled == ["headwater_stage_0"]
    assert sorted(place.query("select sync_id from seen")) == [("a",), ("b",)]


@postgres
def test_a_trigger_may_take_rows_away(place: Place, filled: list[str]) -> None:
    """As it may from an INSERT: it is asked again for all of them."""
    target, stream = place.target(), Stream()
    target.prepare([ITEMS])
    deliver(target, stream.batch(c(ITEMS, id=3, sync_id="c", name="C")))
    place.execute(
        "create function refuse() returns trigger language plpgsql as "
        "$$ begin if new.name is null then return null; end if; return new; end $$",
        "create trigger refused before insert on items for each row execute function refuse()",
    )
    deliver(target, two(stream))
    assert filled == ([*DIRECT * 2, "headwater_stage_0"] if load() else DIRECT * 2)
    assert names(target) == {"a": "tab\tand \\N", "c": "C"}
