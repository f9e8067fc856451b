"""The recipes of tests/services: each server is up with the settings that tests rely on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests import services
from tests.services import docker
from tests.services import mysql as mysqld
from tests.services import postgres as postgresd
from tests.services.database import Database, fresh
from tests.services.server import Server, Unavailable


@pytest.mark.parametrize("fixture", ["postgres_db", "postgres15_db"])
def test_postgres_can_decode_its_log(fixture: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(fixture)
    assert database.query("show wal_level") == [("logical",)]
    assert database.query("select current_database()") == [(database.name,)]
    database.execute("create table t (id int primary key)")
    database.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", database.name)
    database.execute("insert into t values (1); insert into t values (2)")
    assert database.query("select count(*) from t where id %% 2 = %s", 0) == [(1,)]


def test_the_wheel_is_newer_than_the_distribution(
    postgres_db: Database, postgres15_db: Database
) -> None:
    major = "select current_setting('server_version_num')::int / 10000"
    assert postgres_db.query(major) == [(18,)]
    assert postgres15_db.query(major)[0][0] < 18


def test_a_database_goes_although_its_slot_is_in_use(postgres: Server) -> None:
    with fresh(postgres) as database:
        database.execute(f"select pg_create_logical_replication_slot('{database.name}','pgoutput')")
        forgotten = database.connect()
    with contextlib.closing(postgresd.connect(postgres.url)) as connection:
        cursor = connection.cursor()
        cursor.execute("select 1 from pg_replication_slots where database = %s", (database.name,))
        assert cursor.fetchall() == []
    forgotten.close()


@pytest.mark.parametrize("fixture", ["mysql_db", "mariadb_db"])
def test_the_binary_log_carries_whole_rows(fixture: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(fixture)
    assert database.query(
        "select @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, "
        "@@local_infile, @@character_set_server"
    ) == [(1, "ROW", "FULL", "FULL", 1, "utf8mb4")]
    database.execute("create table t (id int primary key); insert into t values (1), (2)")
    assert database.query("select id from t where id > %s", 1) == [(2,)]


def test_mysql_has_gtids(mysql_db: Database) -> None:
    assert mysql_db.query("select @@gtid_mode, @@enforce_gtid_consistency") == [("ON", "ON")]
    assert mysql_db.query("select @@global.gtid_executed")[0][0]


def test_mariadb_has_strict_gtids(mariadb_db: Database) -> None:
    assert mariadb_db.query("select @@gtid_domain_id, @@gtid_strict_mode") == [(0, 1)]
    assert mariadb_db.query("select @@gtid_binlog_pos")[0][0]


def test_a_later_statement_that_fails_is_reported(mysql_db: Database) -> None:
    with pytest.raises(Exception, match="doesn't exist"):
        mysql_db.execute("select 1; insert into missing values (1)")


def test_new_database_gives_as_many_as_asked_for(
    mariadb: Server, new_database: Callable[[Server], Database]
) -> None:
    one, other = new_database(mariadb), new_database(mariadb)
    assert one.name != other.name
    assert other.query("select database()") == [(other.name,)]


def test_a_private_server_has_its_own_flags(server_dir: Path) -> None:
    flags = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]
    with mysqld.start(server_dir, extra_flags=flags) as server, fresh(server) as database:
        assert database.query("select @@gtid_mode") == [("OFF",)]


def test_a_killed_server_comes_back_with_its_data(server_dir: Path) -> None:
    with postgresd.start(server_dir) as server, fresh(server) as database:
        database.execute("create table t (id int); insert into t values (7)")
        server.kill()
        with pytest.raises(Exception, match="refused"):
            database.query("select 1")
        server.restart()
        server.pause()
        server.resume()
        assert database.query("select id from t") == [(7,)]


def test_the_broker_keeps_what_it_acknowledged(kafka: Server, kafka_prefix: str) -> None:
    topic = f"{kafka_prefix}.rows"
    settings: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.address}
    admin = AdminClient(settings)
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(30)
    producer = Producer(settings)
    producer.produce(topic, b"value", b"key")
    assert producer.flush(30) == 0
    consumer = Consumer(settings | {"group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    with contextlib.closing(consumer):
        read = consumer.poll(30)
        assert read is not None
        assert read.error() is None
        assert (read.key(), read.value()) == (b"key", b"value")


def test_a_server_of_somebody_else_is_never_stopped() -> None:
    with pytest.raises(Unavailable, match="private"):
        Server(kind="kafka", url="kafka://127.0.0.1:1").kill()


def test_a_server_named_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_TEST_MYSQL_URL", "mysql://a:b%40c@db.example:3307/")
    server = services.named("mysql")
    assert server is not None
    assert (server.address, server.user, server.password) == ("db.example:3307", "a", "b@c")
    assert server.database_url("x") == "mysql://a:b%40c@db.example:3307/x"


def test_docker_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_TEST_DOCKER", "never")
    docker.answers.cache_clear()
    assert not docker.answers()
    docker.answers.cache_clear()
