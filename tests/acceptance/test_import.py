"""A dump by other tools, and exactly what came after it: `position`, then `capture --from`.

The dump is taken by the server's own tool where it is here, while somebody writes. The target gets
primary keys of its own before the changes come.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ops.compose import opened_log
from tests.acceptance.test_operator_errors import (
    OPERATOR,
    NewDatabase,
    a_name,
    assert_says,
    with_users,
)
from tests.faults.pipeline import Pipeline, Worker, pipeline, scheme, until
from tests.faults.workload import KINDS, TABLES, Workload, create
from tests.services import install
from tests.services import postgres as postgres_tools
from tests.services.database import Database
from tests.services.server import Server

SERVERS = ["postgres", "mysql", "mariadb"]
OWN = "mariadb, the dump's own position"
SHIFT = 10**9
"""What is added to the primary keys of the imported rows."""
CALM = tuple(kind for kind in KINDS if kind != "truncate")
"""A truncate ends a dump that has begun (MySQL), or empties its snapshot (PostgreSQL)."""


@contextmanager
def writing(workload: Workload, only: tuple[str, ...] = tuple(KINDS)) -> Iterator[None]:
    """Somebody writes, all the time."""
    done, failed = threading.Event(), []

    def write() -> None:
        try:
            while not done.wait(0.002):
                workload.step(only=only)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failed, failed


def said(worker: Worker) -> dict[str, Any]:
    """The JSON document that a command has printed, while it may still run."""

    def documents() -> list[dict[str, Any]]:
        lines = worker.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"source":"')]

    until(lambda: bool(documents()) or worker.code is not None, "what the command prints")
    (document,) = documents()
    return document


def own_position(dump: Path) -> str:
    """What mariadb-dump --master-data=2 --gtid notes."""
    found = re.search(r"gtid_slave_pos='([0-9,-]+)'", dump.read_text())
    assert found is not None
    return found[1]


def dump_and_import(source: Database, target: Database, snapshot: str | None, file: Path) -> None:
    """Bring the source's rows into the empty target as they are in one moment from now on."""
    if scheme(source) == "postgresql":
        flags = [] if snapshot is None else [f"--snapshot={snapshot}"]
        tool = postgres_tools.tool("pg_dump")
        run(tool, "--no-publications", *flags, "--file", file, "--dbname", source.url)
        psql = postgres_tools.tool("psql")
        run(psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "--dbname", target.url, "--file", file)
    elif source.server.kind == "mariadb":
        server = source.server
        login = [f"--host={server.host}", f"--port={server.port}", f"--user={server.user}",
                 f"--password={server.password}"]  # fmt: skip
        tool = Path(install.apt("mariadb-client", "mariadb-dump"))
        flags = ["--single-transaction", "--master-data=2", "--gtid"]
        run(tool, *login, *flags, f"--result-file={file}", source.name)
        with file.open() as dump:
            client = Path(install.apt("mariadb-client", "mariadb"))
            run(client, *login, target.name, stdin=dump)
    else:
        create(target)
        copy(source, target)


def run(*words: object, stdin: Any = subprocess.DEVNULL) -> None:
    done = subprocess.run(
        [str(word) for word in words], stdin=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def copy(source: Database, target: Database) -> None:
    """As mysqldump --single-transaction does, which is no part of the server's package."""
    with closing(source.connect()) as reader, closing(target.connect()) as writer:
        read, write = reader.cursor(), writer.cursor()
        read.execute("set session transaction isolation level repeatable read")
        read.execute("start transaction with consistent snapshot")
        write.execute("set foreign_key_checks = 0")
        for table in TABLES:
            read.execute(f"select * from {table}")
            if rows := read.fetchall():
                places = ", ".join(["%s"] * len(rows[0]))
                write.executemany(f"insert into {table} values ({places})", rows)


def give_own_keys(target: Database) -> None:
    """Primary keys that are not the source's, and references that follow them."""
    is_postgres = scheme(target) == "postgresql"
    off = "session_replication_role = replica" if is_postgres else "foreign_key_checks = 0"
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"set {off}")
        for table in TABLES:
            cursor.execute(f"update {table} set id = id + {SHIFT}")
            if is_postgres:
                cursor.execute(
                    f"select setval(pg_get_serial_sequence('{table}', 'id'), {9 * SHIFT})"
                )
            else:
                cursor.execute(f"alter table {table} auto_increment = {9 * SHIFT}")
        cursor.execute(f"update pets set owner = owner + {SHIFT}")


def settle(flow: Pipeline, workload: Workload, workers: list[Worker]) -> None:
    """Let everything arrive, compare, and end the processes well."""
    key, target = workload.beat(), flow.targets["branch"]

    def arrived() -> bool:
        for worker in workers:
            worker.alive()
        return bool(target.query("select 1 from ledger where sync_id = %s", key))

    until(arrived, "the last row in the target")
    report = flow.verify("branch", values=True)
    assert (report.verdict, report.differences) == ("valid", [])
    assert sum(table.source_rows for table in report.tables) > 100
    assert [worker.stop() for worker in workers] == [0] * len(workers)


@contextmanager
def a_pipeline(source: Database, target: Database, folder: Path) -> Iterator[Pipeline]:
    with pipeline(folder, a_name(), source, {"branch": target}, "sqlite") as flow:
        flow.configure(first_copy="identities", batch_rows=50, chunk_rows=20)
        yield flow


@pytest.mark.parametrize("server", [*SERVERS, OWN])
def test_a_dump_and_the_capture_from_its_position_end_equal(
    server: str, request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path: Path
) -> None:
    """H125: written to before, during and after the dump; with a position that was noted before it,
    they overlap.
    """
    fixture = server.partition(",")[0]
    source, target = (new_database(request.getfixturevalue(fixture)) for _ in range(2))
    create(source)
    workload = Workload(source, Random(os.environ["HEADWATER_SEED"]))
    workload.fill(120)
    with closing(workload), a_pipeline(source, target, tmp_path) as flow:
        with writing(workload, CALM):
            noting = flow.start("position", flow.name, "--json")
            noted = said(noting)
            until(lambda: workload.ledger_rows > 10, "some writing")
            assert (noted["snapshot"] is not None) == (server == "postgres")
            if server == "postgres":
                noting.alive()
            dump_and_import(source, target, noted["snapshot"], tmp_path / "dump.sql")
            assert (noting.stop() if server == "postgres" else noting.wait()) == 0
        give_own_keys(target)
        if server == OWN:
            noted["position"] = own_position(tmp_path / "dump.sql")
        for _ in range(50):
            workload.step()
        flow.run("prepare", "branch")
        capture = flow.start("capture", flow.name, "--from", noted["position"])
        with writing(workload):
            apply = flow.apply("branch")
            until(lambda: has_begun(flow) or capture.code is not None, "the log's beginning")
        settle(flow, workload, [capture, apply])
        # The dump's tool names the domains in an order of its own.
        assert sorted(first_position(flow).split(",")) == sorted(noted["position"].split(","))
        assert target.query(f"select 1 from people where id < {SHIFT}") == []
        # The log has a position of its own now.
        again = flow.start("capture", flow.name, "--from", noted["position"])
        assert_says(again, OPERATOR, "has begun already", f"headwater capture {flow.name}")
        goes_on = flow.capture()
        settle(flow, workload, [goes_on, flow.apply("branch")])


def test_a_dump_without_the_snapshot_overlaps_and_does_no_harm(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    source, target = new_database(postgres), new_database(postgres)
    create(source)
    workload = Workload(source, Random(os.environ["HEADWATER_SEED"]))
    workload.fill(120)
    with closing(workload), a_pipeline(source, target, tmp_path) as flow:
        noted = said(flow.start("position", flow.name, "--no-hold", "--json"))
        assert noted["snapshot"] is None
        with writing(workload, CALM):
            until(lambda: workload.ledger_rows > 20, "some writing")
            dump_and_import(source, target, None, tmp_path / "dump.sql")
        give_own_keys(target)
        flow.run("prepare", "branch")
        capture = flow.start("capture", flow.name, "--from", noted["position"])
        settle(flow, workload, [capture, flow.apply("branch")])


def test_a_position_noted_after_the_dump_is_found_by_verify(
    mysql: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """H125, the wrong way round: nothing in the log can show it, a comparison does."""
    source, target = new_database(mysql), new_database(mysql)
    for database in (source, target):
        create(database)
    with (
        closing(Workload(source, Random(1))) as workload,
        a_pipeline(source, target, tmp_path) as flow,
    ):
        workload.fill(20)
        copy(source, target)
        workload.fill(1)
        noted = said(flow.start("position", flow.name, "--json"))
        flow.run("prepare", "branch")
        capture = flow.start("capture", flow.name, "--from", noted["position"])
        until(lambda: has_begun(flow) or capture.code is not None, "the log's beginning")
        key = workload.beat()
        apply = flow.apply("branch")
        until(
            lambda: bool(target.query("select 1 from ledger where sync_id = %s", key)),
            "the row after the position",
        )
        assert flow.verify("branch").verdict == "invalid"
        assert [worker.stop() for worker in (capture, apply)] == [0, 0]


def has_begun(flow: Pipeline) -> bool:
    with opened_log(flow.config, flow.name) as log:
        return log.span() is not None


def first_position(flow: Pipeline) -> str:
    """Where the log's first record begins."""
    with opened_log(flow.config, flow.name) as log:
        first = next(batch for batch in log.read(None, follow=False) if batch is not None)
    assert first.is_empty
    return str(first.position)


@pytest.fixture(params=SERVERS)
def shop(
    request: pytest.FixtureRequest, new_database: Callable[[Server], Database], tmp_path: Path
) -> Iterator[Pipeline]:
    """A source with two rows, whose log holds nothing."""
    server: Server = request.getfixturevalue(request.param)
    source, target = with_users(new_database(server)), new_database(server)
    with a_pipeline(source, target, tmp_path) as flow:
        yield flow


def refused(flow: Pipeline, position: str, *words: str) -> None:
    """`capture --from` says so, and the log holds nothing afterwards."""
    assert_says(flow.start("capture", flow.name, "--from", position), OPERATOR, *words)
    assert not has_begun(flow)


def test_a_capture_begins_nowhere_else_than_it_was_told(shop: Pipeline) -> None:
    """What a person can get wrong; each before the log is touched."""
    refused(shop, "yesterday", "position")
    refused(shop, " ", "position", f"headwater position {shop.name}")
    if scheme(shop.source) == "postgresql":
        # Without a slot there is no stream from there, and none is made.
        refused(shop, "0/16B3748", "no replication slot", f"headwater position {shop.name}")
        assert not slots(shop)
    noted = said(shop.start("position", shop.name, "--no-hold", "--json"))["position"]
    if shop.source.server.kind == "mysql":
        future = f"{noted},{shop.source.query('select @@server_uuid')[0][0]}:1-999999999"
    elif shop.source.server.kind == "mariadb":
        future = f"{noted.rpartition('-')[0]}-999999999"
    else:
        future = "FFFF/0"
    refused(shop, future, "our position", f"headwater position {shop.name}")
    shop.configure(first_copy="rows")
    refused(shop, noted, "first_copy", "identities")
    shop.configure(first_copy="none")
    capture = shop.start("capture", shop.name, "--from", noted)
    until(lambda: has_begun(shop) or capture.code is not None, "the log's beginning")
    assert (capture.stop(), first_position(shop)) == (0, noted)
    again = shop.start("position", shop.name)
    assert_says(again, OPERATOR, "has begun already", "without --from")


def slots(flow: Pipeline) -> list[tuple[Any, ...]]:
    where = "slot_name = %s"
    return flow.source.query(
        f"select 1 from pg_replication_slots where {where}", f"headwater_{flow.name}"
    )


def test_a_table_that_is_newer_than_the_publication_is_refused(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    """Its rows since the position would not be in the stream, and nobody would miss them."""
    source = with_users(new_database(postgres))
    with a_pipeline(source, new_database(postgres), tmp_path) as flow:
        noted = said(flow.start("position", flow.name, "--no-hold", "--json"))["position"]
        source.execute("create table later (id int primary key, sync_id uuid not null unique)")
        refused(flow, noted, "not prepared", "exclude")


def test_a_held_snapshot_ends_with_the_command(
    postgres: Server, new_database: NewDatabase, tmp_path: Path
) -> None:
    source = with_users(new_database(postgres))
    with a_pipeline(source, new_database(postgres), tmp_path) as flow:
        holding = flow.start("position", flow.name)
        until(lambda: "--snapshot=" in holding.said or holding.code is not None, "the snapshot")
        holding.alive()
        assert f"headwater capture {flow.name} --from '" in holding.said
        assert holding.stop() == 0
        assert slots(flow)
        again = flow.run("position", flow.name)
        assert "is there already" in again
        assert "--snapshot=" not in again
