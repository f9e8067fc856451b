"""PostgreSQL as a source: what prepare makes, what drop takes away, what preflight refuses."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from capture.postgres import PostgresSource
from schemas.change import Stamp
from schemas.errors import Misconfigured, Operator, Transient
from schemas.selection import Selection
from tests.conformance.postgres_reading import changes, images, opened, read, start
from tests.services import postgres as server_kind
from tests.services.database import Database, fresh
from tests.services.server import Server

EVERYTHING = Selection()


@pytest.fixture
def source(postgres_db: Database) -> Iterator[PostgresSource]:
    """A source that was not prepared."""
    with closing(PostgresSource(postgres_db.name, postgres_db.url, EVERYTHING)) as made:
        yield made


def problems(source: PostgresSource, *, refused: bool = True) -> list[str]:
    return [f"{f.where} {f.problem}" for f in source.check() if f.refused is refused]


def test_prepare_makes_what_is_missing_once(postgres_db: Database, source: PostgresSource) -> None:
    postgres_db.execute(
        "CREATE TABLE by_index (id int PRIMARY KEY, sync_id uuid NOT NULL UNIQUE);"
        "CREATE TABLE by_key (sync_id uuid PRIMARY KEY);"
        'CREATE TABLE "By Row" (id int, sync_id uuid);'
    )
    name = f'"headwater_{postgres_db.name}"'
    planned = source.prepare(dry_run=True)
    assert postgres_db.query("SELECT 1 FROM pg_publication") == []
    assert source.prepare() == planned == [
        f'CREATE PUBLICATION {name} FOR TABLE "public"."By Row", "public"."by_index", '
        '"public"."by_key" WITH (publish_via_partition_root = true)',
        'ALTER TABLE "public"."By Row" REPLICA IDENTITY FULL',
        'ALTER TABLE "public"."by_index" REPLICA IDENTITY USING INDEX "by_index_sync_id_key"',
        f"SELECT pg_catalog.pg_create_logical_replication_slot('{name[1:-1]}', 'pgoutput')",
    ]  # fmt: skip
    assert source.prepare() == []
    postgres_db.execute("CREATE TABLE later (sync_id int PRIMARY KEY)")
    assert source.prepare() == [f'ALTER PUBLICATION {name} ADD TABLE "public"."later"']
    assert source.drop(dry_run=True) == source.drop()
    assert source.drop() == []
    assert postgres_db.query("SELECT 1 FROM pg_publication") == []


def test_a_slot_that_is_read_is_not_dropped(postgres_db: Database) -> None:
    with opened(postgres_db) as source, closing(source.stream(None, Stamp(1))) as stream:
        next(stream)
        next(stream)
        with pytest.raises(Operator, match="in use"):
            source.drop()


def test_a_slot_of_another_database_is_neither_used_nor_dropped(
    postgres: Server, postgres_db: Database
) -> None:
    """Two sources of one name on one server."""
    with (
        opened(postgres_db) as owner,
        fresh(postgres) as other,
        closing(PostgresSource(owner.name, other.url, EVERYTHING)) as stranger,
    ):
        for step in (stranger.prepare, stranger.drop):
            with pytest.raises(Misconfigured, match=postgres_db.name) as caught:
                step()
            assert "another slot name" in caught.value.hint
        assert any("was made for" in p for p in problems(stranger))


def test_a_stream_that_was_not_prepared_says_what_to_run(source: PostgresSource) -> None:
    with pytest.raises(Misconfigured) as caught:
        next(source.stream(None, Stamp(1)))
    assert "headwater prepare" in caught.value.hint


def test_a_new_stream_may_prepare_itself(postgres_db: Database) -> None:
    postgres_db.execute("CREATE TABLE t (sync_id int PRIMARY KEY)")
    with closing(
        PostgresSource(postgres_db.name, postgres_db.url, EVERYTHING, auto_prepare=True)
    ) as source:
        at = start(source)
        postgres_db.execute("INSERT INTO t VALUES (1)")
        assert images(changes(read(source, at)), "sync_id") == [("c", 1)]


def test_preflight_names_everything_that_would_lose_rows(
    postgres_db: Database, source: PostgresSource
) -> None:
    postgres_db.execute(
        "CREATE TABLE plain (id int PRIMARY KEY);"
        "CREATE TABLE nullable (id int PRIMARY KEY, sync_id int UNIQUE);"
        "CREATE TABLE twice (id int PRIMARY KEY, sync_id int NOT NULL);"
        "CREATE TABLE odd (sync_id int PRIMARY KEY, i interval);"
        "CREATE UNLOGGED TABLE light (sync_id int PRIMARY KEY);"
    )
    found = " | ".join(problems(source))
    for words in (
        "does not exist",
        "found no column sync_id on public.plain",
        "public.nullable.sync_id identifies rows and may be null",
        "public.twice has no unique index on sync_id",
        "public.twice has a replica identity without sync_id",
        "public.odd.i of type interval",
    ):
        assert words in found
    assert "public.light is unlogged" in " | ".join(problems(source, refused=False))
    with pytest.raises(Operator, match=r"public\.odd"):
        source.describe()


def test_preflight_is_silent_on_a_prepared_source(postgres_db: Database) -> None:
    postgres_db.execute("CREATE TABLE t (id int PRIMARY KEY, sync_id int NOT NULL UNIQUE)")
    with opened(postgres_db) as source:
        assert source.check() == []


def test_preflight_warns_of_a_publication_that_hides_rows_or_columns(
    postgres_db: Database, source: PostgresSource
) -> None:
    """H71: a publication made by hand."""
    postgres_db.execute(
        "CREATE TABLE t (sync_id int PRIMARY KEY, a int);"
        "CREATE TABLE u (sync_id int PRIMARY KEY);"
        "CREATE TABLE v (sync_id int PRIMARY KEY);"
        f"CREATE PUBLICATION headwater_{postgres_db.name} FOR TABLE t (sync_id), "
        "u WHERE (sync_id > 0) WITH (publish = 'insert')"
    )
    warned = " | ".join(problems(source, refused=False))
    assert "public.t is in publication" in warned
    assert "public.u is in publication" in warned
    refused = " | ".join(problems(source))
    assert "leaves out some operations" in refused
    assert "public.v is not in publication" in refused


def test_preflight_refuses_a_user_without_privileges(postgres_db: Database) -> None:
    role = f"r_{postgres_db.name}"
    postgres_db.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; "
        "CREATE TABLE t (sync_id int PRIMARY KEY); REVOKE ALL ON t FROM PUBLIC"
    )
    host = postgres_db.url.rpartition("@")[2]
    try:
        with closing(
            PostgresSource(postgres_db.name, f"postgresql://{role}:secret@{host}", EVERYTHING)
        ) as source:
            found = " | ".join(problems(source))
            assert "may not read the log" in found
            assert "public.t cannot be read" in found
            with pytest.raises(Misconfigured, match="not allowed"):
                source.prepare()
    finally:
        postgres_db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_preflight_refuses_a_server_that_logs_too_little(server_dir: Path) -> None:
    with (
        server_kind.start(server_dir, ["wal_level=replica"]) as server,
        fresh(server) as database,
        closing(PostgresSource("shop", database.url, EVERYTHING)) as source,
    ):
        assert any(p.startswith("wal_level is replica") for p in problems(source))
        with pytest.raises(Misconfigured, match="wal_level") as caught:
            source.prepare()
        assert "preflight" in caught.value.hint


def test_a_wrong_password_and_a_closed_port_say_what_to_do(postgres: Server) -> None:
    host = postgres.url.rpartition("@")[2]
    with (
        closing(PostgresSource("s", f"postgresql://postgres:wrong@{host}", EVERYTHING)) as source,
        pytest.raises(Misconfigured, match="password authentication failed") as refused,
    ):
        source.describe()
    assert "url" in refused.value.hint
    with (
        closing(PostgresSource("s", "postgresql://u@127.0.0.1:1/x", EVERYTHING)) as source,
        pytest.raises(Transient, match="could not reach PostgreSQL"),
    ):
        source.describe()


def test_a_name_that_no_slot_can_have_is_made_to_fit_or_refused() -> None:
    url = "postgresql://u@127.0.0.1:1/x"
    PostgresSource("Shop-1", url, EVERYTHING).close()
    with pytest.raises(Misconfigured, match="as the name of a slot"):
        PostgresSource("shop", url, EVERYTHING, slot="Shop-1")


def test_a_description_holds_keys_parents_and_types(postgres_db: Database) -> None:
    postgres_db.execute(
        "CREATE TABLE p (id int PRIMARY KEY, sync_id uuid NOT NULL UNIQUE, code text UNIQUE);"
        "CREATE TABLE c (id int PRIMARY KEY, sync_id uuid NOT NULL UNIQUE, amount numeric(9,3), "
        "p_id int NOT NULL REFERENCES p ON DELETE CASCADE, other int, UNIQUE (p_id, other))"
    )
    with opened(postgres_db) as source:
        child, parent = source.describe()
    assert child.primary_key == ("id",)
    assert child.identity == ("sync_id",)
    assert set(child.uniques) == {("sync_id",), ("p_id", "other")}
    (key,) = child.foreign_keys
    assert (key.column, key.parent, key.parent_column) == ("p_id", "public.p", "id")
    assert (key.on_delete, key.on_update) == ("CASCADE", "NO ACTION")
    assert [c.nullable for c in child.columns] == [False, False, True, False, True]
    assert child.by_name["amount"].native == "numeric(9,3)"
    assert (child.by_name["amount"].kind.precision, child.by_name["amount"].kind.scale) == (9, 3)
    assert set(parent.uniques) == {("sync_id",), ("code",)}
