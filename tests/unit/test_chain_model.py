"""The log protocol as a model, walked at random, and mutants of it that the walks must catch."""

from __future__ import annotations

from dataclasses import replace
from secrets import randbits

import pytest

from tests.unit.chain_model import Capture, Reader, Violation, walk
from transport import chain
from transport.asked import Requests
from transport.record import Claim, Entry, Record

STEPS = 900
WALKS = 3000
CATCH_WITHIN = 60
"""Walks in which every mutant must be caught; the slowest needs about a tenth of them."""


def check(walks: int) -> None:
    first = randbits(40)
    print(f"seeds from {first}")
    for seed in range(first, first + walks):
        walk(seed, STEPS)


def test_random_walks_keep_every_promise() -> None:
    check(WALKS)


@pytest.mark.full
def test_many_random_walks_keep_every_promise() -> None:
    check(50_000)


def test_walks_reach_what_they_are_meant_to_check() -> None:
    """A walk without fencing, late starts, rebases and ignored entries would prove little."""
    worlds = [walk(seed, STEPS) for seed in range(50)]
    records = [e for world in worlds for e in world.topic if isinstance(e, Record)]
    claims = [e for world in worlds for e in world.topic if isinstance(e, Claim)]
    accepted = sum(len(world.places) for world in worlds)
    assert min(world.oldest for world in worlds) > 0
    assert accepted > 1000
    assert len(records) > accepted + 500
    assert len(claims) > 500
    assert sum(record.rebase for record in records) > 50
    assert sum(len(world.taken) for world in worlds) > 200


class AcknowledgeEarly(Capture):
    """Acknowledges what it has sent before it has come back."""

    def send(self) -> None:
        before = len(self.flight)
        super().send()
        if len(self.flight) > before and isinstance(record := self.flight[-1], Record):
            self.world.acknowledge(record)


class OwnMemory(Capture):
    """Goes on after its own last batch, not where the accepted chain ends."""

    def go_on(self) -> None:
        remembered = self.position
        super().go_on()
        self.position = remembered or self.position


class WithoutBatchCount(chain.Chain):
    """Accepts whatever links by epoch and `from`."""

    def take(self, offset: int, entry: Entry) -> chain.Verdict:
        if isinstance(entry, Record):
            entry = replace(entry, batch=self.end.batch + 1)
        return super().take(offset, entry)


class WithoutEpochAndFrom(chain.Chain):
    """Accepts whatever has the next batch's number."""

    def take(self, offset: int, entry: Entry) -> chain.Verdict:
        if isinstance(entry, Record) and self.end.epoch is not None:
            entry = replace(entry, epoch=self.end.epoch, from_position=self.end.position)
        return super().take(offset, entry)


class KnownByNonce(chain.Chain):
    """Takes a claim for repeated only where this walk has met its nonce."""

    def take(self, offset: int, entry: Entry) -> chain.Verdict:
        if isinstance(entry, Claim):
            met: set[str] = self.__dict__.setdefault("met", set())
            if entry.claim in met:
                return chain.Verdict.IGNORED
            met.add(entry.claim)
            entry = replace(entry, over=self.end.epoch)
        return super().take(offset, entry)


class TrustAny(Reader):
    """Starts at the oldest record there is."""

    def trusted(self, entries: list[tuple[int, Entry]]) -> int | None:
        return next((offset for offset, entry in entries if isinstance(entry, Record)), None)


def caught(capture: type[Capture] = Capture, reader: type[Reader] = Reader) -> bool:
    for seed in range(CATCH_WITHIN):
        try:
            walk(seed, STEPS, capture, reader)
        except Violation as violation:
            print(f"caught at seed {seed}: {violation}")
            return True
    return False


@pytest.mark.parametrize("mutant", [AcknowledgeEarly, OwnMemory])
def test_a_wrong_capture_is_caught(mutant: type[Capture]) -> None:
    assert caught(mutant)


@pytest.mark.parametrize("mutant", [WithoutBatchCount, WithoutEpochAndFrom, KnownByNonce])
def test_a_wrong_chain_is_caught(
    mutant: type[chain.Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "Chain", mutant)
    assert caught()


def test_a_record_that_names_more_than_it_has_taken_in_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests between are then looked for by nobody."""
    monkeypatch.setattr(Requests, "nameable", lambda self, progress, accepted: accepted)
    assert caught()


def test_a_late_reader_that_trusts_any_record_is_caught() -> None:
    assert caught(reader=TrustAny)
