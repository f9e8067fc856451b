"""What every log keeps to (transport/log.py), by one suite for all of them."""

from __future__ import annotations

from dataclasses import replace
from time import time

import pytest

from schemas.change import Position
from schemas.codec import stamp_of
from schemas.errors import Fenced, LogReplaced, LogTruncated, Operator
from tests.conformance.logs import (
    FACTORIES,
    ORDERS,
    USERS,
    USERS_WIDENED,
    Change,
    Place,
    Writer,
    batches,
    ids,
    positions,
    rows_of,
    until_idle,
    users,
)
from transport.record import Checkpoint, Claim, Record, Span


@pytest.fixture(params=FACTORIES)
def place(request: pytest.FixtureRequest) -> Place:
    return FACTORIES[request.param](request)


def records(place: Place) -> list[tuple[int, Record]]:
    return [(offset, e) for offset, e in place.entries() if isinstance(e, Record)]


def test_a_new_log_has_neither_position_nor_batches(place: Place) -> None:
    log = place.connect()
    assert batches(log) == []
    assert log.span() is None
    opened = log.open()
    assert (opened.position, opened.progress) == (None, {})
    assert log.accepted() is None


def test_batches_come_back_whole_and_in_order(place: Place) -> None:
    writer = Writer(place.connect())
    changes: list[Change] = [
        ("c", USERS, 1), ("c", ORDERS, 1), ("u", USERS, 1), ("c", ORDERS, 2), ("d", USERS, 1),
    ]  # fmt: skip
    writer.write("a", changes)
    writer.write("b", users(2))
    first, second = batches(place.connect())
    assert [(table, op) for _, table, op, _, _ in rows_of(first)] == [
        ("public.users", "c"),
        ("public.orders", "c"),
        ("public.users", "u"),
        ("public.orders", "c"),
        ("public.users", "d"),
    ]
    assert ids(second) == [("c", 2)]
    assert (first.from_position, first.position) == ("", "a")
    assert (second.from_position, second.position) == ("a", "b")
    assert (first.batch, second.batch) == (1, 2)
    assert (first.row_count, first.transactions) == (5, 1)
    assert first.committed_at == 1_700_000_000_000_000
    assert not first.is_empty
    epoch = writer.opened.stamp.epoch
    assert {stamp_of(data).epoch for *_, data in rows_of(first)} == {epoch} == {first.epoch}


def test_a_row_is_given_back_byte_for_byte(place: Place) -> None:
    writer = Writer(place.connect())
    (piece,) = writer.pieces(users(1, 2, 3))
    writer.log.append(piece)
    writer.end(piece.run, "a")
    writer.log.flush()
    (batch,) = batches(place.connect())
    (rows,) = next(iter(batch.blocks()))
    assert rows == piece.rows[0]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("max_rows", [1, 50, 20_000])
def test_blocks_are_in_order_whatever_the_pieces_and_the_block_size(
    place: Place, size: int, max_rows: int
) -> None:
    writer = Writer(place.connect())
    changes: list[Change] = [("c", ORDERS if n % 3 else USERS, n) for n in range(200)]
    writer.write("a", changes, size=size)
    (batch,) = batches(place.connect())
    assert [int(key[6:-1]) for _, _, _, key, _ in rows_of(batch, max_rows)] == [*range(200)]


def test_blocks_may_be_read_again_and_left_in_the_middle(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(*range(100)))
    writer.write("b", users(7))
    read = place.connect().read(None, follow=False)
    first = next(read)
    assert first is not None
    assert len(next(iter(first.blocks(10)))[0]) == 10
    assert rows_of(first) == rows_of(first, 9)
    second = next(read)
    assert second is not None
    assert ids(second) == [("c", 7)]
    assert len(rows_of(first)) == 100


def test_no_block_reaches_over_a_truncate(place: Place) -> None:
    """H: a truncate has its place among the rows."""
    writer = Writer(place.connect())
    changes: list[Change | str] = [
        "public.users", *users(1, 2), "public.users", "public.orders", *users(3, 4), "public.users",
    ]  # fmt: skip
    writer.write("a", changes, size=3)
    (batch,) = batches(place.connect())
    assert [(t.table, t.ordinal) for t in batch.truncates] == [
        ("public.users", 0), ("public.users", 3), ("public.orders", 4), ("public.users", 7),
    ]  # fmt: skip
    assert [[rows.ordinals for rows in block] for block in batch.blocks()] == [[[1, 2]], [[5, 6]]]


def test_a_batch_of_truncates_alone_is_not_empty(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", ["public.users"])
    (batch,) = batches(place.connect())
    assert not batch.is_empty
    assert list(batch.blocks()) == []


def test_an_unfinished_batch_cannot_be_seen(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    run = writer.begin(users(2, 3), size=1)
    assert positions(batches(place.connect())) == ["a"]
    assert writer.log.accepted() == "a"
    writer.end(run, "b")
    writer.log.flush()
    assert positions(batches(place.connect())) == ["a", "b"]


def test_runs_of_two_batches_may_be_appended_in_turns(place: Place) -> None:
    writer = Writer(place.connect())
    first, second = writer.pieces(users(1, 2), size=1), writer.pieces(users(7, 8), size=1)
    for piece in (first[0], second[0], second[1]):
        writer.log.append(piece)
    writer.end(second[0].run, "a")
    writer.log.append(first[1])
    writer.end(first[0].run, "b")
    writer.log.flush()
    assert [ids(batch) for batch in batches(place.connect())] == [
        [("c", 7), ("c", 8)],
        [("c", 1), ("c", 2)],
    ]


def test_a_new_capture_goes_on_where_the_chain_ends(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    writer.begin(users(2))
    again = Writer(place.connect())
    assert again.opened.position == "a"
    assert again.opened.stamp.epoch > writer.opened.stamp.epoch
    again.write("b", users(2, 3))
    read = batches(place.connect())
    assert [ids(batch) for batch in read] == [[("c", 1)], [("c", 2), ("c", 3)]]
    assert [batch.batch for batch in read] == [1, 2]


def test_the_older_of_two_captures_is_fenced_and_nothing_more_of_it_counts(place: Place) -> None:
    """H88: two captures run at once."""
    older = Writer(place.connect())
    older.write("a", users(1))
    run = older.begin(users(2))
    newer = Writer(place.connect())

    def go_on() -> None:
        older.end(run, "b")
        older.log.flush()

    with pytest.raises(Fenced):
        go_on()
    with pytest.raises(Fenced):
        older.log.accepted()
    newer.write("c", users(3))
    assert positions(batches(place.connect())) == ["a", "c"]


def test_a_stale_commit_record_that_arrives_late_is_ignored(place: Place) -> None:
    """H88: what an older capture had sent lands after the newer one's claim."""
    older = Writer(place.connect())
    older.write("a", users(1))
    ((_, record),) = records(place)
    newer = Writer(place.connect())
    late = replace(record, batch=2, run=99, from_position=Position("a"), position=Position("z"))
    place.inject(late)
    assert positions(batches(place.connect())) == ["a"]
    newer.write("b", users(2))
    place.inject(late)
    assert positions(batches(place.connect())) == ["a", "b"]


def test_repeated_entries_are_ignored(place: Place) -> None:
    """T58: duplicates after a producer's retry."""
    writer = Writer(place.connect())
    writer.write("a", users(1))
    for _, entry in place.entries():
        place.inject(entry)
    assert positions(batches(place.connect())) == ["a"]
    writer.write("b", users(2))
    assert positions(batches(place.connect())) == ["a", "b"]


def test_a_claim_over_an_epoch_that_is_gone_displaces_nobody(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    place.inject(Claim(claim="late", over=None))
    writer.write("b", users(2))
    assert positions(batches(place.connect())) == ["a", "b"]


def test_reading_goes_on_after_any_batch(place: Place) -> None:
    writer = Writer(place.connect())
    for number in range(5):
        writer.write(f"p{number}", users(number))
        writer = Writer(place.connect()) if number == 2 else writer
    read = batches(place.connect())
    for at, batch in enumerate(read):
        rest = batches(place.connect(), batch.offset)
        assert positions(rest) == [f"p{number}" for number in range(at + 1, 5)]


def test_the_span_names_the_ends_that_can_be_read(place: Place) -> None:
    writer = Writer(place.connect())
    for number in range(3):
        writer.write(f"p{number}", users(number))
    span = place.connect().span()
    assert span is not None
    assert positions(batches(place.connect(), span[0])) == ["p0", "p1", "p2"]
    assert span[1] == batches(place.connect())[-1].offset
    assert batches(place.connect(), span[1]) == []


def test_a_checkpoint_of_another_log_is_refused(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    (batch,) = batches(place.connect())
    place.renew()
    with pytest.raises(LogReplaced):
        batches(place.connect(), batch.offset)
    renewed = Writer(place.connect())
    assert renewed.opened.position is None
    renewed.write("a", users(1))
    renewed.write("b", users(2))
    with pytest.raises(LogReplaced):
        batches(place.connect(), batch.offset)


@pytest.mark.parametrize(
    "other",
    [{"position": "elsewhere"}, {"batch": 7}, {"epoch": 10_000}, {"offset": 10_000}],
    ids=lambda other: next(iter(other)),
)
def test_a_checkpoint_that_this_log_does_not_hold_is_refused(
    place: Place, other: dict[str, object]
) -> None:
    """A log restored from a backup and written on keeps its name; what it holds differs."""
    writer = Writer(place.connect())
    writer.write("a", users(1))
    writer.write("b", users(2))
    first, _ = batches(place.connect())
    forged = Checkpoint(**(Checkpoint.loads(first.offset)._asdict() | other))
    with pytest.raises(LogReplaced):
        batches(place.connect(), forged.dumps())


def test_a_checkpoint_that_retention_passed_is_refused(place: Place) -> None:
    """H81: retention removed the head while a target was paused."""
    writer = Writer(place.connect())
    for number in range(5):
        writer.write(f"p{number}", users(number))
    read = batches(place.connect())
    place.trim()
    with pytest.raises(LogTruncated):
        batches(place.connect(), read[0].offset)
    assert positions(batches(place.connect(), read[3].offset)) == ["p4"]


def test_a_reader_that_starts_after_retention_starts_at_a_record_that_is_named(
    place: Place,
) -> None:
    writer = Writer(place.connect())
    for number in range(5):
        writer.write(f"p{number}", users(number))
    place.trim()
    read = batches(place.connect())
    assert positions(read) == ["p3", "p4"]
    assert ids(read[0]) == [("c", 3)]
    span = place.connect().span()
    assert span is not None
    assert positions(batches(place.connect(), span[0])) == ["p3", "p4"]
    again = Writer(place.connect())
    assert again.opened.position == "p4"
    again.write("p5", users(5))
    assert positions(batches(place.connect())) == ["p3", "p4", "p5"]


def test_a_batch_with_a_row_missing_is_an_error_and_never_shorter(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1, 2, 3))
    ((_, record),) = records(place)
    spans = {
        topic: {number: Span(s.first, s.last, s.rows + 1) for number, s in parts.items()}
        for topic, parts in record.spans.items()
    }
    short = replace(
        record, batch=2, from_position=Position("a"), position=Position("b"), spans=spans
    )
    place.inject(short)
    _, batch = batches(place.connect())
    with pytest.raises(LogTruncated):
        rows_of(batch)


def test_progress_is_carried_from_batch_to_batch_and_given_back(place: Place) -> None:
    writer = Writer(place.connect())
    progress = {
        "public.users": {"after": None, "done": True},
        "public.orders": {"after": [7], "done": False},
    }
    writer.write("a", users(1), progress=progress)
    writer.write("b", users(2))
    again = Writer(place.connect())
    assert again.opened.progress == progress
    again.write("b", [("r", ORDERS, 8)], progress={"public.orders": {"after": [8], "done": True}})
    read = batches(place.connect())
    assert [batch.pending for batch in read] == [{"public.orders"}, {"public.orders"}, frozenset()]


def test_seeds_are_marked(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", [("s", USERS, 1), ("s", USERS, 2)])
    writer.write("b", users(1))
    seeded, plain = batches(place.connect())
    assert (seeded.seeds, plain.seeds) == (True, False)
    assert ids(seeded) == [("s", 1), ("s", 2)]


def test_partial_rows_stay_marked(place: Place) -> None:
    writer = Writer(place.connect())
    (piece,) = writer.pieces(users(1, op="u"), partial=True)
    writer.log.append(piece)
    writer.end(piece.run, "a")
    writer.log.flush()
    (batch,) = batches(place.connect())
    assert [rows.partial for block in batch.blocks() for rows in block] == [True]


def test_rows_keep_the_description_they_were_written_under(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    writer.write("b", [("c", USERS, 2), ("c", USERS_WIDENED, 3), ("c", USERS_WIDENED, 4)])
    first, second = batches(place.connect())
    assert [rows.table for block in first.blocks() for rows in block] == [USERS]
    assert [rows.table for block in second.blocks() for rows in block] == [USERS, USERS_WIDENED]


def test_idle_beats_are_written_sparsely(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    for _ in range(100):
        writer.beat("a")
    assert len(records(place)) == 1
    for number in range(100):
        writer.beat(f"b{number}")
    assert len(records(place)) <= 3
    assert writer.log.flush() == "b99"
    assert batches(place.connect())[-1].position == "b99"
    assert batches(place.connect())[-1].is_empty


def test_a_batch_after_an_unwritten_beat_links_to_what_was_written(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    writer.beat("a1")
    writer.write("b", users(2))
    read = batches(place.connect())
    assert read[-1].position == "b"
    assert [b.from_position for b in read[1:]] == positions(read[:-1])


def test_a_following_reader_says_when_it_is_idle_and_then_goes_on(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    read = place.connect().read(None)
    assert positions(until_idle(read)) == ["a"]
    assert until_idle(read) == []
    writer.write("b", users(2))
    assert positions(until_idle(read)) == ["b"]


def test_a_reader_may_come_before_the_log_holds_anything(place: Place) -> None:
    read = place.connect().read(None)
    assert next(read) is None
    Writer(place.connect()).write("a", users(1))
    assert positions(until_idle(read)) == ["a"]


def test_readers_stop_where_the_position_was_set_on_purpose(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    ((offset, record),) = records(place)
    place.inject(
        replace(
            record,
            batch=2,
            from_position=Position("a"),
            position=Position("0"),
            accepted=offset,
            spans={},
            rebase=True,
        )
    )
    read = place.connect().read(None, follow=False)
    assert next(read) is not None
    with pytest.raises(Operator, match="set on purpose"):
        next(read)
    assert Writer(place.connect()).opened.position == "0"


def test_a_dropped_log_is_gone(place: Place) -> None:
    writer = Writer(place.connect())
    writer.write("a", users(1))
    assert place.connect().drop()
    assert batches(place.connect()) == []


def test_a_log_keeps_who_reads_it_as_which_target(place: Place) -> None:
    """T95: by the newest note; for each target, until it is forgotten."""
    other = place.connect()
    Writer(place.connect()).write("a", users(1))
    (batch,) = batches(other)
    assert other.reader("branch") is None
    other.read_by("branch", "one", batch.offset)
    other.read_by("depot", "two")
    place.connect().read_by("branch", "three", batch.offset)
    found = [place.connect().reader(name) for name in ("branch", "depot", "attic")]
    assert [reader and reader.session for reader in found] == ["three", "two", None]
    assert found[0] is not None
    assert abs(found[0].at / 1e6 - time()) < 3600
    other.read_by("branch", None)
    assert other.reader("branch") is None
    assert len(batches(other)) == 1
