"""Every row of some tables from all partitions at once, in no order: what a rebuild by newest rows
reads.

Not here: which of them is a key's newest (apply/newest.py). Invariant: a row counts if its (epoch,
run) is an accepted record's. Where nothing is compacted, exactly as many rows come as the records
count. Where a topic is compacted, the newest row of each key comes, or is known to be doubtful.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from time import monotonic, time

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from schemas.change import Rows
from schemas.codec import Stamped, op_of, stamp_of, stamped
from schemas.errors import Operator
from schemas.table import Table
from transport.batch import PLACE_BITS
from transport.kafka_commits import ANSWER_WITHIN_S, Commits, Place, consumer, failure
from transport.kafka_descriptions import Descriptions
from transport.kafka_options import Options
from transport.kafka_partition import Stretch, lost
from transport.kafka_topics import Cleaning
from transport.record import Record

FETCH = 10_000
CLOCKS_MS = 60_000
"""So much the broker's clock may differ from ours."""


@dataclass(slots=True)
class _Place:
    """A partition: from where its rows are wanted, to which end, and how many must still come.

    young: what stands from there on has removed nothing by compaction yet. newest: the ordinal of
    the newest row that came. doubtful: keys of rows that do not count, as far as it is known now,
    each with the (epoch, run) and the op of its latest. deletes: keys of deletes that do not count,
    or not yet, whose tombstones are still to come.
    """

    end: int
    young: int
    start: int | None = None
    left: int = 0
    newest: int = 0
    deletes: set[bytes] = field(default_factory=set)
    doubtful: dict[bytes, tuple[tuple[int, int], str]] = field(default_factory=dict)


class Scan:
    """One reading. `note_ends`, then `expect` of every record from the log's oldest on, then
    `rows`.
    """

    def __init__(
        self,
        tables: Mapping[str, tuple[Table, int]],
        until: int,
        cleaning: Mapping[str, Cleaning],
        commits: Commits,
        descriptions: Descriptions,
    ) -> None:
        """tables: by topic, a description and the batch from which on rows are wanted."""
        self._tables, self._until, self._cleaning = tables, until, cleaning
        self._commits, self._descriptions = commits, descriptions
        self._places: dict[Place, _Place] = {}
        self._batches: dict[int, array[int]] = {}
        self._partial: set[str] = set()
        self._began_at = 0.0

    def note_ends(self) -> None:
        """Note how far each partition goes."""
        self._began_at = monotonic()
        for place in self._commits.partitions(self._tables):
            end = young = self._commits.held(*place)[1] + 1
            if cleaning := self._cleaning.get(place[0]):
                young_ms = int(time() * 1000) - cleaning.lag_ms + CLOCKS_MS
                (young,) = self._commits.offsets_at(place, [young_ms])
            self._places[place] = _Place(end, young)

    def expect(self, record: Record) -> None:
        """The next accepted record: its rows count, and must come where they are wanted."""
        # Runs are counted from 1 in each epoch: a week's millions of batches take 8 bytes each.
        batches = self._batches.setdefault(record.epoch, array("q"))
        batches.extend([0] * (record.run + 1 - len(batches)))
        batches[record.run] = record.batch
        if record.batch > self._until:
            return
        self._partial.update(record.partial)
        for topic, parts in record.spans.items():
            if topic not in self._tables or record.batch < self._tables[topic][1]:
                continue
            for partition, span in parts.items():
                here = self._places.get((topic, partition))
                if here is None:
                    raise lost(topic, partition, span.rows)
                here.start = span.first if here.start is None else min(here.start, span.first)
                here.left += span.rows

    def rows(self, options: Options, source: str) -> Iterator[Rows]:
        """The rows, as transport.log.Log.scan says."""
        open_places = {p: here for p, here in self._places.items() if here.start is not None}
        settings: dict[str, str | int] = {
            "enable.partition.eof": True,
            "fetch.max.bytes": 16 << 20,
            # For each partition; the default, 64 MB, would be all that the machine has.
            "queued.max.messages.kbytes": 4096,
        }
        reader = consumer(options, source, **settings)
        heard_at = monotonic()
        try:
            reader.assign([TopicPartition(*p, here.start or 0) for p, here in open_places.items()])
            while open_places:
                messages = reader.consume(FETCH, 1.0)
                if messages:
                    heard_at = monotonic()
                elif monotonic() - heard_at > ANSWER_WITHIN_S:
                    self._commits.bounds()  # raises what hinders us
                places = zip(
                    map(Message.topic, messages), map(Message.partition, messages), strict=True
                )
                at = 0
                for (topic, partition), same in groupby(places):
                    end = at + len(list(same))
                    place = topic or "", partition or 0
                    yield from self._taken(place, messages[at:end], open_places)
                    at = end
        finally:
            reader.close()
        yield from self._doubts()

    def _taken(
        self, place: Place, messages: list[Message], left: dict[Place, _Place]
    ) -> Iterator[Rows]:
        """What one partition's messages give; takes it out of `left` when it is through."""
        errors = [error for error in map(Message.error, messages) if error is not None]
        good = [m for m in messages if m.error() is None] if errors else messages
        is_through = any(error.code() == KafkaError._PARTITION_EOF for error in errors)
        for error in errors:
            mapped = failure(error, f"read {place[0]}")
            if error.code() != KafkaError._PARTITION_EOF and mapped is not None:
                raise mapped from KafkaException(error)
        here = left.get(place)
        if here is None:
            return
        if good:
            stretch = Stretch.of(good)
            is_through = is_through or stretch.offsets[-1] + 1 >= here.end
            yield from self._counted(place, here, stretch)
        if is_through:
            del left[place]
            if here.left and place[0] not in self._cleaning:
                raise lost(*place, here.left)

    def _counted(self, place: Place, here: _Place, rows: Stretch) -> Iterator[Rows]:
        """The rows that count; the others' keys are noted where that matters."""
        real = [i for i, value in enumerate(rows.values) if value]
        if place[0] not in self._cleaning or len(real) == len(rows):
            rows = rows if len(real) == len(rows) else rows.picked(real)
            if rows:
                yield from self._stamped(place, here, rows)
            return
        for i, value in enumerate(rows.values):
            if value:
                yield from self._stamped(place, here, rows.part(i, i + 1))
            elif rows.keys[i] in here.deletes:
                # Of a delete that does not count, or comes after the end: it says nothing.
                here.deletes.remove(rows.keys[i])
            else:
                # The key is gone from here on: its delete may have been compacted away while we
                # read, when an older row of it had been read already.
                yield self._single(place, "d", here.newest, rows.keys[i])

    def _stamped(self, place: Place, here: _Place, rows: Stretch) -> Iterator[Rows]:
        """Rows with values, batch by batch: a partition has a batch's mostly side by side."""
        at = 0
        while at < len(rows):
            run = _run(rows.values[at])
            others = partial(_is_other, rows.values, run)
            end = bisect_left(range(len(rows)), True, lo=at, key=others)
            found = stamped(rows.values[at:end], *run)
            if sum([len(part.at) for part in found]) < end - at:
                # Batches that were sent at the same time: up to where another one begins.
                end = next(i for i in range(at, end) if others(i))
                found = stamped(rows.values[at:end], *run)
            yield from self._of_run(place, here, rows.part(at, end), run, found)
            at = end

    def _of_run(
        self,
        place: Place,
        here: _Place,
        rows: Stretch,
        run: tuple[int, int],
        found: list[Stamped],
    ) -> Iterator[Rows]:
        batch = self._batch(run)
        if not batch or batch > self._until:
            if place[0] in self._cleaning:
                here.deletes.update(k for k, v in zip(rows.keys, rows.values, strict=True)
                                    if op_of(v) == "d")  # fmt: skip
            if place[0] in self._cleaning and rows.offsets[0] < here.young:
                for key, value in zip(rows.keys, rows.values, strict=True):
                    here.doubtful[key] = run, op_of(value)
            return
        if batch < self._tables[place[0]][1]:
            return
        here.left -= len(rows)
        base = batch << PLACE_BITS
        for part in found:
            mine = rows if len(part.at) == len(rows) else rows.picked(part.at)
            ordinals = [base + ordinal for ordinal in part.ordinals]
            here.newest = max(here.newest, ordinals[-1])
            yield Rows(
                table=self._descriptions.get(part.fingerprint),
                ops=part.ops,
                ordinals=ordinals,
                keys=mine.keys,
                values=mine.values,
                partial=part.fingerprint in self._partial,
            )

    def _doubts(self) -> Iterator[Rows]:
        """What does not count and may be all that compaction has left of its key."""
        for place, here in self._places.items():
            for key, (run, op) in here.doubtful.items():
                # A row that came after the end, and was new then, has removed none that we want.
                if not (self._batch(run) > self._until and op in "cr"):
                    yield self._single(place, "?", -1, key)
        took_ms = (monotonic() - self._began_at) * 1000
        for topic, cleaning in self._cleaning.items():
            if took_ms >= cleaning.tombstones_ms:
                raise Operator(
                    f"read {topic} for {took_ms / 1000:.0f} s, longer than a tombstone stands there"
                    f" ({cleaning.tombstones_ms / 1000:.0f} s): deleted rows could have come back",
                    hint="raise its delete.retention.ms, and run it again",
                )

    def _batch(self, run: tuple[int, int]) -> int:
        """The accepted batch of an (epoch, run), 0 where it is none's."""
        epoch, number = run
        batches = self._batches.get(epoch, ())
        return batches[number] if number < len(batches) else 0

    def _single(self, place: Place, op: str, ordinal: int, key: bytes) -> Rows:
        table = self._tables[place[0]][0]
        return Rows(table=table, ops=[op], ordinals=[ordinal], keys=[key], values=[b""])


def _run(value: bytes) -> tuple[int, int]:
    stamp = stamp_of(value)
    return stamp.epoch, stamp.run


def _is_other(values: list[bytes], run: tuple[int, int], at: int) -> bool:
    return _run(values[at]) != run
