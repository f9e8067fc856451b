"""The log in Kafka: a topic for each table, one for commit records (design.md §4, log-protocol.md).

Here the parts meet: topics (kafka_topics), the capture's side (kafka_writer) and the readers'
(kafka_commits, kafka_rows). Invariant: what is read is what transport/chain.py accepts, whole, and
no Kafka transaction is needed for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from types import MappingProxyType

from schemas.change import Batch, Offset, Piece, Position, Rows
from schemas.errors import Misconfigured, Operator
from schemas.table import Table
from transport.asked import Asked
from transport.chain import Chain, before, resume
from transport.chain import follow as follow_entry
from transport.history import History
from transport.joined import Fetch, Link, batches, up_to
from transport.kafka_commits import Commits
from transport.kafka_descriptions import Descriptions
from transport.kafka_options import Options, Value
from transport.kafka_producer import RowProducer
from transport.kafka_readers import Readers
from transport.kafka_rows import RowReader
from transport.kafka_runs import Runs
from transport.kafka_scan import Scan
from transport.kafka_topics import Names, Topics, Wanted
from transport.kafka_writer import Writer, replaced
from transport.log import Kept, Opened, Reader
from transport.record import Checkpoint, Record, Request

IDLE_S = 1.0
ASKED_WITHIN_S = 10.0
LOOK_S = 10.0
"""While nothing comes, a reader asks this often whether this is still the same log."""


class KafkaLog:
    """Implements transport.log.Log. `servers` is host:port, several with commas between them.

    options: settings of librdkafka by its names (kafka_options lists those that are taken).
    """

    def __init__(
        self,
        servers: str,
        source_name: str,
        *,
        partitions: int = 6,
        replication: int = 1,
        retention_s: int = 7 * 24 * 3600,
        max_record_bytes: int = 8 << 20,
        options: Mapping[str, Value] = MappingProxyType({}),
    ) -> None:
        if min(partitions, replication) < 1 or retention_s < 60 or max_record_bytes < 10_000:
            raise Misconfigured(
                "cannot create topics so small",
                hint="at least: partitions 1, replication 1, retention_s 60, max_record_bytes 1e4",
            )
        self._options = Options(servers, options)
        self._names = Names(source_name)
        self._wanted = Wanted(
            partitions=partitions,
            replication=replication,
            retention_s=retention_s,
            max_record_bytes=max_record_bytes,
        )
        self._open_topics: Topics | None = None
        self._writer: Writer | None = None
        self._reader: RowReader | None = None
        self._spans: Commits | None = None
        self._descriptions = Descriptions(self._options, self._names)
        self._readers = Readers(self._options, source_name, self._names.commits)
        self._incarnation: str | None = None

    def open(self) -> Opened:
        last, self._writer = self._writer, None
        if last is not None:
            last.close()
        self._writer = writer = Writer(
            self._options,
            self._names,
            self._topics(),
            max_record_bytes=self._wanted.max_record_bytes,
        )
        if self._incarnation not in (None, writer.incarnation):
            raise replaced(self._names.commits)
        self._incarnation = writer.incarnation
        return writer.claim()

    def append(self, piece: Piece) -> None:
        self._claimed().append(piece)

    def accepted(self) -> Position | None:
        return self._claimed().accepted()

    def flush(self) -> Position | None:
        return self._claimed().flush()

    def requests(self) -> list[Asked]:
        return self._claimed().requests.take()

    def ask(self, request: Request) -> int:
        self._topics().prepare()
        producer = RowProducer(self._options, self._wanted.max_record_bytes)
        try:
            return producer.store(
                self._names.commits, request.dumps(), None, within_s=ASKED_WITHIN_S
            )
        finally:
            producer.close()

    def reader(self, target: str) -> Reader | None:
        return self._readers.find(target)

    def read_by(self, target: str, session: str | None, at: Offset | None = None) -> None:
        self._readers.note(target, session, at)

    def read(
        self,
        after: Offset | None,
        *,
        follow: bool = True,
        together: int = 0,
        target: str | None = None,
        until: int | None = None,
    ) -> Iterator[Batch | None]:
        commits = self._commits()
        try:
            links = up_to(self._links(commits, after, follow), until)
            yield from batches(links, together, self._fetch, target)
        finally:
            commits.close()

    def _links(self, commits: Commits, after: Offset | None, follow: bool) -> Iterator[Link | None]:
        checkpoint = None if after is None else Checkpoint.loads(after)
        while (started := self._start(commits, checkpoint)) is None:
            if not follow:
                return
            # Nothing is in the log that counts yet: the first claim and record are still to come.
            commits.next(IDLE_S)
            yield None
        chain, incarnation = started
        patience_s = IDLE_S
        if checkpoint is None and chain.record is not None:
            patience_s = 0.0
            yield _link(chain, chain.record, incarnation)
        newest = commits.bounds()[1]
        at = -1 if chain.offset is None else chain.offset
        commits.seek(at + 1)
        looked_at = monotonic()
        while follow or at < newest:
            found = commits.next(patience_s)
            if found is None and not patience_s:
                # Nothing waits just now: what was given so far need not wait either.
                patience_s = IDLE_S
                yield None
                continue
            if found is None:
                if monotonic() - looked_at > LOOK_S:
                    looked_at = monotonic()
                    if self._topics().incarnation() != incarnation:
                        raise replaced(self._names.commits)
                if follow:
                    yield None
                continue
            at, entry = found
            record = follow_entry(chain, at, entry)
            if record is not None:
                yield _link(chain, record, incarnation)
                looked_at, patience_s = monotonic(), 0.0
            if at >= newest and not follow:
                newest = commits.bounds()[1]

    def _start(self, commits: Commits, checkpoint: Checkpoint | None) -> tuple[Chain, str] | None:
        """The chain to go on with, and the log's incarnation; None while there is nothing to begin
        with.
        """
        incarnation = self._topics().incarnation()
        if checkpoint is None:
            if incarnation is None or (chain := commits.oldest()) is None:
                return None
            return chain, incarnation
        if incarnation is None:
            raise replaced(self._names.commits)
        oldest, newest = commits.bounds()
        at = checkpoint.offset
        near = dict(commits.between(max(at, oldest), min(at + 1, newest)))
        chain = resume(
            checkpoint,
            incarnation=incarnation,
            oldest=oldest,
            newest=newest,
            entry=near.get(at),
            following=near.get(at + 1),
        )
        return chain, incarnation

    def _fetch(self, records: Sequence[Record]) -> Fetch:
        loaded: list[Runs] = []

        def fetch() -> Iterator[Rows]:
            if not loaded:
                loaded.append(self._rows().load(records))
            return loaded[0].read()

        return fetch

    def described(self) -> list[Table]:
        return self._descriptions.tables() if self._topics().holds(self._names.schemas) else []

    def history(self, target: str, until: int | None = None) -> History:
        span = self.span()
        history = History(target=target, begin=span[0] if span else None)
        tables = {self._names.topic(table): table.full_name for table in self.described()}
        history.compacted = frozenset(tables[t] for t in self._topics().cleaning(tables))
        commits = self._commits()
        try:
            oldest = {place: commits.held(*place)[0] for place in commits.partitions(tables)}
            for link in up_to(self._links(commits, history.begin, False), until):
                if link is not None:
                    lost = {
                        tables[topic]
                        for topic, parts in link.record.spans.items()
                        for partition, span in parts.items()
                        if topic in tables and span.first < oldest.get((topic, partition), 1 << 63)
                    }
                    history.take(link.record, link.offset, lost)
        finally:
            commits.close()
        return history

    def scan(self, first: Mapping[str, int], until: int) -> Iterator[Rows]:
        topics = {
            self._names.topic(table): table
            for table in self.described()
            if table.full_name in first
        }
        commits = self._commits()
        try:
            scan = Scan(
                {t: (table, first[table.full_name]) for t, table in topics.items()},
                until,
                self._topics().cleaning(topics),
                commits,
                self._descriptions,
            )
            # Before the walk: what is committed by then, and held before these ends, is in it.
            scan.note_ends()
            for link in self._links(commits, None, False):
                if link is not None:
                    scan.expect(link.record)
            yield from scan.rows(self._options, self._names.source)
        finally:
            commits.close()

    def span(self) -> tuple[Offset, Offset] | None:
        incarnation = self._topics().incarnation()
        if incarnation is None:
            return None
        commits = self._commits()
        try:
            _, newest = commits.bounds()
            first = self._oldest_record(commits, newest)
            if first is None or first.record is None or first.offset is None:
                return None
            end, _, _ = commits.newest()
            if end.record is None:
                return None
            start = before(first.record, incarnation=incarnation, offset=first.offset)
            return start.dumps(), _after(end, end.record, incarnation)
        finally:
            commits.close()

    def _oldest_record(self, commits: Commits, newest: int) -> Chain | None:
        chain = commits.oldest()
        if chain is None or chain.record is not None:
            return chain
        for offset, entry in commits.between(0, newest):
            chain.take(offset, entry)
            if chain.record is not None:
                return chain
        return None

    def kept(self, after: Offset | None) -> Kept:
        topics, commits = self._topics(), self._commits()
        try:
            if topics.incarnation() is None:
                return Kept(None, None, None, self._wanted.retention_s)
            checkpoint = None if after is None else Checkpoint.loads(after)
            if checkpoint is not None:
                self._start(commits, checkpoint)  # raises where it is not held
            oldest, newest = commits.bounds()
            places = (oldest, newest, oldest if checkpoint is None else checkpoint.offset + 1)
            since, until, needed = (_stored_at(commits, place, newest) for place in places)
            described = self._descriptions.topics() if topics.holds(self._names.schemas) else []
            return Kept(since, until, needed, *topics.limits(described))
        finally:
            commits.close()

    def drop(self) -> list[str]:
        topics = self._topics()
        described = self._descriptions.topics() if topics.holds(self._names.schemas) else []
        dropped = topics.drop(described)
        self.close()
        self._incarnation = None
        return dropped

    def close(self) -> None:
        for part in (self._writer, self._reader, self._spans, self._open_topics):
            if part is not None:
                part.close()
        self._writer = self._reader = self._spans = self._open_topics = None
        self._descriptions = Descriptions(self._options, self._names)

    def _topics(self) -> Topics:
        if self._open_topics is None:
            self._open_topics = Topics(self._options, self._names, self._wanted)
        return self._open_topics

    def _claimed(self) -> Writer:
        if self._writer is None:
            raise Operator("wrote to a log that is not open", hint="open the log first")
        return self._writer

    def _rows(self) -> RowReader:
        if self._reader is None:
            self._spans = self._commits()
            self._reader = RowReader(
                self._options, self._names.source, self._spans, self._descriptions
            )
        return self._reader

    def _commits(self) -> Commits:
        return Commits(self._options, self._names.source, self._names.commits)


def _stored_at(commits: Commits, offset: int, newest: int) -> int | None:
    """When an entry was stored, in microseconds; None where there is none yet."""
    for _ in commits.between(offset, min(offset, newest)):
        return commits.stored_at_ms * 1000
    return None


def _link(chain: Chain, record: Record, incarnation: str) -> Link:
    return Link(record, _after(chain, record, incarnation))


def _after(chain: Chain, record: Record, incarnation: str) -> Offset:
    """The place just after the chain's newest record."""
    assert chain.offset is not None, "a record was accepted"
    return Checkpoint.after(record, incarnation=incarnation, offset=chain.offset).dumps()
