"""What log tests share: a fresh log of each kind, ways to get at its entries, rows to write.

Another implementation joins every test of test_log.py by a factory in FACTORIES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.change import Batch, Commit, Offset, Piece, Position, Progress, Rows, Truncate
from schemas.codec import Envelope, encode_seed
from schemas.kinds import Kind
from schemas.table import Column, Table
from tests.services.server import Server
from transport.kafka import KafkaLog
from transport.kafka_commits import Commits
from transport.kafka_options import Options
from transport.local import LocalLog
from transport.log import Log, Opened
from transport.memory import MemoryLog, MemoryStore
from transport.record import Entry, Record
from transport.sqlite import SqliteLog, SqliteStream
from transport.store import Store


@dataclass(kw_only=True)
class Place:
    """One place where logs are kept, empty at first.

    connect: another log over the same place, as another process would have it. entries: everything
    in the commit topic. inject: put an entry there as a writer would that nobody stops. trim: what
    retention may do at the most. renew: delete the log and make an empty one under its name.
    """

    connect: Callable[[], Log]
    entries: Callable[[], list[tuple[int, Entry]]]
    inject: Callable[[Entry], int]
    trim: Callable[[], None]
    renew: Callable[[], None]


def _local(connect: Callable[[], LocalLog], store: Callable[[], Store]) -> Place:
    def inject(entry: Entry) -> int:
        with store().writing(durable=True):
            return store().add_entry(entry)

    def renew() -> None:
        connect().drop()

    return Place(
        connect=connect,
        entries=lambda: store().entries(store().bounds()[0] - 1, 1_000_000),
        inject=inject,
        trim=lambda: connect().trim(0),
        renew=renew,
    )


def memory(request: pytest.FixtureRequest) -> Place:
    """A log in memory."""
    store = MemoryStore()
    return _local(lambda: MemoryLog("shop", store), lambda: store["shop"])


def sqlite(request: pytest.FixtureRequest) -> Place:
    """A log in a file, by a connection of its own for each `connect`."""
    path = request.getfixturevalue("tmp_path") / "log.db"

    def closing(opened: Any) -> Any:
        request.addfinalizer(opened.close)
        return opened

    inspector = closing(SqliteStream(path, "shop"))
    return _local(lambda: closing(SqliteLog(path, "shop")), lambda: inspector)


def kafka(request: pytest.FixtureRequest) -> Place:
    """A log in the test run's broker, its topics named for this test alone."""
    server: Server = request.getfixturevalue("kafka")
    source: str = request.getfixturevalue("kafka_prefix")
    client: dict[str, Any] = {"bootstrap.servers": server.address, "log_level": 0}

    def connect() -> Log:
        log = KafkaLog(server.address, source, partitions=3)
        request.addfinalizer(log.close)
        return log

    def entries() -> list[tuple[int, Entry]]:
        commits = Commits(Options(server.address, {}), source, f"{source}.commits")
        try:
            return list(commits.between(*commits.bounds()))
        finally:
            commits.close()

    def inject(entry: Entry) -> int:
        offsets: list[int | None] = []
        producer = Producer(client)
        producer.produce(
            f"{source}.commits",
            entry.dumps(),
            on_delivery=lambda error, message: offsets.append(message.offset()),
        )
        assert producer.flush(30) == 0
        assert offsets[0] is not None
        return offsets[0]

    def trim() -> None:
        kept = [(offset, entry) for offset, entry in entries() if isinstance(entry, Record)][-2:]
        heads = {(f"{source}.commits", 0): kept[0][0]} | {
            (topic, partition): span.first
            for _, record in reversed(kept)
            for topic, parts in record.spans.items()
            for partition, span in parts.items()
        }
        admin = AdminClient(client)
        deleted = admin.delete_records(
            [TopicPartition(*place, offset) for place, offset in heads.items()]
        )
        for done in deleted.values():
            done.result(30)

    def renew() -> None:
        connect().drop()

    return Place(connect=connect, entries=entries, inject=inject, trim=trim, renew=renew)


FACTORIES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "memory": memory,
    "sqlite": sqlite,
    "kafka": kafka,
}


def _table(name: str, *more: str) -> Table:
    columns = [Column(name="id", kind=Kind(name="int", bits=64), nullable=False)]
    columns += [Column(name=n, kind=Kind(name="text"), nullable=True) for n in more]
    return Table(
        family="postgres",
        schema="public",
        name=name,
        columns=tuple(columns),
        primary_key=("id",),
        identity=("id",),
    )


USERS = _table("users", "name")
USERS_WIDENED = _table("users", "name", "email")
ORDERS = _table("orders", "item")

Change = tuple[str, Table, int]
"""(op, table, id); the ordinal is the change's place in its batch."""


@dataclass
class Writer:
    """Writes batches into a log the way a source's pieces come."""

    log: Log
    opened: Opened = field(init=False)

    def __post_init__(self) -> None:
        self.opened = self.log.open()

    def pieces(
        self, changes: Sequence[Change | str], *, size: int = 1000, partial: bool = False
    ) -> list[Piece]:
        """A batch's pieces without its commit; a str is a truncate of that table."""
        stamp = self.opened.stamp
        run = stamp.draw()
        numbered = list(enumerate(changes))
        return [
            self._piece(run, numbered[at : at + size], partial)
            for at in range(0, max(1, len(numbered)), size)
        ]

    def _piece(self, run: int, part: list[tuple[int, Change | str]], partial: bool) -> Piece:
        tables = list(dict.fromkeys(c[1].fingerprint for _, c in part if not isinstance(c, str)))
        found = {c[1].fingerprint: c[1] for _, c in part if not isinstance(c, str)}
        return Piece(
            run=run,
            rows=tuple(self._rows(run, found[name], part, partial) for name in tables),
            truncates=tuple(Truncate(table=c, ordinal=o) for o, c in part if isinstance(c, str)),
        )

    def _rows(
        self, run: int, table: Table, part: list[tuple[int, Change | str]], partial: bool
    ) -> Rows:
        own = [
            (o, c[0], c[2])
            for o, c in part
            if not isinstance(c, str) and c[1].fingerprint == table.fingerprint
        ]
        epoch = self.opened.stamp.epoch
        return Rows(
            table=table,
            ops=[op for _, op, _ in own],
            ordinals=[o for o, _, _ in own],
            keys=[b'{"id":%d}' % number for _, _, number in own],
            values=[value(table, op, number, epoch, run, o) for o, op, number in own],
            partial=partial,
        )

    def begin(self, changes: Sequence[Change | str], *, size: int = 1000) -> int:
        """Append all of a batch but its commit; its run."""
        pieces = self.pieces(changes, size=size)
        for piece in pieces:
            self.log.append(piece)
        return pieces[0].run

    def end(self, run: int, position: str, **commit: Any) -> None:
        """Append a batch's commit."""
        commit = {"committed_at": 1_700_000_000_000_000, "transactions": 1} | commit
        self.log.append(Piece(run=run, commit=Commit(position=Position(position), **commit)))

    def write(
        self,
        position: str,
        changes: Sequence[Change | str] = (),
        *,
        size: int = 1000,
        progress: Progress | None = None,
    ) -> None:
        """Append a batch and wait until it came back accepted."""
        self.end(self.begin(changes, size=size), position, progress=progress)
        assert self.log.flush() == position

    def beat(self, position: str) -> None:
        """Append an empty commit."""
        run = self.opened.stamp.draw()
        self.end(run, position, committed_at=None, transactions=0)


def value(table: Table, op: str, number: int, epoch: int, run: int, ordinal: int) -> bytes:
    """The wire value of a change of the row with this id."""
    if op == "s":
        key = b'{"id":%d}' % number
        return encode_seed(table, number, key, epoch=epoch, run=run, ordinal=ordinal)
    envelope = Envelope(
        table,
        connector="postgresql",
        source="shop",
        epoch=epoch,
        run=run,
        committed_at=1_700_000_000_000_000,
        snapshot=op == "r",
    )
    image = f'{{"id":{number},"{table.columns[1].name}":"é {number}"}}'
    if op == "c":
        return envelope.create(image, ordinal)
    if op == "u":
        return envelope.update("null", image, ordinal)
    return envelope.delete(image, ordinal) if op == "d" else envelope.read(image, ordinal)


def users(*numbers: int, op: str = "c") -> list[Change]:
    """Changes of the users with these ids."""
    return [(op, USERS, number) for number in numbers]


Flat = tuple[int, str, str, bytes, bytes]


def rows_of(batch: Batch, max_rows: int = 20_000) -> list[Flat]:
    """(ordinal, table, op, key, value) of every row, having checked what blocks promise."""
    result: list[Flat] = []
    borders = sorted(t.ordinal for t in batch.truncates)
    for block in batch.blocks(max_rows):
        assert 0 < sum(map(len, block)) <= max_rows
        assert len({rows.table.fingerprint for rows in block}) == len(block), "grouped by table"
        flat: list[Flat] = []
        for rows in block:
            assert rows.ordinals == sorted(rows.ordinals)
            flat += [
                (o, rows.table.full_name, op, key, data)
                for o, op, key, data in zip(
                    rows.ordinals, rows.ops, rows.keys, rows.values, strict=True
                )
            ]
        flat.sort()
        assert not any(flat[0][0] < border < flat[-1][0] for border in borders)
        assert not result or result[-1][0] < flat[0][0]
        result += flat
    return result


def ids(batch: Batch) -> list[tuple[str, int]]:
    """(op, id) of every row in order."""
    return [(op, int(key[6:-1])) for _, _, op, key, _ in rows_of(batch)]


def batches(log: Log, after: Offset | None = None) -> list[Batch]:
    """All batches to the log's end."""
    return [batch for batch in log.read(after, follow=False) if batch is not None]


def positions(read: Iterable[Batch]) -> list[str]:
    """Where each batch ends."""
    return [batch.position for batch in read]


def until_idle(read: Iterator[Batch | None]) -> list[Batch]:
    """Batches of a following reader up to its first None."""
    result: list[Batch] = []
    for batch in read:
        if batch is None:
            return result
        result.append(batch)
    raise AssertionError("a following reader ended")
