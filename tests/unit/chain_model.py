"""Random walks of captures and readers over one commit topic, through the real transport/chain.py.

The source is the positions "0" to "60". Claims and commit records are sent, delayed, repeated,
lost, or outlive their sender; retention deletes the topic's head; the position is set on purpose;
somebody asks for something. Checked at every step, by `World` and `Reader`: what is accepted is one
gapless walk with no batch twice, all readers agree on it whenever they started, nothing is
acknowledged that is not in it, and every request is taken in once.
`transport.chain` is used by attribute only, so that a test may put a mutant in its place.
"""

from __future__ import annotations

from itertools import count
from random import Random

from schemas.change import Position, Progress
from schemas.errors import LogReplaced, LogTruncated, Operator
from schemas.progress import REQUESTS
from transport import chain
from transport.asked import Requests, unread_after, upto
from transport.record import Checkpoint, Claim, Entry, Record, Request

END = 60
IN_FLIGHT = 3
_nonces = count()


class Violation(AssertionError):
    """The protocol promised otherwise."""


def require(promise: bool, broken: str) -> None:
    if not promise:
        raise Violation(broken)


class World:
    """The topic, what is still under way to it, and the walk that knows it from its beginning."""

    def __init__(self, seed: int, capture: type[Capture]) -> None:
        self.random = Random(seed)
        self.capture = capture
        self.topic: list[Entry] = []
        self.oldest = 0
        self.named = 0
        self.loose: list[Entry] = []
        self.may_rebase = True
        self.truth = chain.Chain()
        self.position: Position | None = None
        self.runs: set[tuple[int, int]] = set()
        self.places: dict[int, int] = {}
        self.accepted_at: list[int] = []
        self.asked: list[int] = []
        self.taken: list[int] = []

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def append(self, entry: Entry) -> None:
        """An entry lands; a copy of it may land again later."""
        offset = len(self.topic)
        self.topic.append(entry)
        if self.chance(0.1):
            self.loose.append(entry)
        if isinstance(entry, Record) and entry.accepted is not None:
            self.named = max(self.named, entry.accepted)
        if self.truth.take(offset, entry) is chain.Verdict.ACCEPTED and isinstance(entry, Record):
            require(entry.from_position == self.position, "a gap, or rows twice")
            require((entry.epoch, entry.run) not in self.runs, "a batch twice")
            self.position = entry.position
            self.runs.add((entry.epoch, entry.run))
            self.places[offset] = len(self.places)
            told = entry.progress[REQUESTS]["taken"]
            require(told[: len(self.taken)] == self.taken, "forgot a request that was taken in")
            require(len(set(told)) == len(told), "took a request in twice")
            self.taken = told
        self.asked += [offset] if isinstance(entry, Request) else []
        self.accepted_at.append(len(self.places))

    def acknowledge(self, record: Record) -> None:
        """The source forgets what this record holds."""
        require((record.epoch, record.run) in self.runs, "acknowledged what no reader accepts")

    def retain(self) -> None:
        """Delete the head, at most up to the newest record that a later one names."""
        waiting = [offset for offset in self.asked if offset not in self.taken]
        last = min([self.named, *waiting])
        self.oldest = self.random.randint(self.oldest, max(self.oldest, last))

    def land(self) -> None:
        """Something late arrives."""
        if self.loose:
            self.append(self.loose.pop(self.random.randrange(len(self.loose))))

    def strand(self, entries: list[Entry]) -> None:
        """Whose sender is gone is lost or late."""
        self.loose += [entry for entry in entries if self.chance(0.5)]

    def from_offset(self, offset: int) -> list[tuple[int, Entry]]:
        return list(enumerate(self.topic[offset:], offset))


class Capture:
    """One writer: claims, sends, looks what came back, acknowledges; dies or begins anew."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.runs = self.batch = 0
        self.position: Position | None = None
        self.begin()

    def begin(self) -> None:
        """Read the topic to its end, then claim it."""
        world = self.world
        self.epoch: int | None = None
        self.unconfirmed: set[int] = set()
        self.chain, self.at = self._start()
        while self.at + 1 < len(world.topic):
            self.at += 1
            self.chain.take(self.at, world.topic[self.at])
        require(self.chain.end == world.truth.end, "a capture sees another end than the rest")
        record = self.chain.record
        self.progress: Progress = (record and record.progress) or {
            REQUESTS: {"upto": -1, "taken": []}
        }
        self.requests = Requests()
        after = max(world.oldest, unread_after(record) + 1)
        self.requests.begin(world.from_offset(after), record)
        self.nonce = str(next(_nonces))
        self.flight: list[Entry] = [Claim(claim=self.nonce, over=self.chain.end.epoch)]

    def _start(self) -> tuple[chain.Chain, int]:
        """From the beginning, or from a named record anywhere in what is retained."""
        world = self.world
        window = world.random.randint(world.oldest, len(world.topic))
        for first in (window, world.oldest):
            start = chain.trusted_start(world.from_offset(first))
            if start is not None:
                record = world.topic[start]
                require(isinstance(record, Record) and start in world.places, "a false start")
                assert isinstance(record, Record)
                return chain.Chain.at(start, record), start
        require(world.oldest == 0, "nothing to start from")
        return chain.Chain(), -1

    def step(self) -> None:
        way = self.world.random.random()
        if way < 0.35 and self.flight:
            self.world.append(self.flight.pop(0))
        elif way < 0.7:
            self.look()
        elif way < 0.98 and self.epoch is not None:
            self.send()
        elif self.flight and self.world.chance(0.5):
            self.flight.pop(0)  # lost; what follows it cannot be accepted
        elif self.epoch is None and way > 0.98:
            self.leave(again=True)  # waited for its claim long enough

    def take_in(self) -> None:
        """What a copy does between two batches; not before every record."""
        for number, _ in self.requests.take():
            state = self.progress[REQUESTS]
            if number > upto(self.progress):
                taken = [*state["taken"], number]
                self.progress = {REQUESTS: {"upto": number, "taken": taken}}

    def send(self) -> None:
        """Put the next batch, with rows or without, or a rebase, on its way."""
        world = self.world
        if len(self.flight) >= IN_FLIGHT:
            return
        at = int(self.position or 0)
        rebase = world.may_rebase and world.chance(0.03)
        to = world.random.randint(0, END) if rebase else min(END, at + world.random.randrange(5))
        self.runs += 1
        if world.chance(0.5):
            self.take_in()
        record = Record(
            epoch=self.epoch or 0,
            batch=self.batch + 1,
            run=self.runs,
            from_position=self.position,
            position=Position(str(to)),
            accepted=self.requests.nameable(self.progress, self.chain.offset),
            progress=self.progress,
            rebase=rebase,
        )
        self.flight.append(record)
        self.unconfirmed.add(record.run)
        self.batch, self.position = record.batch, record.position

    def look(self) -> None:
        """Read a little further and act on it."""
        world = self.world
        for _ in range(world.random.randint(1, 6)):
            if self.at + 1 < world.oldest:
                return self.leave(again=True)
            if self.at + 1 >= len(world.topic):
                return None
            self.at += 1
            entry = world.topic[self.at]
            verdict = self.chain.take(self.at, entry)
            self.requests.found(self.at, entry, self.chain.offset)
            if isinstance(entry, Claim):
                if self._judge(entry, verdict):
                    return None
            elif (
                isinstance(entry, Record)
                and entry.epoch == self.epoch
                and entry.run in self.unconfirmed
            ):
                self.unconfirmed.remove(entry.run)
                if verdict is chain.Verdict.IGNORED:
                    return self.leave(again=True)  # an earlier record of its own was lost
                world.acknowledge(entry)
        return None

    def _judge(self, claim: Claim, verdict: chain.Verdict) -> bool:
        """Whether a claim that came back ends this attempt."""
        if self.epoch is None and claim.claim == self.nonce:
            if verdict is not chain.Verdict.CLAIMED:
                self.leave(again=True)
                return True
            self.epoch = self.at
            self.go_on()
        elif self.epoch is not None and verdict is chain.Verdict.CLAIMED:
            self.leave(again=self.world.chance(0.3))
            return True
        return False

    def go_on(self) -> None:
        """Continue where the accepted chain ends."""
        _, self.batch, self.position = self.chain.end
        record = self.chain.record
        if record is not None:
            self.progress = record.progress

    def leave(self, *, again: bool) -> None:
        """End this attempt; what is under way may still arrive."""
        self.world.strand(self.flight)
        self.flight = []
        if again:
            self.begin()
        else:
            self.alive = False


class Reader:
    """Follows the chain at its own pace; restarts from its checkpoint, or from nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chain: chain.Chain | None = None
        self.checkpoint: Checkpoint | None = None
        self.at = self.proven_from = -1
        self.count = 0

    def step(self) -> None:
        world = self.world
        if world.chance(0.02):
            self.chain = None
            if world.chance(0.3):
                self.checkpoint = None
        if self.chain is None:
            self._start()
        for _ in range(world.random.randint(1, 6)):
            if self.chain is None or self.at + 1 >= len(world.topic):
                return
            if self.at + 1 < world.oldest:
                self.chain = self.checkpoint = None  # LogTruncated: rebuilt
                return
            self.at += 1
            self._take(self.chain, world.topic[self.at])

    def _take(self, walk: chain.Chain, entry: Entry) -> None:
        try:
            record = chain.follow(walk, self.at, entry)
        except LogReplaced as error:
            raise Violation("a reader met a record that does not link") from error
        except Operator:
            record = walk.record  # a rebase: the operator passes the reader over it
        if record is not None:
            require(self.world.places.get(self.at) == self.count, "readers disagree")
            self.count += 1
            self.checkpoint = Checkpoint.after(record, incarnation="here", offset=self.at)
        if self.at >= self.proven_from:
            require(self.count == self.world.accepted_at[self.at], "a reader missed a batch")

    def _start(self) -> None:
        world = self.world
        start = self.checkpoint or self._late_start()
        if start is None:
            return
        newest = len(world.topic) - 1
        near = dict(world.from_offset(max(start.offset, world.oldest))[:2])
        try:
            self.chain = chain.resume(
                start,
                incarnation="here",
                oldest=world.oldest,
                newest=newest,
                entry=near.get(start.offset),
                following=near.get(start.offset + 1),
            )
        except LogReplaced as error:
            raise Violation("a reader takes its own log for another") from error
        except LogTruncated:
            require(start.offset + 1 < world.oldest, "truncated where nothing is gone")
            self.checkpoint = None
            return
        self.at = start.offset
        if self.checkpoint is not None:
            self.count = world.places[start.offset] + 1
            self.proven_from = start.offset

    def trusted(self, entries: list[tuple[int, Entry]]) -> int | None:
        """Where to start in what is retained."""
        return chain.trusted_start(entries)

    def _late_start(self) -> Checkpoint | None:
        """From the beginning if it is retained, else just before a record that can be trusted."""
        world = self.world
        if world.oldest == 0:
            self.count, self.proven_from = 0, -1
            return Checkpoint("here", -1, None, 0, None)
        offset = self.trusted(world.from_offset(world.oldest))
        if offset is None:
            return None
        record = world.topic[offset]
        require(isinstance(record, Record) and offset in world.places, "trusted a stale record")
        assert isinstance(record, Record)
        self.count, self.proven_from = world.places[offset], offset
        return chain.before(record, incarnation="here", offset=offset)


def walk(
    seed: int, steps: int, capture: type[Capture] = Capture, reader: type[Reader] = Reader
) -> World:
    """One random walk; raises Violation. At its end a capture alone must come to the end."""
    world = World(seed, capture)
    captures = [world.capture(world) for _ in range(3)]
    readers = [reader(world), reader(world)]
    for _ in range(steps):
        way = world.random.random()
        if not captures or (way < 0.02 and len(captures) < 5):
            captures.append(world.capture(world))
        elif way < 0.025:
            captures.pop(world.random.randrange(len(captures))).leave(again=False)
        elif way < 0.07:
            world.land()
        elif way < 0.08:
            world.retain()
        elif way < 0.09:
            world.append(Request(what="pause"))
        elif way < 0.4:
            world.random.choice(readers).step()
        else:
            one = world.random.choice(captures)
            one.step()
            if not one.alive:
                captures.remove(one)
    for one in captures:
        one.leave(again=False)
    finish(world, readers)
    return world


def finish(world: World, readers: list[Reader]) -> None:
    """Everything late lands, then one capture goes on alone and both readers follow."""
    while world.loose and world.chance(0.99):
        world.land()
    world.may_rebase = False
    capture = world.capture(world)
    for _ in range(3000):
        capture.step()
        if not capture.alive:
            capture = world.capture(world)
        for reader in readers:
            reader.step()
        done = world.position == str(END) and set(world.asked) == set(world.taken)
        if done and all(reader.count == len(world.places) for reader in readers):
            return
    raise Violation("no progress")
