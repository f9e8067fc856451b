"""The chain's rules one by one; how they hold together is test_chain_model.py's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.change import Offset, Position, Sweep, Truncate
from schemas.errors import LogReplaced, LogTruncated, Operator
from schemas.progress import REQUESTS
from transport.asked import Requests
from transport.chain import Chain, End, Verdict, before, follow, resume, trusted_start
from transport.record import Checkpoint, Claim, Entry, Record, Request, Span, loads

CLAIM = Claim(claim="x", over=None)


def record(
    epoch: int, batch: int, start: str | None, end: str, accepted: int | None = None
) -> Record:
    return Record(
        epoch=epoch,
        batch=batch,
        run=batch,
        from_position=None if start is None else Position(start),
        position=Position(end),
        accepted=accepted,
    )


def verdicts(entries: list[Entry]) -> list[Verdict]:
    chain = Chain()
    return [chain.take(offset, entry) for offset, entry in enumerate(entries)]


def test_only_the_next_link_of_the_current_epoch_is_accepted() -> None:
    entries: list[Entry] = [
        CLAIM,
        record(0, 1, None, "a"),
        record(0, 1, None, "a"),  # repeated
        record(0, 3, "b", "c"),  # ahead of its turn
        record(7, 2, "a", "b"),  # another epoch
        record(0, 2, "A", "b"),  # `from` is compared as text
        record(0, 2, "a", "b"),
    ]
    accepted = [offset for offset, v in enumerate(verdicts(entries)) if v is Verdict.ACCEPTED]
    assert accepted == [1, 6]


def test_a_claim_takes_effect_over_the_current_epoch_only() -> None:
    entries: list[Entry] = [
        CLAIM,
        Claim(claim="rival", over=None),
        Claim(claim="y", over=0),
        Claim(claim="y", over=0),
        record(0, 1, None, "a"),
    ]
    assert verdicts(entries) == [
        Verdict.CLAIMED,
        Verdict.IGNORED,
        Verdict.CLAIMED,
        Verdict.IGNORED,
        Verdict.IGNORED,
    ]


def test_only_a_record_that_is_named_and_retained_is_trusted() -> None:
    entries = [(10, record(4, 3, "b", "c", 8)), (11, record(4, 4, "c", "d", 9))]
    assert trusted_start(entries) is None
    assert trusted_start([*entries, (12, CLAIM), (13, record(4, 5, "d", "e", 11))]) == 11


def test_a_walk_starts_exactly_at_the_named_record() -> None:
    """Found by the model check: batches 2, 3 arrived before 1, then 1 and 2 again. A walk that
    started further back took 2 and 3 at their first places, where they were out of turn.
    """
    entries: list[Entry] = [
        CLAIM,
        record(0, 2, "a", "b"),
        record(0, 3, "b", "c"),
        record(0, 1, None, "a"),
        record(0, 2, "a", "b"),
        record(0, 9, "x", "y", 4),
    ]
    assert trusted_start(enumerate(entries)) == 4
    named = entries[4]
    assert isinstance(named, Record)
    start = before(named, incarnation="i", offset=4)
    chain = resume(
        start, incarnation="i", oldest=1, newest=5, entry=entries[3], following=entries[4]
    )
    assert chain.take(4, named) is Verdict.ACCEPTED
    assert chain.end == End(0, 2, Position("b"))


def test_a_checkpoint_is_proven_by_the_record_it_stands_at() -> None:
    here = record(4, 3, "b", "c")
    after = Checkpoint.after(here, incarnation="i", offset=10)
    assert Checkpoint.loads(after.dumps()) == after
    chain = resume(after, incarnation="i", oldest=1, newest=10, entry=here)
    assert chain.end == End(4, 3, Position("c"))
    for other in (record(4, 3, "b", "x"), record(5, 3, "b", "c"), record(4, 2, "b", "c"), CLAIM):
        with pytest.raises(LogReplaced):
            resume(after, incarnation="i", oldest=1, newest=10, entry=other)
    with pytest.raises(LogReplaced):
        resume(after, incarnation="other", oldest=1, newest=10, entry=here)
    with pytest.raises(LogReplaced):
        resume(after, incarnation="i", oldest=1, newest=9, entry=None)


def test_a_checkpoint_just_before_what_is_retained_is_still_good() -> None:
    after = Checkpoint.after(record(4, 3, "b", "c"), incarnation="i", offset=10)
    assert resume(after, incarnation="i", oldest=11, newest=12, entry=None).end.batch == 3
    with pytest.raises(LogTruncated):
        resume(after, incarnation="i", oldest=12, newest=12, entry=None)


def test_what_is_no_checkpoint_is_refused() -> None:
    for text in ("", "7", "{}", '{"offset":1}'):
        with pytest.raises(LogReplaced):
            Checkpoint.loads(Offset(text))


def test_a_reader_refuses_a_next_record_that_begins_elsewhere() -> None:
    chain = Chain(End(4, 3, Position("c")))
    assert follow(chain, 20, record(4, 3, "x", "y")) is None
    with pytest.raises(LogReplaced):
        follow(chain, 21, record(4, 4, "x", "y"))


def test_a_reader_stops_at_a_rebase_and_names_its_place() -> None:
    chain = Chain(End(4, 3, Position("c")))
    with pytest.raises(Operator) as stopped:
        follow(chain, 21, replace(record(4, 4, "c", "a"), rebase=True))
    assert "--past 21" in stopped.value.hint


def test_entries_survive_their_json() -> None:
    full = Record(
        epoch=7,
        batch=2,
        run=3,
        from_position=Position('uuid:1-5,"x"'),
        position=Position("uuid:1-9"),
        accepted=8,
        committed_at=1_700_000_000_123_456,
        transactions=4,
        origin="elsewhere",
        spans={"shop.users": {0: Span(1, 9, 5), 5: Span(2, 2, 1)}},
        truncates=(Truncate(table="public.users", ordinal=3),),
        schemas=("0123456789ab",),
        progress={"public.users": {"after": [2**63], "done": False}},
        seeds=True,
        sweeps=(Sweep("public.users", "7.0", "begins", None, 1, 2),),
        rebase=True,
    )
    assert loads(full.dumps()) == full
    assert (full.row_count, full.pending(None)) == (6, frozenset({"public.users"}))
    assert loads(CLAIM.dumps()) == CLAIM
    request = Request(what="copy", tables={"public.users": {"keys": ["k"]}}, for_target="eu")
    assert loads(request.dumps()) == request


def test_what_is_for_another_target_is_stepped_over() -> None:
    """The link of the chain stays, without rows and without the sweeps of others."""
    spans = {"shop.users": {0: Span(1, 9, 5)}}
    mine, all_ = Sweep("t", "1.0", "ends", "eu"), Sweep("t", "2.0", "begins")
    one = replace(record(0, 1, None, "a"), spans=spans, for_target="eu", sweeps=(mine, all_))
    assert one.seen_by("eu") == one.seen_by(None) == one
    other = one.seen_by("us")
    assert (other.row_count, other.sweeps, other.position) == (0, (all_,), one.position)


def test_a_request_is_no_link_of_the_chain() -> None:
    chain = Chain()
    assert chain.take(0, Request(what="pause")) is Verdict.IGNORED
    assert chain.end == End()


def test_a_record_names_nothing_beyond_a_request_that_it_has_not_taken_in() -> None:
    """Else whoever opens the log anew would look for requests after it only."""
    requests = Requests()
    requests.found(5, Request(what="pause"), 3)
    assert requests.nameable({}, 9) == 3
    assert requests.nameable({REQUESTS: {"upto": 5}}, 9) == 9
    assert [number for number, _ in requests.take()] == [5]
    assert requests.take() == []


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"epoch":1}', b'{"claim":"x"}', b"\xff"])
def test_a_foreign_entry_is_refused(data: bytes) -> None:
    with pytest.raises(Operator, match="did not write"):
        loads(data)
