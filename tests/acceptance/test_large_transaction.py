"""One source transaction of a million rows is one target transaction, in bounded memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.pipeline import pipeline, until
from tests.services.database import Database
from tests.services.server import Server

ROWS = 1_000_000
RESIDENT_MB = 300


@pytest.mark.parametrize("log", ["sqlite", "kafka"])
def test_a_million_rows_arrive_as_one_transaction_in_bounded_memory(
    log: str,
    request: pytest.FixtureRequest,
    postgres: Server,
    new_database: Callable[[Server], Database],
    kafka_prefix: str,
    tmp_path: Path,
) -> None:
    """H141: neither process holds the transaction, and no reader of the target sees half of it."""
    source, target = new_database(postgres), new_database(postgres)
    source.execute(
        "create table big (id bigserial primary key, sync_id uuid not null unique"
        " default gen_random_uuid(), n int not null)"
    )
    server = request.getfixturevalue("kafka") if log == "kafka" else log
    with pipeline(tmp_path, kafka_prefix, source, {"mirror": target}, server) as flow:
        flow.prepare()
        watch(target)
        capture, apply = flow.capture(), flow.apply("mirror")
        source.execute("insert into big (n) values (0)")
        until(lambda: count(target) == 1, "the first row")
        source.execute(f"insert into big (n) select generate_series(1, {ROWS})")
        counts = {1}

        def arrived() -> bool:
            capture.alive()
            apply.alive()
            counts.add(count(target))
            return len(counts) > 1

        until(arrived, "the transaction", within_s=400)
        assert counts == {1, ROWS + 1}
        wrote = "select count(distinct xact), sum(n) from witness where n > 0"
        assert target.query(wrote) == [(2, ROWS + 1)]
        assert flow.verify("mirror").verdict == "valid"
        peaks = {"capture": capture.peak_mb, "apply": apply.peak_mb}
        print(f"peak resident memory in MB: {peaks}")
        assert max(peaks.values()) < RESIDENT_MB, peaks
        assert (capture.stop(), apply.stop()) == (0, 0)


def watch(target: Database) -> None:
    """Note for each statement that inserts rows: its transaction (not a savepoint's, as xmin)."""
    target.execute(
        "create table witness (xact text, n bigint);"
        "create function witness() returns trigger language plpgsql as $$ begin"
        " insert into witness select pg_current_xact_id()::text, count(*) from new_rows;"
        " return null; end $$;"
        "create trigger witness after insert on big referencing new table as new_rows"
        " for each statement execute function witness()"
    )


def count(database: Database) -> int:
    """How many rows a reader sees now."""
    return int(database.query("select count(*) from big")[0][0])
