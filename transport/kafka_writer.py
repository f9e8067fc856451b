"""The capture's side of the log in Kafka: a claim, rows, commit records in order, and what came
back accepted.

Invariant: a commit record is sent only when the broker holds every row of its batch, and only after
the record before it. Batches are pipelined: the rows of the next travel while the last one's are
not acknowledged yet.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Message

from schemas.change import Commit, Piece, Position, Progress, Rows, Stamp
from schemas.errors import Fenced, LogReplaced, LogTruncated, Transient
from schemas.faults import reach
from schemas.table import Table
from transport.asked import Requests
from transport.chain import Chain, Verdict
from transport.kafka_commits import Commits
from transport.kafka_descriptions import Descriptions
from transport.kafka_draft import Draft, Refused
from transport.kafka_options import Options
from transport.kafka_orphans import ATTEMPTS, refuse_endless
from transport.kafka_producer import RowProducer
from transport.kafka_topics import Names, Topics
from transport.log import Opened
from transport.record import Claim, Record

UNMOVED_BEAT_S = 10.0
"""An empty commit that says nothing new is written at most this often: one is always retained."""
MOVED_BEAT_S = 1.0
"""An empty commit with a new position is written at most this often: an idle source may advance."""
CLAIM_WITHIN_S = 10.0
LONG_S = 60.0
"""Only a batch that took longer is checked against retention: no topic may keep rows for less than
a minute.
"""
COME_BACK_WITHIN_S = 10.0
"""A record that did not come back for so long raises the question whether this is still the same
log.
"""


class Writer:
    """One claim on the log, from `claim` to `close`; after an error it is closed and another one
    made.

    A thread of our own polls the producer while the capture waits for its source: otherwise a
    commit record would wait for the source's next change. The two never poll at once: each holds
    the lock, and the thread stands back when asked.
    """

    def __init__(
        self, options: Options, names: Names, topics: Topics, *, max_record_bytes: int
    ) -> None:
        self._names = names
        self._topics = topics
        self._incarnation = topics.prepare()
        self._producer = RowProducer(options, max_record_bytes)
        self._commits = Commits(options, names.source, names.commits)
        self._descriptions = Descriptions(options, names)
        self._chain = Chain()
        self.requests = Requests()
        self._epoch = -1
        self._drafts: dict[int, Draft] = {}
        self._whole: deque[Draft] = deque()
        self._unreported = 0
        self._newest_entry = -1
        self._failure: tuple[Exception, BaseException | None] | None = None
        self._batch, self._position, self._progress = 0, Position(""), Progress()
        self._first = True
        self._beat: tuple[int, Commit] | None = None
        self._written_at = self._asked_at = monotonic()
        self._lock, self._wake, self._closing = Lock(), Event(), False
        self._thread = Thread(target=self._run, name="headwater-kafka", daemon=True)

    @property
    def incarnation(self) -> str:
        """The log this is a claim on."""
        return self._incarnation

    def claim(self) -> Opened:
        """Displace whoever wrote before; raises Fenced when another capture was faster."""
        self._chain, newest, claimed_at_ms = self._commits.newest()
        after = self._commits.held_after(self._chain)
        self.requests.begin(self._commits.between(after, newest), self._chain.record)
        nonce = uuid4().hex
        claim = Claim(claim=nonce, over=self._chain.end.epoch)
        self._producer.store(self._names.commits, claim.dumps(), None, within_s=CLAIM_WITHIN_S)
        self._commits.seek(newest + 1)
        waiting_since = monotonic()
        while True:
            found = self._commits.next(0.2)
            if found is None:
                if monotonic() - waiting_since > CLAIM_WITHIN_S:
                    raise Transient(
                        "could not read the claim back", hint="check that the brokers are up"
                    )
                continue
            verdict = self._chain.take(*found)
            self.requests.found(*found, self._chain.offset)
            if verdict is Verdict.ACCEPTED:
                claimed_at_ms.clear()
            elif verdict is Verdict.CLAIMED:
                claimed_at_ms.append(self._commits.stored_at_ms)
            if isinstance(found[1], Claim) and found[1].claim == nonce:
                break
        if verdict is not Verdict.CLAIMED:
            raise Fenced("found that another capture claimed the log at the same moment")
        self._epoch = self._newest_entry = found[0]
        if len(claimed_at_ms) > ATTEMPTS:
            topics = [*self._descriptions.topics(), self._names.identities]
            refuse_endless(self._commits, topics, claimed_at_ms, self._chain.end.position)
        end, record = self._chain.end, self._chain.record
        self._first = end.position is None
        self._batch, self._position = end.batch, end.position or Position("")
        self._progress = dict(record.progress) if record else Progress()
        self._thread.start()
        return Opened(
            stamp=Stamp(epoch=self._epoch), position=end.position, progress=self._progress
        )

    def append(self, piece: Piece) -> None:
        with self._polling():
            draft = self._drafts.setdefault(piece.run, Draft(run=piece.run))
            draft.truncates += piece.truncates
            if piece.rows:
                self._send(draft, piece.rows)
            if piece.commit is not None:
                del self._drafts[piece.run]
                self._seal(draft, piece.commit)
            self._advance(0)

    def accepted(self) -> Position | None:
        with self._polling():
            self._advance(0)
            self._read_back(0)
            record = self._chain.record
            return record.position if record and record.epoch == self._epoch else None

    def flush(self) -> Position | None:
        if self._beat is not None:
            with self._polling():
                run, commit = self._beat
                self._written_at = float("-inf")
                self._seal(Draft(run=run), commit)
        while True:
            position = self.accepted()
            if not self._whole and self._chain.end.batch == self._batch:
                return position
            with self._polling():
                if self._whole or self._unreported:
                    self._advance(0.01)
                else:
                    self._read_back(0.01)

    def close(self) -> None:
        """Stop the thread, throw away what was not sent, close every connection."""
        with self._lock:
            # Under the lock, as the thread's look at it: else its `clear` could follow this `set`.
            self._closing = True
            self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._producer.close()
        self._commits.close()

    def _send(self, draft: Draft, pieces: tuple[Rows, ...]) -> None:
        topics = [self._topic(rows) for rows in pieces]
        self._topics.make_tables(topics)
        for rows, topic in zip(pieces, topics, strict=True):
            table = rows.table
            if not self._descriptions.has(table.fingerprint):
                self._describe(table)
            draft.schemas.add(table.fingerprint)
            if rows.partial:
                draft.partial.add(table.fingerprint)
            draft.seeds = draft.seeds or "s" in rows.ops
            self._producer.send(draft, rows, topic, lambda: self._advance(1.0))
            self._advance(0)

    def _topic(self, rows: Rows) -> str:
        # The name is taken for seeds too: their table's later rows must not find it taken by
        # another.
        topic = self._names.topic(rows.table)
        return self._names.identities if "s" in rows.ops else topic

    def _describe(self, table: Table) -> None:
        key = f"{table.full_name}:{table.fingerprint}".encode()
        self._producer.store(self._names.schemas, table.dumps().encode(), key)
        self._descriptions.add(table)

    def _seal(self, draft: Draft, commit: Commit) -> None:
        if draft.is_empty and not self._is_due(commit):
            self._beat = draft.run, commit
            return
        self._beat = None
        self._written_at = monotonic()
        draft.commit = commit
        self._whole.append(draft)

    def _is_due(self, commit: Commit) -> bool:
        """Whether an empty commit is written now; a source gives another one within the second."""
        last = self._whole[-1].commit if self._whole else None
        position = last.position if last else self._position
        if self._first or (commit.progress is not None and commit.progress != self._progress):
            return True
        waited = monotonic() - self._written_at
        return waited >= (MOVED_BEAT_S if commit.position != position else UNMOVED_BEAT_S)

    def _advance(self, timeout_s: float) -> None:
        """Poll once; send the commit records of batches that are acknowledged by now."""
        self._producer.poll(timeout_s)
        self._raise_failure()
        for draft in (*self._whole, *self._drafts.values()):
            if draft.refused is not None:
                error = self._producer.refusal(draft.refused)
                self._fail(error, KafkaException(draft.refused.error))
        while self._whole and self._whole[0].is_acknowledged:
            if not self._commit(self._whole[0]):
                return
            self._whole.popleft()

    def _commit(self, draft: Draft) -> bool:
        """Send the draft's commit record; False when the queue had no room for it."""
        commit = draft.commit
        assert commit is not None, "only whole drafts are committed"
        record = self._record(draft, commit)
        if monotonic() - draft.started_at > LONG_S:
            self._check_held(record)
        reach("before-commit-record")
        if not self._producer.try_send(self._names.commits, record.dumps(), self._reported):
            return False
        reach("after-commit-record")
        self._unreported += 1
        self._first = False
        self._batch, self._position = record.batch, record.position
        self._progress = dict(record.progress)
        return True

    def _record(self, draft: Draft, commit: Commit) -> Record:
        progress = self._progress if commit.progress is None else commit.progress
        return Record(
            epoch=self._epoch,
            batch=self._batch + 1,
            run=draft.run,
            from_position=None if self._first else self._position,
            position=commit.position,
            accepted=self.requests.nameable(progress, self._chain.offset),
            committed_at=commit.committed_at,
            transactions=commit.transactions,
            origin=commit.origin,
            spans=draft.spans(self._commits.held),
            truncates=tuple(draft.truncates),
            schemas=tuple(sorted(draft.schemas)),
            partial=tuple(sorted(draft.partial)),
            for_target=commit.for_target,
            progress=progress,
            seeds=draft.seeds,
            sweeps=commit.sweeps,
            check=commit.check,
        )

    def _check_held(self, record: Record) -> None:
        """A batch that took long may have been overtaken by retention before it was committed."""
        for topic, parts in record.spans.items():
            for partition, span in parts.items():
                if self._commits.held(topic, partition)[0] > span.first:
                    error = LogTruncated(
                        f"found rows of a batch gone from {topic} before the batch was whole",
                        hint="keep the log longer than the largest transaction takes",
                    )
                    self._fail(error, None)

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        """A commit record's delivery; runs inside poll, which must not raise: kept for
        `_raise_failure`.
        """
        self._unreported -= 1
        offset = message.offset()
        if error is not None:
            refused = Refused("the commit topic", error, len(message.value() or b""))
            self._failure = self._failure or (
                self._producer.refusal(refused),
                KafkaException(error),
            )
        elif offset is not None and 0 <= offset <= self._newest_entry:
            self._failure = self._failure or (replaced(self._names.commits), None)
        elif offset is not None:
            self._newest_entry = offset

    def _read_back(self, timeout_s: float) -> None:
        """Take every entry that came; Fenced when another's claim is among them."""
        found = self._commits.next(timeout_s)
        while found is not None:
            self._chain.take(*found)
            self.requests.found(*found, self._chain.offset)
            if self._chain.end.epoch != self._epoch:
                self._fail(Fenced("found that another capture took the log over"), None)
            found = self._commits.next(0)
        now = monotonic()
        if self._chain.end.batch == self._batch:
            self._asked_at = now
        elif now - self._asked_at > COME_BACK_WITHIN_S and not self._unreported:
            self._asked_at = now
            if self._topics.incarnation() not in (None, self._incarnation):
                self._fail(replaced(self._names.commits), None)

    def _fail(self, error: Exception, cause: BaseException | None) -> None:
        self._failure = self._failure or (error, cause)
        self._raise_failure()

    def _raise_failure(self) -> None:
        """After the first failure nothing is sent or accepted any more: the log must be opened
        anew.
        """
        if self._failure is not None:
            error, cause = self._failure
            raise error from cause

    @contextmanager
    def _polling(self) -> Iterator[None]:
        """Take the lock from the thread, and wake it afterwards if anything is on its way."""
        self._wake.clear()
        with self._lock:
            self._raise_failure()
            try:
                yield
            except Exception as error:
                self._failure = self._failure or (error, error.__cause__)
                raise
        if self._whole or self._unreported:
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            with self._lock:
                if self._closing:
                    return
                if self._failure is not None or not (self._whole or self._unreported):
                    self._wake.clear()
                    continue
                try:
                    self._advance(0.005)
                except Exception as error:
                    # Raised again in the capture's thread, at its next call.
                    self._failure = self._failure or (error, error.__cause__)


def replaced(topic: str) -> LogReplaced:
    return LogReplaced(
        f"found {topic} deleted and made anew",
        hint="the log lost its order of commits: drop the log and copy anew",
    )
