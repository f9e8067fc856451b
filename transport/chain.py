"""Which entries of the commit topic count: one function for captures and readers, without I/O.

The rules are docs/log-protocol.md's. Invariant: whoever walks the same entries from a true start
accepts the same records, and these are one gapless walk through the source with no batch twice.
Model-checked in tests/unit/test_chain_model.py.
"""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from schemas.change import Position
from schemas.errors import LogReplaced, LogTruncated, Operator
from transport.record import Checkpoint, Claim, Entry, Record, Request


class Verdict(Enum):
    """What an entry is, at its place."""

    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    IGNORED = "ignored"


class End(NamedTuple):
    """Where a chain stands; the default is the beginning of a log that never held anything."""

    epoch: int | None = None
    batch: int = 0
    position: Position | None = None


class Chain:
    """The walk through the commit topic's entries, one at a time and in order, from a true start.

    True starts: the log's very first entry (`Chain()`), a checkpoint (`resume`), a record somebody
    read back as accepted (`Chain.at`, found by `trusted_start`). `offset` and `record` are the
    newest accepted record's, None while there was none in this walk.
    """

    __slots__ = ("end", "offset", "record")

    def __init__(self, end: End = End(), offset: int | None = None) -> None:  # noqa: B008 (immutable)
        self.end = end
        self.offset = offset
        self.record: Record | None = None

    @classmethod
    def at(cls, offset: int, record: Record) -> "Chain":
        """Stand just after a record known to be accepted; go on with the entry that follows it."""
        chain = cls(End(record.epoch, record.batch, record.position), offset)
        chain.record = record
        return chain

    def take(self, offset: int, entry: Entry) -> Verdict:
        """Judge the next entry and move. Whose claim is CLAIMED here owns the epoch `offset`."""
        epoch, batch, position = self.end
        if isinstance(entry, Claim):
            # Compare-and-set by log order: late and repeated claims do nothing, one rival wins.
            if entry.over != epoch:
                return Verdict.IGNORED
            self.end = End(offset, batch, position)
            return Verdict.CLAIMED
        if isinstance(entry, Request):
            return Verdict.IGNORED
        if entry.epoch != epoch or entry.batch != batch + 1 or entry.from_position != position:
            return Verdict.IGNORED
        self.end = End(epoch, entry.batch, entry.position)
        self.offset, self.record = offset, entry
        return Verdict.ACCEPTED


def trusted_start(entries: Iterable[tuple[int, Entry]]) -> int | None:
    """Find, in consecutive entries, a record at which a reader without checkpoint may start.

    That is one which a later entry names in `accepted`: only what was read back is ever named, so
    whoever wrote the name, it is true. Any other record may be a stale writer's. None: nothing is
    named (yet). Gives its offset.
    """
    oldest: int | None = None
    for offset, entry in entries:
        oldest = offset if oldest is None else oldest
        if isinstance(entry, Record) and entry.accepted is not None and entry.accepted >= oldest:
            return entry.accepted
    return None


def resume(
    checkpoint: Checkpoint,
    *,
    incarnation: str,
    oldest: int,
    newest: int,
    entry: Entry | None,
    following: Entry | None = None,
) -> Chain:
    """A chain that goes on after a checkpoint.

    oldest and newest: the offsets the commit topic holds (newest = oldest - 1: none). entry and
    following: what it holds at the checkpoint's offset and at the next, None where it holds none.
    Raises LogReplaced when this is not the log of the checkpoint, LogTruncated when entries after
    it are gone.
    """
    replaced = LogReplaced(
        f"found another log than the one the checkpoint at batch {checkpoint.batch} was made on",
        hint="put the log back that this target was fed from, or rebuild the target",
    )
    if checkpoint.incarnation != incarnation or checkpoint.offset > newest:
        raise replaced
    if checkpoint.offset + 1 < oldest:
        raise LogTruncated(
            f"found that the log no longer holds what follows the checkpoint, batch "
            f"{checkpoint.batch}",
            hint="headwater rebuild TARGET --on-top, and keep the log longer than it pauses",
        )
    here = End(checkpoint.epoch, checkpoint.batch, checkpoint.position)
    if checkpoint.offset >= oldest:
        ends_here = isinstance(entry, Record) and Chain.at(checkpoint.offset, entry).end == here
        begins_here = isinstance(following, Record) and here == End(
            following.epoch, following.batch - 1, following.from_position
        )
        if not ends_here and not begins_here:
            raise replaced
    return Chain(here, checkpoint.offset)


def before(record: Record, *, incarnation: str, offset: int) -> Checkpoint:
    """The checkpoint from which `record`, known to be accepted at this offset, comes next.

    It stands at no record, so `resume` proves it by what follows. Not further back: of entries that
    came out of order, a walk from there could accept one that came before its turn.
    """
    return Checkpoint(incarnation, offset - 1, record.epoch, record.batch - 1, record.from_position)


def follow(chain: Chain, offset: int, entry: Entry) -> Record | None:
    """Take an entry as a reader: the record if it counts, else None.

    Raises Operator at a rebase, where readers wait for a person; LogReplaced when the next record
    does not begin where the chain ends: no writer makes such a record, so the chain was begun on
    another log.
    """
    previous = chain.end
    if chain.take(offset, entry) is Verdict.ACCEPTED and isinstance(entry, Record):
        if entry.rebase:
            raise Operator(
                f"found that the position was set on purpose after batch {previous.batch}",
                hint=f"check the target, then run: headwater rewind TARGET --past {offset}",
            )
        return entry
    if isinstance(entry, Record) and (entry.epoch, entry.batch) == (
        previous.epoch,
        previous.batch + 1,
    ):
        raise LogReplaced(
            f"found that batch {entry.batch} does not begin where batch {previous.batch} ended",
            hint="put the log back that this target was fed from, or rebuild the target",
        )
    return None
