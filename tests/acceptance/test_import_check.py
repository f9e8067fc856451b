"""`headwater import-check`: as new, older, or nothing to tell by; and what a beat leaves behind."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.dumps import DUMPS
from tests.acceptance.test_import import said
from tests.acceptance.test_operator_errors import (
    OPERATOR,
    NewDatabase,
    a_name,
    assert_says,
    family,
    with_users,
)
from tests.faults.pipeline import Pipeline, pipeline, schema_of
from tests.services import mysql as vendor
from tests.services.database import Database, fresh
from tests.services.server import Server

SERVERS = ["postgres", "mysql", "mariadb"]
PLAIN = {d.kind: d for d in DUMPS if d.name in ("pg_dump", "mysqldump", "mariadb-dump")}
UNKNOWN = 3
ADD = "insert into users (name) values ('Alan')"


@pytest.fixture(params=SERVERS)
def shop(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> Iterator[Pipeline]:
    """A source with two rows, whose log holds nothing, and an empty target."""
    server: Server = request.getfixturevalue(request.param)
    source, target = with_users(new_database(server)), new_database(server)
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        flow.configure(first_copy="none")
        yield flow


def noted(flow: Pipeline, *words: str) -> dict[str, Any]:
    return said(flow.start("position", flow.name, "--no-hold", "--json", *words))


def dump(flow: Pipeline) -> None:
    PLAIN[flow.source.server.kind].dump(flow.source, None, flow.folder)


def load(flow: Pipeline) -> None:
    PLAIN[flow.source.server.kind].load(flow.targets["branch"], flow.folder)
    flow.run("prepare", "branch")


def caught_up(flow: Pipeline, begin: str) -> None:
    """Capture from there, and apply until the target is level."""
    capture = flow.start("capture", flow.name, "--from", begin)
    flow.run("catch-up", "branch")
    capture.alive()
    assert capture.stop() == 0


def checked(flow: Pipeline, *words: str) -> tuple[int, dict[str, Any]]:
    worker = flow.start("import-check", "branch", "--json", *words)
    code = worker.wait()
    return code, json.loads(worker.said.splitlines()[-1])


def names(flow: Pipeline) -> list[tuple[Any, ...]]:
    return flow.targets["branch"].query("select name from users order by name")


def beats_of(database: Database) -> bool:
    there = "select 1 from information_schema.tables where table_schema = %s and table_name = %s"
    return bool(database.query(there, schema_of(database), "headwater_beat"))


def test_an_import_that_is_older_than_the_position_is_found_and_mended(shop: Pipeline) -> None:
    """H125, the wrong way round: the dump was begun before the position was noted.

    It holds the beat of an earlier one, by which its changes can begin where nothing is missing.
    """
    earlier = noted(shop)
    dump(shop)
    shop.source.execute(ADD)
    later = noted(shop) if family(shop.source) == "mysql" else moved(shop)
    load(shop)
    caught_up(shop, later["position"])
    assert names(shop) == [("Ada",), ("Grace",)]  # the gap
    older = shop.start("import-check", "branch")
    words = (f"holds beat {earlier['beat']}", f"is {later['beat']}", earlier["position"])
    assert_says(older, OPERATOR, *words, "in neither", f"drop {shop.name} --log --yes")
    if family(shop.source) == "mysql":
        # What the hint says; on PostgreSQL the slot has passed that place.
        for name in ([shop.name, "--log"], ["branch"]):
            shop.run("drop", *name, "--yes")
        shop.run("prepare", "branch")
        caught_up(shop, earlier["position"])
        assert names(shop) == [("Ada",), ("Alan",), ("Grace",)]


def moved(shop: Pipeline) -> dict[str, Any]:
    """PostgreSQL: the position is the slot's, which stands still until something is read."""
    shop.source.query(
        f"select pg_replication_slot_advance('headwater_{shop.name}', pg_current_wal_flush_lsn())"
    )
    return noted(shop)


def test_an_import_is_as_new_as_any_earlier_position(shop: Pipeline) -> None:
    """An overlap is no gap; the log's beginning counts, or the position that is named."""
    first = noted(shop)
    shop.source.execute(ADD)
    second = noted(shop)
    dump(shop)
    load(shop)
    assert [first["beat"], second["beat"]] == [1, 2]
    for noting in (first, second):
        code, found = checked(shop, "--from", noting["position"])
        assert (code, found["as_new"], found["begins"]) == (0, True, noting["position"])
    nothing = shop.start("import-check", "branch")
    assert_says(nothing, OPERATOR, "holds nothing yet", "--from POSITION")
    caught_up(shop, first["position"])
    code, found = checked(shop)
    assert (code, found["as_new"], found["begins"]) == (0, True, first["position"])
    assert found["beats"][schema_of(shop.source)]["number"] == 2
    assert "as new as" in shop.run("import-check", "branch")
    assert len(names(shop)) == 3


def test_without_a_beat_nothing_is_claimed(shop: Pipeline) -> None:
    position = noted(shop, "--no-beat")
    assert position["beat"] is None
    assert "headwater verify" in " ".join(f["fix"] for f in position["findings"])
    assert not beats_of(shop.source)
    dump(shop)
    load(shop)
    unknown = shop.start("import-check", "branch", "--from", position["position"])
    assert unknown.wait() == UNKNOWN
    assert "holds no beat" in unknown.said
    assert "headwater verify branch" in unknown.said


def test_a_position_of_another_tool_is_not_called_older(shop: Pipeline) -> None:
    """The beat that the dump holds says only how new the import is at least."""
    noting = noted(shop)
    dump(shop)
    load(shop)
    shop.source.execute(ADD)
    place = {"postgresql": "FFFF/0@1"}.get(family(shop.source), "0-1-999999999")
    if shop.source.server.kind == "mysql":
        place = str(shop.source.query("select @@gtid_executed")[0][0])
    code, found = checked(shop, "--from", place)
    assert (code, found["as_new"]) == (UNKNOWN, False)
    assert noting["position"] in found["unknown"]


def test_a_beat_is_nobodys_row(shop: Pipeline) -> None:
    """Not captured, not compared, and `drop` takes it away, on both sides."""
    position = noted(shop)["position"]
    dump(shop)
    load(shop)
    caught_up(shop, position)
    peeked = shop.run("peek", shop.name, "--limit", "1000")
    assert "headwater_beat" not in peeked
    target = shop.targets["branch"]
    target.execute("update headwater_beat set number = 77")
    assert "0 differences" in shop.run("verify", "branch", "--once")
    assert beats_of(shop.source)
    assert beats_of(target)
    for name in (shop.name, "branch"):
        assert "headwater_beat" in shop.run("drop", name)
        shop.run("drop", name, "--yes")
    assert not beats_of(shop.source)
    assert not beats_of(target)
    assert len(names(shop)) == 2


@contextmanager
def stranger(database: Database) -> Iterator[str]:
    """A user who may capture and not write; the URL."""
    user, server = f"u_{secrets.token_hex(4)}", database.server
    if family(database) == "postgresql":
        database.execute(f"create role {user} login replication password 'p'")
        database.execute(f"grant select on all tables in schema public to {user}")
        database.execute(f"revoke create on schema public from public, {user}")
        database.execute(f"alter table users owner to {user}")
        database.execute(f"grant create on database {database.name} to {user}")
    else:
        database.execute(f"create user {user} identified by 'p'")
        database.execute(f"grant replication slave, replication client on *.* to {user}")
        database.execute(f"grant select on {database.name}.* to {user}")
    try:
        yield database.url.replace(f"{server.user}:{server.password}@", f"{user}:p@")
    finally:
        if family(database) == "postgresql":
            database.execute(f"drop owned by {user}; drop role {user}")
        else:
            database.execute(f"drop user {user}")


def test_without_the_rights_the_position_is_noted_and_the_beat_is_not(shop: Pipeline) -> None:
    with stranger(shop.source) as url:
        shop.configure(url=url)
        found = noted(shop)
        assert found["position"]
        assert found["beat"] is None
        (finding,) = [f for f in found["findings"] if f["where"] == "headwater_beat"]
        assert (finding["refused"], "GRANT CREATE" in finding["fix"]) == (False, True)
        assert not beats_of(shop.source)
        shop.run("drop", shop.name, "--yes")


def test_a_server_that_is_read_only_is_not_written_to(
    mysql: Server, new_database: NewDatabase, tmp_path: Path, server_dir: Path
) -> None:
    """An administrator may write all the same; on a replica that would be an errant transaction."""
    with vendor.start(server_dir) as server, fresh(server) as source:
        with_users(source)
        source.execute("set global read_only = on")
        target = new_database(mysql)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            found = noted(flow)
            assert found["beat"] is None
            assert "read_only" in found["findings"][-1]["problem"]
            source.execute("set global read_only = off")
