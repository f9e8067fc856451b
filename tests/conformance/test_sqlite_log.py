"""What only the embedded log can get wrong: its file, its size, its processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import Fenced, LogReplaced, Misconfigured, Operator, Transient
from tests.conformance.logs import Writer, batches, ids, positions, users
from transport import sqlite_file
from transport.sqlite import SqliteLog, SqliteStream

MB_ALLOWED = 300


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def start(task: str, path: Path, number: int, fault: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.sqlite_process", task, str(path), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HEADWATER_FAULT": fault},
    )


def finish(process: subprocess.Popen[str]) -> int:
    """The process's greatest size in MB, having succeeded."""
    out, _ = process.communicate()
    assert process.returncode == 0
    return int(out)


def count(path: Path, table: str) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
    finally:
        db.close()


def test_a_batch_of_a_million_rows_is_written_and_read_in_bounded_memory(path: Path) -> None:
    rows = 1_000_000
    assert finish(start("write_large", path, rows)) < MB_ALLOWED
    assert finish(start("read_large", path, rows)) < MB_ALLOWED
    log_size = path.with_name(f"{path.name}-wal")
    assert not log_size.exists() or log_size.stat().st_size <= 64 << 20


def test_one_process_writes_while_two_read(path: Path) -> None:
    processes = [start(task, path, 400) for task in ("read_many", "write_many", "read_many")]
    for process in processes:
        finish(process)


@pytest.mark.parametrize("point", ["before-commit-record", "after-commit-record"])
@pytest.mark.parametrize("hit", [1, 2, 9])
def test_a_capture_killed_at_the_commit_record_loses_and_repeats_nothing(
    path: Path, point: str, hit: int
) -> None:
    killed = start("write_many", path, 20, fault=f"{point}:{hit}")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    done = hit - 1 if point.startswith("before") else hit
    log = SqliteLog(path, "shop")
    assert positions(batches(log)) == [str(n) for n in range(1, done + 1)]
    finish(start("write_many", path, 20 - done))
    finish(start("read_many", path, 20))
    log.close()


def test_rows_without_commit_record_are_deleted_at_the_next_claim(path: Path) -> None:
    writer = Writer(SqliteLog(path, "shop"))
    writer.write("a", users(1))
    kept = count(path, "shop.rows")
    writer.begin(users(*range(2, 5000)), size=10)
    assert count(path, "shop.rows") > kept + 400
    again = Writer(SqliteLog(path, "shop"))
    assert count(path, "shop.rows") == kept
    again.write("b", users(2))
    assert positions(batches(again.log)) == ["a", "b"]
    writer.log.close()
    again.log.close()


def test_a_fenced_capture_adds_no_rows(path: Path) -> None:
    older, newer = Writer(SqliteLog(path, "shop")), Writer(SqliteLog(path, "shop"))
    with pytest.raises(Fenced):
        older.begin(users(1))
    assert count(path, "shop.rows") == 0
    older.log.close()
    newer.log.close()


def test_retention_deletes_rows_with_their_batches(path: Path) -> None:
    log = SqliteLog(path, "shop", retention_s=0)
    writer = Writer(log)
    for number in range(10):
        writer.write(f"p{number}", users(number))
    log.trim(3600)
    before = count(path, "shop.rows")
    log.trim(0)
    assert before > count(path, "shop.rows") == 2
    assert positions(batches(log)) == ["p8", "p9"]
    log.close()


def test_a_reader_in_the_middle_of_a_batch_does_not_keep_the_file_from_shrinking(
    path: Path,
) -> None:
    log = SqliteLog(path, "shop")
    Writer(log).write("a", users(*range(50_000)), size=1000)
    reader = SqliteLog(path, "shop")
    batch = next(reader.read(None))
    assert batch is not None
    blocks = batch.blocks(100)
    next(blocks)
    db = sqlite3.connect(path)
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.close()
    assert busy == 0
    assert sum(len(rows) for block in blocks for rows in block) == 49_900
    reader.close()
    log.close()


def test_a_file_holds_the_logs_of_several_sources(path: Path) -> None:
    shop, stock = SqliteLog(path, "shop"), SqliteLog(path, 'st"ock')
    Writer(shop).write("a", users(1))
    Writer(stock).write("b", users(2))
    assert ids(batches(shop)[0]) == [("c", 1)]
    with pytest.raises(LogReplaced):
        batches(stock, batches(shop)[0].offset)
    assert shop.drop() == ["shop.commits", "shop.rows", "shop.schemas"]
    assert batches(shop) == []
    assert ids(batches(stock)[0]) == [("c", 2)]
    shop.close()
    stock.close()


def test_a_log_dropped_under_a_reader_is_said_to_be_gone(path: Path) -> None:
    writer, reader = Writer(SqliteLog(path, "shop")), SqliteLog(path, "shop")
    writer.write("a", users(1))
    read = reader.read(None)
    assert next(read) is not None
    writer.log.drop()
    with pytest.raises(LogReplaced):
        next(read)
    reader.close()


def test_a_log_made_anew_under_a_reader_is_said_to_be_another(path: Path) -> None:
    writer, reader = Writer(SqliteLog(path, "shop")), SqliteLog(path, "shop")
    writer.write("a", users(1))
    read = reader.read(None)
    assert next(read) is not None
    writer.log.drop()
    renewed = Writer(SqliteLog(path, "shop"))
    renewed.write("z", users(1))
    with pytest.raises(LogReplaced, match="anew"):
        next(read)
    for log in (writer.log, reader, renewed.log):
        log.close()


def text(path: Path) -> None:
    path.write_text("[sources.shop]\n" * 20)


def empty(path: Path) -> None:
    path.touch()


def foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE somebody_elses (id INTEGER)")
    db.close()


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION}")
    db.execute(f"PRAGMA user_version = {sqlite_file.FORMAT + 1}")
    db.execute("CREATE TABLE unknown_to_us (id INTEGER)")
    db.close()


@pytest.mark.parametrize("make", [text, empty, foreign, newer])
def test_a_file_that_is_no_log_of_ours_is_refused_untouched(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    before = path.read_bytes()
    with pytest.raises(Operator) as refused:
        SqliteLog(path, "shop").open()
    assert str(path) in str(refused.value)
    assert refused.value.hint
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_damaged_file_is_refused(path: Path) -> None:
    writer = Writer(SqliteLog(path, "shop"))
    writer.write("a", users(*range(2000)))
    writer.log.close()
    with path.open("r+b") as file:
        file.seek(sqlite_file.PAGE_BYTES)
        file.write(b"\xa5" * (path.stat().st_size - sqlite_file.PAGE_BYTES))
    log = SqliteLog(path, "shop")
    with pytest.raises(Operator, match="damaged"):
        batches(log)
    log.close()


@pytest.mark.parametrize("where", ["missing/log.db", "."])
def test_a_path_that_cannot_be_opened_is_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(Misconfigured, match="could not open"):
        SqliteLog(tmp_path / where, "shop").open()


def test_a_writer_that_waits_too_long_for_another_may_try_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_MS", 0)
    log, other = SqliteLog(path, "shop"), SqliteStream(path, "shop")
    writer = Writer(log)
    with other.writing(durable=True), pytest.raises(Transient):
        writer.begin(users(1))
    log.close()
    other.close()


def test_a_full_disk_stops_the_capture_and_later_it_goes_on(path: Path) -> None:
    """H140: disk full on the capture host."""
    log = SqliteLog(path, "shop")
    writer = Writer(log)
    writer.write("a", users(1))
    log._store._db.execute("PRAGMA max_page_count = 20")  # type: ignore[attr-defined]
    with pytest.raises(Operator, match="could not write"):
        writer.begin(users(*range(10_000)))
    log.close()
    again = Writer(SqliteLog(path, "shop"))
    again.write("b", users(2))
    assert positions(batches(again.log)) == ["a", "b"]
    again.log.close()
