"""The replication messages: bytes in, values out, without a server."""

from struct import pack

import pytest

from capture import pgoutput
from capture.pgoutput import Relation, RelationColumn
from capture.postgres_chunk import sees
from capture.postgres_relations import Relations
from capture.postgres_rows import RelationRows
from capture.postgres_stream import PIECE_BYTES, Assembler
from capture.resync import Resync
from schemas.change import Piece, Position, Stamp
from schemas.codec import parse, stamp_of
from schemas.errors import Poison, Unsupported
from schemas.kinds import Kind
from schemas.selection import Selection
from schemas.table import Column, Table
from tests.unit.native_rows import tuple_of

RELATION = Relation(
    7,
    "public",
    "t",
    "i",
    (RelationColumn("sync_id", 25, -1, True), RelationColumn("n", 23, -1, False)),
)
TABLE = Table(
    family="postgres",
    schema="public",
    name="t",
    columns=(
        Column(name="sync_id", kind=Kind(name="text"), nullable=False),
        Column(name="n", kind=Kind(name="int", bits=32), nullable=True),
    ),
    primary_key=(),
    identity=("sync_id",),
)


def wal(payload: bytes) -> bytes:
    return b"w" + bytes(24) + payload


def keepalive(wal_end: int, *, reply: bool = False) -> bytes:
    return pack(">cQQ?", b"k", wal_end, 0, reply)


def begin(lsn: int, xid: int = 1) -> bytes:
    return wal(pack(">cQqI", b"B", lsn, 0, xid))


def commit(end: int) -> bytes:
    return wal(pack(">cBQQq", b"C", 0, end - 8, end, 0))


def relation_message(relation: Relation = RELATION) -> bytes:
    columns = b"".join(
        pack(">B", c.in_key) + c.name.encode() + b"\0" + pack(">Ii", c.type_oid, c.typmod)
        for c in relation.columns
    )
    names = relation.schema.encode() + b"\0" + relation.name.encode() + b"\0"
    head = pack(">cI", b"R", relation.oid) + names
    return wal(
        head
        + pack(">cH", relation.replica_identity.encode(), len(columns and relation.columns))
        + columns
    )


def insert(*values: str | None) -> bytes:
    return wal(pack(">cI", b"I", 7) + b"N" + tuple_of(*values))


def update(new: bytes, old: bytes = b"") -> bytes:
    return wal(pack(">cI", b"U", 7) + old + b"N" + new)


class Answers(list[pgoutput.Keepalive]):
    """What the assembler passed on to be answered."""


def assembler(answers: Answers | None = None, *, after: int = 100, **sizes: int) -> Assembler:
    def described(relation: Relation) -> RelationRows | None:
        if relation.name != "t":
            return None
        return RelationRows(TABLE, [True] * len(TABLE.columns), relation.columns)

    return Assembler(
        source="shop",
        stamp=Stamp(3),
        after=after,
        recent_xid=(5 << 32) + 10,
        position=lambda lsn: Position(str(lsn)),
        relation=described,
        relations=Relations(Selection(), Resync("shop", (), list), {}),
        answer=(answers if answers is not None else Answers()).append,
        batch_rows=sizes.get("batch_rows", 1000),
        batch_bytes=sizes.get("batch_bytes", 1 << 30),
    )


def rows_of(piece: Piece) -> list[bytes]:
    return [v for r in piece.rows for v in r.values]


def test_a_relation_gives_its_layout() -> None:
    assert pgoutput.relation(relation_message()) == RELATION


def test_positions_are_written_as_postgres_prints_them() -> None:
    assert pgoutput.lsn_text(0x16B3748) == "0/16B3748"
    assert pgoutput.parse_lsn("1A/2B") == 0x1A_0000_002B
    with pytest.raises(ValueError, match="invalid literal"):
        pgoutput.parse_lsn("binlog.000001:4")


def test_a_transaction_becomes_a_batch_at_its_commits_end() -> None:
    feeding = assembler()
    messages = [begin(200, xid=12), relation_message(), insert("a", "1"), insert("b", None)]
    assert list(feeding.feed([*messages, commit(208)])) == []
    assert feeding.is_due
    piece = feeding.cut()
    assert piece.commit is not None
    assert (piece.commit.position, piece.commit.transactions) == ("208", 1)
    assert piece.commit.marks == (str((5 << 32) + 12),)
    assert [parse(v)["after"] for v in rows_of(piece)] == [
        {"sync_id": "a", "n": 1},
        {"sync_id": "b", "n": None},
    ]
    assert [stamp_of(v)[1:] for v in rows_of(piece)] == [(3, piece.run, 0), (3, piece.run, 1)]
    assert [k for r in piece.rows for k in r.keys] == [b'{"sync_id":"a"}', b'{"sync_id":"b"}']


def test_a_transaction_that_the_log_holds_already_is_skipped_whole() -> None:
    feeding = assembler(after=208)
    old = [begin(200), relation_message(), insert("a", "1"), commit(208)]
    list(feeding.feed([*old, begin(208), insert("b", "2"), commit(216)]))
    piece = feeding.cut()
    assert [parse(v)["after"]["sync_id"] for v in rows_of(piece)] == ["b"]
    assert piece.commit is not None
    assert piece.commit.transactions == 1


def test_a_keepalive_moves_the_position_only_between_transactions() -> None:
    answers = Answers()
    feeding = assembler(answers)
    list(feeding.feed([keepalive(150), begin(200), keepalive(199, reply=True), relation_message()]))
    assert not feeding.is_due
    assert feeding.beat().commit is None
    list(feeding.feed([insert("a", "1"), keepalive(9999), commit(208)]))
    piece = feeding.cut()
    assert piece.commit is not None
    assert piece.commit.position == "208"
    assert [a.wal_end for a in answers] == [150, 199, 9999]


def test_a_keepalive_behind_the_resume_position_never_moves_it_back() -> None:
    feeding = assembler(after=300)
    list(feeding.feed([keepalive(250)]))
    piece = feeding.beat()
    assert piece.commit is not None
    assert piece.commit.position == "300"
    assert piece.commit.committed_at is None


def test_a_keepalive_that_wants_a_reply_is_given_out_at_once() -> None:
    """So that a server that shuts down does not wait for a beat."""
    feeding = assembler()
    list(feeding.feed([keepalive(150)]))
    assert not feeding.is_due
    list(feeding.feed([keepalive(160, reply=True)]))
    assert feeding.is_due


def test_transaction_ids_are_widened_across_a_wraparound() -> None:
    feeding = assembler()
    for lsn, xid in ((200, 5), (300, (1 << 32) - 3), (400, 4)):
        list(feeding.feed([begin(lsn, xid), commit(lsn + 8)]))
    piece = feeding.cut()
    assert piece.commit is not None
    expected = ((5 << 32) + 5, (5 << 32) - 3, (5 << 32) + 4)
    assert piece.commit.marks == tuple(map(str, expected))


def test_a_large_transaction_is_given_out_in_pieces_of_one_run() -> None:
    feeding = assembler()
    long = "x" * 100_000
    pieces = list(feeding.feed([begin(200), relation_message()]))
    for number in range(60):
        pieces += feeding.feed([insert(f"{long}{number}", "1")])
    pieces += [*feeding.feed([commit(208)]), feeding.cut()]
    assert [p.commit is None for p in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len({p.run for p in pieces}) == 1
    ordinals = [o for p in pieces for r in p.rows for o in r.ordinals]
    assert ordinals == list(range(60))
    assert max(sum(r.size_bytes for r in p.rows) for p in pieces) < 2 * PIECE_BYTES


def test_an_update_without_its_unchanged_value_is_partial() -> None:
    feeding = assembler()
    list(feeding.feed([begin(200), relation_message(), update(tuple_of("a", "\0")), commit(208)]))
    (rows,) = feeding.cut().rows
    assert rows.partial
    assert parse(rows.values[0])["after"] == {"sync_id": "a"}


def test_a_changed_identity_without_the_whole_row_is_refused() -> None:
    feeding = assembler()
    old = b"K" + tuple_of("a", None)
    message = update(tuple_of("b", "\0"), old)
    with pytest.raises(Unsupported, match=r"public\.t whose identity changed"):
        list(feeding.feed([begin(200), relation_message(), message]))


def test_a_row_without_identity_is_poison() -> None:
    feeding = assembler()
    with pytest.raises(Poison, match="sync_id is null"):
        list(feeding.feed([begin(200), relation_message(), insert(None, "1")]))


@pytest.mark.parametrize("bad", [tuple_of("a"), pack(">H", 2) + b"x", pack(">H", 2) + b"t"])
def test_a_tuple_that_does_not_fit_is_refused(bad: bytes) -> None:
    feeding = assembler()
    message = wal(pack(">cI", b"I", 7) + b"N" + bad)
    with pytest.raises(Unsupported, match=r"could not read a row of public\.t"):
        list(feeding.feed([begin(200), relation_message(), message]))


def test_a_message_of_unknown_kind_is_refused() -> None:
    with pytest.raises(Unsupported, match="unknown kind 'S'"):
        list(assembler().feed([wal(b"S" + bytes(8))]))


@pytest.mark.parametrize(
    ("seen", "marks", "expected"),
    [
        ("10:20:", ["9", "19"], True),
        ("10:20:", ["20"], False),
        ("10:20:12,15", ["13", "11"], True),
        ("10:20:12,15", ["13", "15"], False),
        ("10:10:", [], True),
    ],
)
def test_a_snapshot_holds_what_was_finished_before_it(
    seen: str, marks: list[str], expected: bool
) -> None:
    assert sees(seen, marks) is expected
