"""What a person can get wrong: one sentence that says what to do, the right exit code, no change.

Each case runs the installed command on real servers and compares everything in the databases,
slots and publications included, before and after.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.pipeline import Pipeline, Worker, pipeline, until
from tests.services import kafka as broker
from tests.services import mysql as private_mysql
from tests.services import postgres as postgres_tools
from tests.services.database import Database, fresh
from tests.services.server import Server, free_port

NewDatabase = Callable[[Server], Database]
OPERATOR, AWAY, FENCED = 78, 69, 75

USERS = {
    "postgresql": "create table users (id bigserial primary key, sync_id uuid not null unique"
    " default gen_random_uuid(), name varchar(50) not null)",
    "mysql": "create table users (id bigint auto_increment primary key, sync_id char(36) not null"
    " unique default (uuid()), name varchar(50) not null)",
}
ROWS = "insert into users (name) values ('Ada'), ('Grace')"


def a_name() -> str:
    """Of a source; its slot's name is one for the whole server, which other tests use too."""
    return f"shop_{secrets.token_hex(4)}"


def family(database: Database) -> str:
    return urlsplit(database.url).scheme


def with_users(database: Database, rows: bool = True) -> Database:
    database.execute(USERS[family(database)])
    if rows:
        database.execute(ROWS)
    return database


def state(database: Database) -> list[str]:
    """Everything in a database as text: schemas, rows, publications, slots."""
    if family(database) == "postgresql":
        dump = subprocess.run(
            [postgres_tools.tool("pg_dump"), "--dbname", database.url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        slots = "select slot_name from pg_replication_slots where database = %s order by 1"
        # Newer pg_dumps fence their output with a random word.
        lines = [line for line in dump.splitlines() if not re.match(r"\\(un)?restrict ", line)]
        return lines + [str(slot) for slot in database.query(slots, database.name)]
    tables = [
        name
        for (name,) in database.query(
            "select table_name from information_schema.tables where table_schema = %s order by 1",
            database.name,
        )
    ]
    made = [str(database.query(f"show create table `{name}`")) for name in tables]
    return made + [str(database.query(f"select * from `{name}` order by 1")) for name in tables]


@contextmanager
def unchanged(*databases: Database) -> Iterator[None]:
    before = [state(database) for database in databases]
    yield
    assert [state(database) for database in databases] == before


def assert_says(worker: Worker, code: int, *words: str) -> None:
    """Ended with this code and one sentence with these words, then what to do; no traceback."""
    assert worker.wait() == code, worker.said
    lines = [line for line in worker.said.splitlines() if not line.startswith('{"')]
    assert len(lines) == 2, worker.said
    assert lines[0].startswith("headwater: ")
    assert lines[1].startswith("  -> ")
    text = " ".join(lines).lower()
    assert [word for word in words if word.lower() not in text] == [], text
    assert "traceback" not in text


@pytest.fixture
def flow(postgres: Server, new_database: NewDatabase, tmp_path: Path) -> Iterator[Pipeline]:
    """PostgreSQL to PostgreSQL through the embedded log; the target has no tables yet."""
    source, target = with_users(new_database(postgres)), new_database(postgres)
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as made:
        yield made


def both(flow: Pipeline) -> tuple[Database, ...]:
    return (flow.source, *flow.targets.values())


def drained(flow: Pipeline) -> None:
    """Copy the first rows to the target, then stop."""
    worker = flow.start("run")

    def arrived() -> bool:
        worker.alive()
        return users_in(flow.targets["branch"]) == 2

    until(arrived, "the first copy")
    assert worker.stop() == 0


def users_in(database: Database) -> int:
    schema = "public" if family(database) == "postgresql" else database.name
    there = database.query(
        "select count(*) from information_schema.tables"
        f" where table_schema = '{schema}' and table_name = 'users'"
    )
    return int(database.query("select count(*) from users")[0][0]) if there[0][0] else -1


def edit(flow: Pipeline, old: str, new: str) -> None:
    """Change the configuration file as its author might."""
    path = flow.folder / "headwater.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_wrong_password_of_the_source(flow: Pipeline) -> None:
    edit(flow, f":{flow.source.server.password}@", ":wrong@")
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), OPERATOR, "password")


def test_a_wrong_password_of_the_target(flow: Pipeline) -> None:
    path = flow.folder / "headwater.toml"
    before, after = path.read_text().rsplit(f":{flow.source.server.password}@", 1)
    path.write_text(f"{before}:wrong@{after}")
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), OPERATOR, "password")


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_a_wrong_password_of_mysql(
    kind: str, new_database: NewDatabase, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(kind)
    source, target = with_users(new_database(server)), new_database(server)
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        edit(flow, ":headwater@", ":wrong@")
        with unchanged(source, target):
            assert_says(flow.start("run"), OPERATOR, "password")


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_an_unreachable_server(
    kind: str, new_database: NewDatabase, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(kind)
    source, target = with_users(new_database(server)), new_database(server)
    with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
        edit(flow, f":{server.port}/", f":{free_port()}/")
        with unchanged(source, target):
            assert_says(flow.start("run"), AWAY, "127.0.0.1")


def test_an_unreachable_broker(flow: Pipeline) -> None:
    flow.log = {"kind": "kafka", "servers": f"127.0.0.1:{free_port()}"}
    flow.configure()
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), AWAY, "127.0.0.1")


def test_an_unknown_configuration_key(flow: Pipeline) -> None:
    flow.configure(chunk_row=1)
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), OPERATOR, "chunk_row", "did you mean", "chunk_rows")


@pytest.mark.parametrize("command", ["run", "capture", "apply", "peek"])
def test_an_unreadable_log_file(flow: Pipeline, command: str) -> None:
    (flow.folder / "log.db").write_bytes(b"this is no database" * 500)
    name = {"run": [], "apply": ["branch"]}.get(command, [flow.name])
    if command == "apply":
        flow.run("prepare", "branch")
    with unchanged(*both(flow)):
        assert_says(flow.start(command, *name), OPERATOR, "log.db")


def test_a_target_table_that_lacks_a_column(flow: Pipeline) -> None:
    target = flow.targets["branch"]
    target.execute("create table users (id bigserial primary key, sync_id uuid not null unique)")
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), OPERATOR, "users", "name")


def test_a_table_without_an_identity(flow: Pipeline) -> None:
    flow.source.execute("create table plain (n int)")
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), OPERATOR, "plain", "sync_id")


def test_a_dropped_slot_is_not_made_again_in_silence(flow: Pipeline) -> None:
    """H51: what was written since could not be read; a new slot would hide that."""
    drained(flow)
    flow.source.execute(f"select pg_drop_replication_slot('headwater_{flow.name}')")
    flow.source.execute(ROWS)
    with unchanged(*both(flow)):
        assert_says(flow.start("run"), OPERATOR, f"found slot headwater_{flow.name} dropped")


def test_a_log_that_was_made_anew_is_not_taken_for_the_old_one(flow: Pipeline) -> None:
    drained(flow)
    for path in flow.folder.glob("log.db*"):
        path.unlink()
    flow.run("snapshot", "--here", flow.name)
    with unchanged(flow.targets["branch"]):
        assert_says(flow.start("apply", "branch", "--once"), OPERATOR, "log")


def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(
    postgres: Server, kafka: Server, new_database: NewDatabase, kafka_prefix: str, tmp_path: Path
) -> None:
    source, target = with_users(new_database(postgres)), new_database(postgres)
    with pipeline(tmp_path, kafka_prefix, source, {"branch": target}, kafka) as flow:
        drained(flow)
        broker.drop_topics(kafka.address, kafka_prefix)
        flow.run("snapshot", "--here", kafka_prefix)
        with unchanged(target):
            assert_says(flow.start("apply", "branch", "--once"), OPERATOR, "log")


@pytest.fixture(scope="module")
def own_mysql() -> Iterator[Server]:
    """A MySQL whose global settings tests may change."""
    with (
        tempfile.TemporaryDirectory(prefix="headwater-mysql-") as folder,
        private_mysql.start(Path(folder)) as server,
    ):
        yield server


@pytest.mark.parametrize(
    ("setting", "wrong", "right"),
    [
        ("binlog_row_metadata", "MINIMAL", "FULL"),
        ("binlog_row_image", "MINIMAL", "FULL"),
        ("binlog_format", "STATEMENT", "ROW"),
    ],
)
def test_wrong_binlog_settings(
    own_mysql: Server, tmp_path: Path, setting: str, wrong: str, right: str
) -> None:
    """H15, H16: refused before anything is touched, each setting by its name."""
    with fresh(own_mysql) as source, fresh(own_mysql) as target:
        with_users(source)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            source.execute(f"set global {setting} = '{wrong}'")
            try:
                with unchanged(source, target):
                    assert_says(flow.start("run"), OPERATOR, setting, right)
            finally:
                source.execute(f"set global {setting} = '{right}'")


def test_a_purged_binlog(own_mysql: Server, tmp_path: Path) -> None:
    with fresh(own_mysql) as source, fresh(own_mysql) as target:
        with_users(source)
        with pipeline(tmp_path, a_name(), source, {"branch": target}, "sqlite") as flow:
            flow.configure(include=[f"{source.name}.*"])
            drained(flow)
            source.execute(ROWS)
            source.execute("flush binary logs")
            source.execute(f"purge binary logs to '{source.query('show binary logs')[-1][0]}'")
            with unchanged(source, target):
                assert_says(flow.start("run"), OPERATOR, "purged")


def test_of_two_captures_one_is_fenced(flow: Pipeline) -> None:
    """H88: the older one ends with 75; the newer one goes on."""
    flow.prepare()
    first = flow.capture()
    until(lambda: is_read(flow), "the first capture")
    second = flow.capture()
    assert_says(first, FENCED, "capture")
    second.alive()
    assert second.stop() == 0


def is_read(flow: Pipeline) -> bool:
    slots = "select 1 from pg_replication_slots where slot_name = %s and active"
    return bool(flow.source.query(slots, f"headwater_{flow.name}"))


def test_of_two_appliers_one_is_fenced(flow: Pipeline) -> None:
    flow.prepare()
    capture = flow.capture()
    appliers = [flow.apply("branch"), flow.apply("branch")]

    def one_ended() -> bool:
        capture.alive()
        flow.source.execute(ROWS)
        return any(a.code is not None for a in appliers)

    until(one_ended, "one of two appliers to be fenced")
    ended = next(a for a in appliers if a.code is not None)
    assert_says(ended, FENCED, "branch")
    rest = next(a for a in appliers if a is not ended)
    rest.alive()
    assert (rest.stop(), capture.stop()) == (0, 0)
