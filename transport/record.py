"""What the commit topic holds, as values: claims, commit records and requests, to and from JSON.

Not here: which of them count (transport/chain.py). An entry's offset is its place in the commit
topic, an ever growing whole number given by the log; it is not part of the entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self

import orjson

from schemas.change import Offset, Position, Progress, Sweep, Truncate
from schemas.errors import LogReplaced, Operator
from schemas.progress import pending


class Span(NamedTuple):
    """A stretch of one partition, both ends held, and how many rows of the batch lie in it."""

    first: int
    last: int
    rows: int


Spans = Mapping[str, Mapping[int, Span]]
"""By topic and partition; tombstones and other runs' rows may lie between, and do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Asks to be the one writer: its offset is the new epoch, if `over` is the epoch until then.

    claim: drawn at random, by which the claimant knows its own; nobody else looks at it.
    """

    claim: str
    over: int | None

    def dumps(self) -> bytes:
        """Compact JSON."""
        return orjson.dumps({"claim": self.claim, "over": self.over})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Asks the running capture for something; its offset in the log is its number.

    what: "copy" these tables anew (full name -> {"keys": identities as JSON texts}, {"after": key,
    "until": key} of the table's paging order, or {}: the whole table), for one target or for all;
    "pause" or "resume" all copies; "cancel" the request `number`. check: what is copied is compared
    with the targets' rows at its very place, and not written. Never part of the chain.
    """

    what: Literal["copy", "pause", "resume", "cancel"]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    for_target: str | None = None
    number: int | None = None
    check: bool = False

    def dumps(self) -> bytes:
        """Compact JSON."""
        return orjson.dumps(
            {
                "request": self.what,
                "tables": self.tables,
                "for": self.for_target,
                "number": self.number,
                "check": self.check,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One batch's commit record: where its rows lie, and which link of the chain it is.

    from_position: the last accepted record's position, copied, never rendered again; None on the
    log's first record. accepted: offset of the newest record that the writer has read back as
    accepted (None: of none yet). for_target: others step over it. schemas: fingerprints of the
    rows' descriptions; partial: of those some of whose rows lack columns, where rows do not say it
    themselves. progress: all copies' state, carried from record to record; it holds every request
    below the offset that `accepted` names. rebase: the position was set on purpose, there are no
    rows.
    """

    epoch: int
    batch: int
    run: int
    from_position: Position | None
    position: Position
    accepted: int | None
    committed_at: int | None = None
    transactions: int = 0
    origin: str | None = None
    spans: Spans = field(default_factory=dict)
    truncates: tuple[Truncate, ...] = ()
    for_target: str | None = None
    schemas: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    progress: Progress = field(default_factory=dict)
    seeds: bool = False
    sweeps: tuple[Sweep, ...] = ()
    check: bool = False
    rebase: bool = False

    @property
    def row_count(self) -> int:
        """How many rows the batch has over all its spans."""
        return sum(span.rows for parts in self.spans.values() for span in parts.values())

    def pending(self, target: str | None) -> frozenset[str]:
        """Full names of the tables whose copy for this target is not finished here."""
        return pending(self.progress, target)

    def seen_by(self, target: str | None) -> "Record":
        """The record as this target reads it: without what is for another one (None: all)."""
        if target is None:
            return self
        sweeps = tuple(s for s in self.sweeps if s.target in (None, target))
        if self.for_target in (None, target):
            return self if len(sweeps) == len(self.sweeps) else replace(self, sweeps=sweeps)
        return replace(self, spans={}, truncates=(), schemas=(), seeds=False, sweeps=sweeps)

    def dumps(self) -> bytes:
        """Compact JSON with the names of docs/wire.md."""
        data: dict[str, Any] = {
            "epoch": self.epoch,
            "batch": self.batch,
            "run": self.run,
            "from": self.from_position,
            "to": self.position,
            "accepted": self.accepted,
            "committed_at": self.committed_at,
            "transactions": self.transactions,
            "spans": {
                topic: {str(partition): list(span) for partition, span in parts.items()}
                for topic, parts in self.spans.items()
            },
            "truncates": [[t.table, t.ordinal] for t in self.truncates],
            "for": self.for_target,
            "schemas": list(self.schemas),
            "partial": list(self.partial),
            "progress": self.progress,
            "seeds": self.seeds,
        }
        if self.origin is not None:
            data["origin"] = self.origin
        if self.check:
            data["check"] = True
        if self.sweeps:
            data["sweeps"] = [list(sweep) for sweep in self.sweeps]
        if self.rebase:
            data["rebase"] = True
        return orjson.dumps(data)


Entry = Claim | Record | Request
"""One message of the commit topic."""


def loads(data: bytes | str) -> Entry:
    """Parse one entry, unknown names ignored; raises Operator for what Headwater did not write."""
    try:
        parsed = orjson.loads(data)
        if "claim" in parsed:
            return Claim(claim=parsed["claim"], over=parsed["over"])
        if "request" in parsed:
            return Request(
                what=parsed["request"],
                tables=parsed["tables"],
                for_target=parsed["for"],
                number=parsed["number"],
                check=parsed.get("check", False),
            )
        return Record(
            epoch=parsed["epoch"],
            batch=parsed["batch"],
            run=parsed["run"],
            from_position=parsed["from"],
            position=parsed["to"],
            accepted=parsed["accepted"],
            committed_at=parsed["committed_at"],
            transactions=parsed["transactions"],
            origin=parsed.get("origin"),
            spans={
                topic: {int(partition): Span(*span) for partition, span in parts.items()}
                for topic, parts in parsed["spans"].items()
            },
            truncates=tuple(Truncate(table=t, ordinal=o) for t, o in parsed["truncates"]),
            for_target=parsed["for"],
            schemas=tuple(parsed["schemas"]),
            partial=tuple(parsed.get("partial", ())),
            progress=parsed["progress"],
            seeds=parsed["seeds"],
            sweeps=tuple(Sweep(*sweep) for sweep in parsed.get("sweeps", ())),
            check=parsed.get("check", False),
            rebase=parsed.get("rebase", False),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Operator(
            "read a commit record that Headwater did not write",
            hint="another program writes to this log: give the source a name of its own",
        ) from error


class Checkpoint(NamedTuple):
    """A place just after one accepted record: what an `Offset` holds. Opaque outside transport.

    incarnation: names this very log, so that a log made anew is never taken for it. batch 0: before
    any record.
    """

    incarnation: str
    offset: int
    epoch: int | None
    batch: int
    position: Position | None

    @classmethod
    def after(cls, record: Record, *, incarnation: str, offset: int) -> Self:
        """The place just after an accepted record at this offset."""
        return cls(incarnation, offset, record.epoch, record.batch, record.position)

    def dumps(self) -> Offset:
        """The opaque text."""
        return Offset(orjson.dumps(self._asdict()).decode())

    @classmethod
    def loads(cls, text: Offset) -> Self:
        """The inverse of `dumps`; raises LogReplaced for what is no offset of a log."""
        try:
            data = orjson.loads(text)
            return cls(**data)
        except (ValueError, TypeError) as error:
            raise LogReplaced(
                "read a checkpoint that no log of this version wrote",
                hint="rebuild the target, or restore its checkpoint",
            ) from error
