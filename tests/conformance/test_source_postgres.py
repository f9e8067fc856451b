"""PostgreSQL as a source: what is streamed, in which order, and where it may be resumed."""

import io
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from capture import pgoutput
from capture.postgres import PostgresSource
from capture.postgres_wal import Wal
from schemas.change import Piece, Position, Stamp
from schemas.errors import Operator, Poison, SourceLost, Transient, Unsupported
from schemas.selection import Selection
from tests.conformance.postgres_reading import (
    Change,
    changes,
    end_of,
    images,
    opened,
    read,
    start,
)
from tests.conformance.sources import afters
from tests.services import postgres as server_kind
from tests.services.database import Database, fresh
from tests.services.server import Server

TABLE = "CREATE TABLE t (id int PRIMARY KEY, sync_id text NOT NULL UNIQUE, note text)"


@pytest.fixture(params=["postgres", "postgres15"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """One database with table `t`, on the newest server and on an older one."""
    with fresh(request.getfixturevalue(request.param)) as made:
        made.execute(TABLE)
        yield made


@pytest.fixture
def newest(postgres_db: Database) -> Database:
    """One database with table `t`, on the newest server only."""
    postgres_db.execute(TABLE)
    return postgres_db


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with prepared transactions, that keeps little WAL for its slots."""
    from tests.services.fixtures import _folder

    with _folder("strict") as folder:
        flags = ["max_prepared_transactions=4", "max_slot_wal_keep_size=1MB"]
        with server_kind.start(Path(folder), flags) as server:
            yield server


def confirmed(database: Database) -> int:
    """What the server believes to be durable."""
    ((text,),) = database.query(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()"
    )
    return pgoutput.parse_lsn(text)


@contextmanager
def transaction(database: Database) -> Iterator[Callable[[str], None]]:
    """A transaction that commits at the end, next to others."""
    with closing(database.connect()) as connection:
        connection.autocommit = False
        yield connection.cursor().execute
        connection.commit()


# What a stream holds.


def test_inserts_updates_and_deletes_arrive_whole_and_in_order(database: Database) -> None:
    with opened(database) as source:
        at = start(source)
        database.execute("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', NULL)")
        database.execute("UPDATE t SET note = 'y' WHERE id = 1; DELETE FROM t WHERE id = 2")
        assert changes(read(source, at)) == [
            Change("c", "public.t", None, {"id": 1, "sync_id": "a", "note": "x"}),
            Change("c", "public.t", None, {"id": 2, "sync_id": "b", "note": None}),
            Change("u", "public.t", None, {"id": 1, "sync_id": "a", "note": "y"}),
            Change("d", "public.t", {"sync_id": "b"}, None),
        ]


def test_a_full_replica_identity_gives_whole_before_images(newest: Database) -> None:
    newest.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', 'x')")
        newest.execute("UPDATE t SET note = 'y'; DELETE FROM t")
        first, second = (
            {"id": 1, "sync_id": "a", "note": "x"},
            {"id": 1, "sync_id": "a", "note": "y"},
        )
        assert changes(read(source, at))[1:] == [
            Change("u", "public.t", first, second),
            Change("d", "public.t", second, None),
        ]


def test_transactions_come_in_commit_order_though_an_earlier_one_commits_last(
    newest: Database,
) -> None:
    """H96: order is the commit's, never a row's own place in the log."""
    with opened(newest) as source:
        at = start(source)
        with transaction(newest) as early:
            early("INSERT INTO t VALUES (1, 'early')")
            newest.execute("INSERT INTO t VALUES (2, 'late')")
        assert images(changes(read(source, at)), "sync_id") == [("c", "late"), ("c", "early")]


def test_a_changed_identity_is_a_delete_and_a_create(newest: Database) -> None:
    """H106, T5: sync_id changed by an update."""
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', 'x')")
        newest.execute("UPDATE t SET sync_id = 'b'")
        assert changes(read(source, at))[1:] == [
            Change("d", "public.t", {"sync_id": "a"}, None),
            Change("c", "public.t", None, {"id": 1, "sync_id": "b", "note": "x"}),
        ]


def test_a_changed_primary_key_under_the_same_identity_is_an_update(newest: Database) -> None:
    """T8."""
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a')")
        newest.execute("UPDATE t SET id = 7")
        assert images(changes(read(source, at)), "id") == [("c", 1), ("u", 7)]


def test_a_row_without_identity_stops_the_stream_by_name(newest: Database) -> None:
    """H106: sync_id NULL, which preflight refuses beforehand."""
    newest.execute("ALTER TABLE t ALTER sync_id DROP NOT NULL")
    with opened(newest) as source:
        assert "may be null" in " ".join(f.problem for f in source.check())
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, NULL)")
        with pytest.raises(Poison, match=r"public\.t whose sync_id is null"):
            read(source, at)
        (table,) = source.describe()
        with pytest.raises(Poison, match=r"public\.t whose sync_id is null"):
            source.chunk(table, None, 10, epoch=1, run=1)


def test_truncates_of_several_tables_keep_their_place(newest: Database) -> None:
    """H61."""
    newest.execute(
        "CREATE TABLE child (id int PRIMARY KEY, sync_id text NOT NULL UNIQUE, "
        "t_id int REFERENCES t); CREATE TABLE headwater_own (id serial)"
    )
    with opened(newest) as source:
        at = start(source)
        with transaction(newest) as run:
            run("INSERT INTO t VALUES (1, 'a'); INSERT INTO child VALUES (1, 'c', 1)")
            run("TRUNCATE t, headwater_own RESTART IDENTITY CASCADE")
            run("INSERT INTO t VALUES (1, 'z')")
        found = changes(read(source, at))
        assert [c.op for c in found] == ["c", "c", "t", "t", "c"]
        assert {c.table for c in found[2:4]} == {"public.t", "public.child"}


def test_an_unchanged_long_value_is_absent_and_marks_its_rows_partial(newest: Database) -> None:
    """H58: never null, never a placeholder."""
    newest.execute("ALTER TABLE t ALTER note SET STORAGE EXTERNAL")
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', repeat('long', 2000))")
        middle = end_of(read(source, at))
        newest.execute("UPDATE t SET id = 2")
        pieces = read(source, middle)
        assert changes(pieces) == [Change("u", "public.t", None, {"id": 2, "sync_id": "a"})]
        assert [r.partial for p in pieces for r in p.rows] == [True]
        newest.execute("UPDATE t SET sync_id = 'b'")
        with pytest.raises(Unsupported, match="identity changed") as caught:
            read(source, end_of(pieces))
        assert "REPLICA IDENTITY FULL" in caught.value.hint


def test_a_full_replica_identity_fills_in_unchanged_long_values(newest: Database) -> None:
    """H58 under FULL."""
    newest.execute("ALTER TABLE t ALTER note SET STORAGE EXTERNAL")
    newest.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', repeat('long', 2000))")
        newest.execute("UPDATE t SET id = 2")
        newest.execute("UPDATE t SET sync_id = 'b'")
        pieces = read(source, at)
        long = "long" * 2000
        assert images(changes(pieces), "note") == [(op, long) for op in "cudc"]
        assert not any(r.partial for p in pieces for r in p.rows)


def test_a_replica_identity_changed_meanwhile_is_followed(newest: Database) -> None:
    """H60: FULL to DEFAULT where the primary key is the identity, and where it is not."""
    newest.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    by_key = Selection(identity={"*": "primary_key"})
    with opened(newest, selection=by_key) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', 'x'); UPDATE t SET note = 'y'")
        newest.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT")
        newest.execute("UPDATE t SET note = 'z'; DELETE FROM t")
        old = {"id": 1, "sync_id": "a", "note": "x"}
        befores = [(c.op, c.before) for c in changes(read(source, at))]
        assert befores == [("c", None), ("u", old), ("u", None), ("d", {"id": 1})]
    with (
        closing(PostgresSource(newest.name, newest.url, Selection())) as source,
        pytest.raises(Operator, match="replica identity lacks sync_id"),
    ):
        read(source, at)


def test_enum_labels_added_and_renamed_meanwhile_arrive_as_they_were(newest: Database) -> None:
    """H65, with two enums of one name in two schemas."""
    newest.execute("CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('x')")
    newest.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    newest.execute("ALTER TABLE t ADD a mood, ADD b other.mood")
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', NULL, 'ok', 'x')")
        newest.execute("ALTER TYPE mood ADD VALUE 'glad'")
        newest.execute("INSERT INTO t VALUES (2, 'b', NULL, 'glad', 'x')")
        newest.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
        newest.execute("INSERT INTO t VALUES (3, 'c', NULL, 'blue', 'x')")
        found = changes(read(source, at))
        assert images(found, "a") == [("c", "ok"), ("c", "glad"), ("c", "blue")]
        (table,) = source.describe()
        assert table.by_name["a"].kind.labels == ("blue", "ok", "glad")
        assert [table.by_name[n].native for n in "ab"] == ["public.mood", "other.mood"]


def test_a_prepared_transaction_arrives_when_it_is_committed(strict: Server) -> None:
    """H70."""
    with fresh(strict) as database:
        database.execute(TABLE)
        with opened(database) as source:
            at = start(source)
            with closing(database.connect()) as connection, connection.cursor() as cursor:
                for statement in (
                    "BEGIN",
                    "INSERT INTO t VALUES (1, 'prepared')",
                    "PREPARE TRANSACTION 'two'",
                ):
                    cursor.execute(statement)
            database.execute("INSERT INTO t VALUES (2, 'plain')")
            before = read(source, at)
            assert images(changes(before), "sync_id") == [("c", "plain")]
            database.execute("COMMIT PREPARED 'two'")
            after = read(source, end_of(before))
            assert images(changes(after), "sync_id") == [("c", "prepared")]


def test_rewriting_a_table_streams_no_rows(newest: Database) -> None:
    """H73."""
    with opened(newest) as source:
        newest.execute("INSERT INTO t SELECT i, i::text FROM generate_series(1, 100) i")
        at = end_of(read(source, start(source)))
        newest.execute("VACUUM FULL t")
        newest.execute("CLUSTER t USING t_pkey")
        newest.execute("ALTER TABLE t ALTER id TYPE bigint")
        newest.execute("INSERT INTO t VALUES (101, 'end')")
        assert images(changes(read(source, at)), "sync_id") == [("c", "end")]


def test_each_stretch_is_described_by_its_own_layout(newest: Database) -> None:
    """H113: two ALTERs while the capture is down."""
    with opened(newest) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'a', '7')")
        newest.execute("ALTER TABLE t ALTER note TYPE int USING note::int")
        newest.execute("INSERT INTO t VALUES (2, 'b', 8)")
        newest.execute("ALTER TABLE t DROP note, ADD extra bool NOT NULL DEFAULT true")
        newest.execute("INSERT INTO t VALUES (3, 'c')")
        pieces = read(source, at)
        assert [c.after for c in changes(pieces)] == [
            {"id": 1, "sync_id": "a", "note": "7"},
            {"id": 2, "sync_id": "b", "note": 8},
            {"id": 3, "sync_id": "c", "extra": True},
        ]
        tables = [r.table for p in pieces for r in p.rows]
        assert [[c.kind.name for c in t.columns] for t in tables] == [
            ["int", "text", "text"],
            ["int", "text", "int"],
            ["int", "text", "bool"],
        ]
        assert tables[-1] == source.describe()[0]


def test_a_table_dropped_meanwhile_still_streams_what_it_held(newest: Database) -> None:
    """H115: described by the log alone, and not mixed with a new table of the same name, which
    stands for the loss of all rows while it is copied anew, and is refused otherwise.
    """
    with opened(newest, copied_anew={"public.t"}) as source:
        at = start(source)
        newest.execute("INSERT INTO t VALUES (1, 'old', 'x')")
        newest.execute("DROP TABLE t")
        newest.execute("CREATE TABLE t (sync_id uuid PRIMARY KEY)")
        source.prepare()
        newest.execute("INSERT INTO t VALUES ('00000000-0000-0000-0000-000000000001')")
        pieces = read(source, at)
        assert [c.op for c in changes(pieces)] == ["t", "c", "t", "c"]
        kinds = [r.table.by_name["sync_id"].kind.name for p in pieces for r in p.rows]
        assert kinds == ["text", "uuid"]
    with opened(newest) as source, pytest.raises(Unsupported, match="another table"):
        read(source, at)


def test_partitions_stream_under_their_root(database: Database) -> None:
    database.execute(
        "CREATE TABLE p (id int, sync_id text NOT NULL, day int, PRIMARY KEY (id, day), "
        "UNIQUE (sync_id, day)) PARTITION BY RANGE (day);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)"
    )
    with opened(database, selection=Selection(include=["public.p"])) as source:
        at = start(source)
        database.execute("INSERT INTO p VALUES (1, 'a', 1), (2, 'b', 11)")
        database.execute("UPDATE p SET day = 12 WHERE id = 1; DELETE FROM p WHERE id = 2")
        found = changes(read(source, at))
        assert {c.table for c in found} == {"public.p"}
        assert images(found, "sync_id") == [
            ("c", "a"), ("c", "b"), ("d", "a"), ("c", "a"), ("d", "b")
        ]  # fmt: skip
        (table,) = source.describe()
        assert afters(source.chunk(table, None, 10, epoch=1, run=1)) == [
            '{"id":1,"sync_id":"a","day":12}'
        ]


def test_excluded_and_generated_columns_never_leave_the_source(newest: Database) -> None:
    """H36, H68: nor does a type that is not carried, once its column is excluded (H66)."""
    newest.execute(
        "ALTER TABLE t ADD secret text, ADD tags int[], "
        "ADD twice int GENERATED ALWAYS AS (id * 2) STORED, "
        "ADD number int GENERATED ALWAYS AS IDENTITY"
    )
    hidden = Selection(exclude_columns=["*.t.secret", "*.t.tags"])
    with opened(newest, selection=hidden) as source:
        at = start(source)
        newest.execute("INSERT INTO t (id, sync_id, secret, tags) VALUES (1, 'a', 's', '{1}')")
        row = {"id": 1, "sync_id": "a", "note": None, "number": 1}
        pieces = read(source, at)
        assert changes(pieces) == [Change("c", "public.t", None, row)]
        assert [r.table for p in pieces for r in p.rows] == source.describe()


@pytest.mark.parametrize(
    "native",
    ["int[]", "interval", "money", "inet", "bit(3)", "timetz", "xml", "oid", "int4range", "d", "r"],
)
def test_a_type_that_is_not_carried_is_refused_by_name(newest: Database, native: str) -> None:
    """H66: before the stream begins, and again where the log shows such a table."""
    newest.execute("CREATE DOMAIN d AS int; CREATE TYPE r AS (a int)")
    with opened(newest) as source:
        at = start(source)
        newest.execute(f"ALTER TABLE t ADD odd {native}")
        with pytest.raises(Unsupported, match=r"public\.t\.odd of type"):
            source.describe()
        newest.execute("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(Unsupported, match=r"public\.t\.odd of type"):
            read(source, at)


# Batches.


def test_a_large_transaction_comes_in_pieces_and_ends_in_one_commit(newest: Database) -> None:
    with opened(newest, batch_rows=100) as source:
        at = start(source)
        newest.execute(
            "INSERT INTO t SELECT i, i, repeat('x', 500) FROM generate_series(1, 20000) i"
        )
        pieces = read(source, at)
        assert len(changes(pieces)) == 20_000
        sizes = [sum(r.size_bytes for r in p.rows) for p in pieces]
        assert max(sizes) < 5 << 20
        assert sum(1 for size in sizes if size) > 3
        assert len({p.run for p in pieces if p.rows}) == 1
        assert [p.commit.transactions for p in pieces if p.commit and p.commit.marks] == [1]


def test_batches_are_cut_at_commits_only(newest: Database) -> None:
    with opened(newest, batch_rows=10) as source:
        at = start(source)
        for first in range(0, 60, 6):
            newest.execute(
                f"INSERT INTO t SELECT i, i FROM generate_series({first}, {first + 5}) i"
            )
        pieces = [p for p in read(source, at) if p.commit and p.commit.transactions]
        sizes = [sum(len(r) for r in p.rows) for p in pieces]
        # Two transactions are more than ten rows; one is a batch where the next came late.
        assert sum(sizes) == 60
        assert {6, 12} >= set(sizes)
        for piece, size in zip(pieces, sizes, strict=True):
            assert piece.commit is not None
            assert len(piece.commit.marks) == piece.commit.transactions == size // 6


# Positions, acknowledgement, resume.


@pytest.mark.parametrize("kept", range(6))
def test_resuming_after_any_commit_repeats_and_misses_nothing(newest: Database, kept: int) -> None:
    """H46, H138: transactions of many rows, read again from each commit on."""
    with opened(newest, batch_rows=1) as source:
        at = start(source)
        with transaction(newest) as early:
            early("INSERT INTO t VALUES (0, 'early')")
            for number in range(1, 5):
                newest.execute(f"INSERT INTO t VALUES ({number}, 'n{number}')")
        pieces = read(source, at)
        commits = [p.commit.position for p in pieces if p.commit]
        rest = [c for p in pieces[kept + 1 :] for c in changes([p])]
        assert changes(read(source, commits[kept])) == rest


def test_a_copy_that_was_cut_off_in_its_middle_comes_whole_again(newest: Database) -> None:
    """H46: many rows of one COPY share a place in the log."""
    with opened(newest) as source:
        with closing(source.stream(None, Stamp(1))) as stream:
            first = next(stream)
            assert first.commit is not None
            with closing(newest.connect()) as connection, connection.cursor() as cursor:
                lines = "".join(f"{i}\tk{i}\t{'x' * 400}\n" for i in range(10_000))
                cursor.copy_from(io.StringIO(lines), "t")
            while (piece := next(stream)).commit is not None:
                source.ack(piece.commit.position)
            assert piece.rows
            # kill -9 here: nothing of the COPY was a position.
        found = changes(read(source, first.commit.position))
        assert [c.after["id"] for c in found if c.after] == list(range(10_000))


def test_an_acknowledged_commit_does_not_take_an_open_transaction_along(
    newest: Database,
) -> None:
    """H48: the transaction that started first commits after the acknowledgement of another."""
    with opened(newest) as source:
        with transaction(newest) as early:
            early("INSERT INTO t VALUES (1, 'early')")
            newest.execute("INSERT INTO t VALUES (2, 'late')")
            at = acknowledged(source, None, "late")
        assert images(changes(read(source, at)), "sync_id") == [("c", "early")]


def acknowledged(source: PostgresSource, after: Position | None, last: str) -> Position:
    """Stream and acknowledge up to the row `last`, then break off."""
    with closing(source.stream(after, Stamp(1))) as stream:
        for piece in stream:
            assert piece.commit is not None
            source.ack(piece.commit.position)
            if any(c.after and c.after["sync_id"] == last for c in changes([piece])):
                return piece.commit.position
    raise AssertionError("the stream ended by itself")


class Listening(Wal):
    """Notes the keepalives that arrive."""

    def __init__(self, conninfo: str, slot: str) -> None:
        super().__init__(conninfo, slot)
        self.heard: list[int] = []

    def answer(self, keepalive: pgoutput.Keepalive) -> None:
        self.heard.append(keepalive.wal_end)
        super().answer(keepalive)


class AnswersWithWalEnd(Listening):
    """A mutant that does as psycopg2's replication cursor: a keepalive confirms its own end."""

    def answer(self, keepalive: pgoutput.Keepalive) -> None:
        super().answer(keepalive)
        self.acknowledge(keepalive.wal_end)


def until_the_server_waits(database: Database, pid: int) -> None:
    """Until the server has filled the socket that we do not read, and so cannot have sent all."""
    waits = f"SELECT wait_event = 'WalSenderWriteData' FROM pg_stat_activity WHERE pid = {pid}"
    give_up = monotonic() + 60.0
    while database.query(waits) != [(True,)]:
        assert monotonic() < give_up, "the transaction was too small to be interrupted"
        sleep(0.01)


def crash_during_a_late_transaction(database: Database, connect: type[Listening]) -> Position:
    """The interleaving that loses data where keepalives are answered with their own end.

    1. T4 writes its first rows. 2. T1 commits and is acknowledged. 3. T3 commits; its batch is not
    cut, because 4. T4 commits, large, and the server begins to send it. 5. Keepalives arrive in
    the middle of it, whose end is past T3's. 6. The capture dies.
    """
    wals: list[Listening] = []

    def connected(conninfo: str, slot: str) -> Wal:
        wals.append(connect(conninfo, slot))
        return wals[0]

    options = {"batch_rows": 1 << 30, "batch_bytes": 1 << 40, "connect": connected}
    with opened(database, **options) as source, closing(source.stream(None, Stamp(1))) as stream:
        with transaction(database) as late:
            late("INSERT INTO t VALUES (4, 'T4')")
            database.execute("INSERT INTO t VALUES (1, 'T1')")
            while not (piece := next(stream)).rows:
                pass
            assert piece.commit is not None
            at = piece.commit.position
            source.ack(at)
            database.execute("INSERT INTO t VALUES (3, 'T3')")
            late("INSERT INTO t SELECT i, i, repeat('x', 1000) FROM generate_series(5, 80000) i")
        while next(stream).commit is not None:
            pass  # a slow server: beats, and T3 alone, which nobody acknowledges
        heard = wals[0].heard
        before = len(heard)
        # The second keepalive shows that the server has read the answer to the first. It reads
        # what we say only while it waits for us, so each word is said when it does.
        while len(heard) < before + 2:
            until_the_server_waits(database, wals[0].pid)
            wals[0].feedback(reply=True)
            piece = next(stream)
            assert piece.commit is None, "the transaction was too small to be interrupted"
    return at


def test_a_keepalive_inside_a_transaction_confirms_nothing(newest: Database) -> None:
    """database-traps.md: T3, received and not yet in the log, is not lost by the crash."""
    at = crash_during_a_late_transaction(newest, Listening)
    assert confirmed(newest) <= pgoutput.parse_lsn(at.partition("@")[0])
    with opened(newest) as source:
        found = images(changes(read(source, at)), "sync_id")
    assert found[:2] == [("c", "T3"), ("c", "T4")]
    assert len(found) == 2 + 79_996


def test_answering_keepalives_with_their_own_end_would_lose_a_transaction(
    newest: Database,
) -> None:
    """The mutant of the test above, so that it is known to test something."""
    at = crash_during_a_late_transaction(newest, AnswersWithWalEnd)
    assert confirmed(newest) > pgoutput.parse_lsn(at.partition("@")[0])
    with opened(newest) as source:
        found = images(changes(read(source, None)), "sync_id")
        assert ("c", "T4") in found
        assert ("c", "T3") not in found
        with pytest.raises(SourceLost, match="beyond our position"):
            next(source.stream(at, Stamp(1)))


def test_an_idle_slot_advances_while_others_write(newest: Database) -> None:
    """H50: the captured tables rest, another table and another database do not."""
    only = Selection(include=["public.t"])
    with (
        opened(newest, selection=only) as source,
        closing(source.stream(None, Stamp(1))) as stream,
    ):
        next(stream)
        newest.execute("CREATE TABLE noise AS SELECT generate_series(1, 50000) i")
        end, _ = source.now()
        while confirmed(newest) < pgoutput.parse_lsn(end.partition("@")[0]):
            piece = next(stream)
            assert piece.commit is not None
            assert not piece.rows
            source.ack(piece.commit.position)


def test_an_acknowledged_keepalive_position_loses_nothing_that_follows(
    newest: Database,
) -> None:
    with opened(newest) as source:
        with transaction(newest) as late:
            late("INSERT INTO t VALUES (1, 'open')")
            with closing(source.stream(None, Stamp(1))) as stream:
                next(stream)
                end, _ = source.now()
                piece = next(stream)
                while not (piece.commit and source.reached(end, piece.commit.position)):
                    piece = next(stream)
                source.ack(piece.commit.position)
                at = piece.commit.position
        assert images(changes(read(source, at)), "sync_id") == [("c", "open")]


def test_two_processes_cannot_read_one_slot(newest: Database) -> None:
    """H88: a retry, because the log's claim decides who goes on."""
    with opened(newest) as source, opened(newest) as rival:
        with closing(source.stream(None, Stamp(1))) as stream:
            next(stream)
            next(stream)
            taken = rival.stream(None, Stamp(2))
            next(taken)
            with pytest.raises(Transient, match="in use"):
                next(taken)
        assert start(rival)


def test_a_dropped_slot_is_never_made_again_in_silence(newest: Database) -> None:
    """H51, H148: a restored server has no slots either."""
    with opened(newest) as source:
        at = start(source)
        newest.execute(f"SELECT pg_drop_replication_slot('headwater_{newest.name}')")
        with pytest.raises(SourceLost, match="dropped"):
            read(source, at)
        source.prepare()
        with pytest.raises(SourceLost, match="beyond our position"):
            read(source, at)


def test_a_slot_whose_wal_was_removed_is_reported_lost(strict: Server) -> None:
    """H53."""
    with fresh(strict) as database:
        database.execute(TABLE)
        with opened(database) as source:
            at = start(source)
            for _ in range(4):
                database.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i")
                database.execute("DELETE FROM t")
                database.execute("SELECT pg_switch_wal()")
            database.execute("CHECKPOINT")
            with pytest.raises(SourceLost, match="lost") as caught:
                read(source, at)
            assert "headwater drop SOURCE --log" in caught.value.hint
            assert any("is lost" in f.problem for f in source.check())


def test_another_or_an_older_server_is_refused(newest: Database) -> None:
    """H148, H55."""
    with opened(newest) as source:
        at = start(source)
        lsn, _, identifier = at.partition("@")
        for position, message in (
            (f"{lsn}@1{identifier}", "another server"),
            (f"FFFF/0@{identifier}", "restored from a backup"),
        ):
            with pytest.raises(SourceLost, match=message):
                read(source, Position(position))
        assert end_of(read(source, Position(lsn)))


def test_a_stream_cut_off_by_the_server_is_transient_and_goes_on(newest: Database) -> None:
    with opened(newest) as source:
        stream = source.stream(None, Stamp(1))
        first, second = next(stream), next(stream)
        assert first.commit is not None
        assert second.commit is not None
        newest.execute("INSERT INTO t VALUES (1, 'a')")
        newest.query(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
        pieces: list[Piece] = []
        with pytest.raises(Transient, match="replication connection"):
            pieces.extend(stream)
        assert len(changes(read(source, second.commit.position))) == 1
