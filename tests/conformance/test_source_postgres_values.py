"""PostgreSQL's values: the same bytes by stream and by chunk, and the ones that are expected."""

from base64 import b64encode
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.change import Piece, Stamp
from schemas.codec import parse
from schemas.selection import Selection
from tests.conformance.postgres_reading import changes, end_of, opened, read, start
from tests.conformance.sources import afters, whole
from tests.services.database import Database

CORNERS: dict[str, list[tuple[str, Any]]] = {
    "smallint": [("-32768", -32768), ("32767", 32767)],
    "bigint": [("-9223372036854775808", -(1 << 63)), ("9223372036854775807", (1 << 63) - 1)],
    "numeric": [
        ("'NaN'", "NaN"),
        ("1e-30", "0." + "0" * 29 + "1"),
        ("12345678901234567890123456789012345678.5", "12345678901234567890123456789012345678.5"),
        ("1e25", "1" + "0" * 25),
        ("'Infinity'", "Infinity"),
        ("'-Infinity'", "-Infinity"),
    ],
    "numeric(10,2)": [("1.5", "1.50"), ("-0.001", "0.00")],
    "real": [("0.1", 0.1), ("'NaN'", "NaN"), ("'-Infinity'", "-Infinity"), ("1e-45", 1.4013e-45)],
    "double precision": [
        ("0.1", 0.1),
        ("'Infinity'", "Infinity"),
        ("1e300", 1e300),
        ("'-0'", -0.0),
    ],
    "boolean": [("true", True), ("false", False)],
    "text": [
        ("''", ""),
        (r"E'\t\n\\N\\\"\u0001\u20ac😀'", '\t\n\\N\\"\x01€😀'),
        ("'null'", "null"),
    ],
    "character(4)": [("'a b '", "a b"), ("'    '", "")],
    "varchar(3)": [("'a  '", "a  ")],
    "bytea": [(r"'\x00ff5c09'", "AP9cCQ=="), (r"'\x'", "")],
    "date": [
        ("'0044-03-15 BC'", "0044-03-15 BC"),
        ("'infinity'", "infinity"),
        ("'-infinity'", "-infinity"),
        ("'12026-01-02'", "12026-01-02"),
    ],
    "time": [("'24:00:00'", "24:00:00"), ("'00:00:00.000001'", "00:00:00.000001")],
    "time(0)": [("'12:34:56.7'", "12:34:57")],
    "timestamp": [
        ("'2026-11-22 12:34:56.700'", "2026-11-22T12:34:56.7"),
        ("'0044-03-15 12:00 BC'", "0044-03-15T12:00:00 BC"),
        ("'infinity'", "infinity"),
    ],
    "timestamptz": [
        ("'2026-11-22 12:34:56.789+05:30'", "2026-11-22T07:04:56.789Z"),
        ("'0044-03-15 12:00+00 BC'", "0044-03-15T12:00:00Z BC"),
        ("'-infinity'", "-infinity"),
    ],
    "json": [("'{\"a\":  1e400}'", '{"a":  1e400}'), ("'null'", "null")],
    "jsonb": [('\'{"b": 1, "a": "\\u20ac"}\'', '{"a": "€", "b": 1}')],
    "uuid": [("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")],
    "mood": [("'it''s \"ok\", ä'", 'it\'s "ok", ä')],
}


def both_ways(database: Database, insert: str) -> list[dict[str, Any]]:
    """Stream the rows that `insert` makes, read them as a chunk, and compare them byte by byte."""
    with opened(database) as source:
        at = start(source)
        database.execute(insert)
        pieces = read(source, at)
        (table,) = source.describe()
        chunk = whole(source, table)
        keys = [k for p in pieces for r in p.rows for k in r.keys]
        streamed = {k: after_text(v) for k, v in zip(keys, values(pieces), strict=True)}
        assert dict(zip(chunk.keys, afters(chunk), strict=True)) == streamed
        assert {r.table.fingerprint for p in pieces for r in p.rows} == {table.fingerprint}
        return [parse(v)["after"] for v in values(pieces)]


def values(pieces: list[Piece]) -> list[bytes]:
    return [v for p in pieces for r in p.rows for v in r.values]


def after_text(value: bytes) -> str:
    """The after image's own text inside an insert's envelope."""
    text = value.decode()
    return text[len('{"before":null,"after":') : text.rindex(',"op":"c"')]


@pytest.mark.parametrize("native", CORNERS)
def test_corner_values_are_exact_and_equal_by_stream_and_chunk(
    postgres_db: Database, native: str
) -> None:
    """H63, H135."""
    postgres_db.execute("CREATE TYPE mood AS ENUM ('it''s \"ok\", ä')")
    postgres_db.execute(f"CREATE TABLE t (sync_id int PRIMARY KEY, v {native})")
    cases = [*CORNERS[native], ("NULL", None)]
    rows = ", ".join(f"({i}, {sql})" for i, (sql, _) in enumerate(cases))
    found = both_ways(postgres_db, f"INSERT INTO t VALUES {rows}".replace("%", "%%"))
    # As text: NaN, and a negative zero, are not told apart by ==.
    assert [repr(row["v"]) for row in found] == [repr(expected) for _, expected in cases]


def test_session_defaults_of_the_role_do_not_change_a_value(postgres_db: Database) -> None:
    """What a database's owner sets for people must not reach the wire."""
    for setting in (
        "datestyle TO 'SQL, DMY'",
        "timezone TO 'Asia/Kolkata'",
        "bytea_output TO 'escape'",
        "extra_float_digits TO '-3'",
        "intervalstyle TO 'iso_8601'",
        "search_path TO 'nowhere'",
    ):
        postgres_db.execute(f"ALTER DATABASE {postgres_db.name} SET {setting}")
    postgres_db.execute(
        "CREATE TABLE public.t (sync_id int PRIMARY KEY, d date, i timestamptz, b bytea, f float8)"
    )
    (row,) = both_ways(
        postgres_db,
        "INSERT INTO public.t VALUES "
        r"(1, '2026-11-22', '2026-11-22 00:00:00+00', '\x00'::bytea, 0.1::float8 + 0.2)",
    )
    assert list(row.values())[1:] == [
        "2026-11-22", "2026-11-22T00:00:00Z", "AA==", 0.30000000000000004
    ]  # fmt: skip


def trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def instant(moment: datetime) -> str:
    return trimmed(moment.astimezone(UTC).replace(tzinfo=None).isoformat()) + "Z"


def plain(number: Decimal) -> str:
    return f"{number:f}"


letters = st.characters(codec="utf-8", exclude_characters="\x00")
texts = st.text(letters, max_size=40)
zones = st.integers(-12 * 60, 12 * 60).map(lambda m: timezone(timedelta(minutes=m)))
late = st.datetimes(datetime(1900, 1, 2), datetime(9999, 12, 30))
amounts = st.decimals(allow_nan=False, allow_infinity=False, places=3).filter(
    lambda d: abs(d) < 10**20
)
rows_of_values = st.tuples(
    *map(
        st.none().__or__,
        (
            st.integers(-(1 << 63), (1 << 63) - 1),
            texts,
            st.binary(max_size=40),
            st.floats(allow_nan=False, allow_infinity=False),
            amounts,
            st.booleans(),
            st.dates(date(1, 1, 1)),
            st.times(),
            late,
            st.builds(lambda d, z: d.replace(tzinfo=z), late, zones),
            st.uuids(),
            st.dictionaries(texts, texts, max_size=3),
        ),
    )
)
EXPECTED: list[Any] = [
    int,
    str,
    lambda v: b64encode(v).decode(),
    lambda v: v,
    plain,
    bool,
    lambda v: v.isoformat(),
    lambda v: trimmed(v.isoformat()),
    lambda v: trimmed(v.isoformat()),
    instant,
    str,
    lambda v: orjson.dumps(v).decode(),
]


@settings(
    max_examples=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(rows_of_values, min_size=1, max_size=60))
def test_any_row_is_the_same_by_stream_and_chunk_and_as_inserted(
    postgres_db: Database, rows: list[tuple[Any, ...]]
) -> None:
    """H135 over random values of every family."""
    postgres_db.execute(
        "CREATE TABLE IF NOT EXISTS t (sync_id int PRIMARY KEY, i bigint, s text, "
        "b bytea, f float8, n numeric(24,3), o bool, d date, t time, w timestamp, z timestamptz, "
        "u uuid, j json); TRUNCATE t"
    )
    with opened(postgres_db) as source:
        at, _ = source.now()
        with closing(postgres_db.connect()) as connection, connection.cursor() as cursor:
            for number, row in enumerate(rows):
                given_row = [
                    None if v is None
                    else str(v) if i == 10
                    else orjson.dumps(v).decode() if i == 11
                    else v
                    for i, v in enumerate(row)
                ]  # fmt: skip
                cursor.execute(
                    "INSERT INTO t VALUES (%s" + ", %s" * len(row) + ")", (number, *given_row)
                )
        pieces = read(source, at)
        (table,) = source.describe()
        chunk = whole(source, table)
        assert afters(chunk) == [after_text(v) for v in values(pieces)]
        for number, (row, found) in enumerate(zip(rows, changes(pieces), strict=True)):
            expected = [
                None if v is None else write(v) for write, v in zip(EXPECTED, row, strict=True)
            ]
            assert list((found.after or {}).values()) == [number, *expected]


# Chunks.


def test_chunks_walk_the_table_once_in_the_order_of_its_identity(postgres_db: Database) -> None:
    postgres_db.execute(
        'CREATE TABLE "odd %%s""table" (id int PRIMARY KEY, sync_id text UNIQUE NOT NULL, '
        '"a %%b" int)'
    )
    postgres_db.execute(
        'INSERT INTO "odd %%s""table" SELECT i, chr(9) || chr(92) || \'%%\' || i, i '
        "FROM generate_series(1, 250) i"
    )
    with opened(postgres_db) as source:
        (table,) = source.describe()
        after, ids, sizes = None, [], []
        while True:
            chunk = source.chunk(table, after, 100, epoch=1, run=1)
            ids += chunk.source_keys()
            sizes.append(len(chunk.keys))
            if chunk.next_key is None:
                break
            after = orjson.loads(orjson.dumps(chunk.next_key))
        assert set(ids) == set(range(1, 251))
        assert sizes == [100, 100, 50]


def test_a_chunk_follows_a_key_of_several_columns(postgres_db: Database) -> None:
    postgres_db.execute("CREATE TABLE t (a int, b timestamptz, PRIMARY KEY (a, b))")
    postgres_db.execute(
        "INSERT INTO t SELECT i %% 2, timestamptz '2026-01-01' + i * interval '1 h' "
        "FROM generate_series(1, 10) i".replace("%%", "%")
    )
    with opened(postgres_db, selection=Selection(identity={"*": "primary_key"})) as source:
        (table,) = source.describe()
        first = source.chunk(table, None, 7, epoch=1, run=1)
        rest = source.chunk(table, first.next_key, 7, epoch=1, run=1)
        assert (len(first.keys), len(rest.keys)) == (7, 3)
        assert len({*first.keys, *rest.keys}) == 10
        assert first.source_keys() == []


def test_a_chunk_does_not_see_what_is_streamed_but_not_yet_visible(
    postgres_db: Database,
) -> None:
    """Log before visibility: marks of transactions that a snapshot must include."""
    postgres_db.execute("CREATE TABLE t (sync_id int PRIMARY KEY)")
    with opened(postgres_db) as source:
        at = start(source)
        (table,) = source.describe()
        with closing(postgres_db.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN; INSERT INTO t VALUES (1)")
            early = source.chunk(table, None, 10, epoch=1, run=1)
            cursor.execute("SELECT pg_current_xact_id()::text; ")
            ((mark,),) = cursor.fetchall()
            cursor.execute("COMMIT")
        late = source.chunk(table, None, 10, epoch=1, run=1)
        pieces = read(source, at)
        marks = [m for p in pieces if p.commit for m in p.commit.marks]
        assert marks == [mark]
        assert not early.keys
        assert not source.sees(early.seen, marks)
        assert late.keys == [b'{"sync_id":1}']
        assert source.sees(late.seen, marks)
        assert source.reached(late.high, end_of(pieces))


def test_an_idle_stream_passes_a_chunks_high_mark_at_once(postgres_db: Database) -> None:
    """Or a first copy of a quiet database would take a second for each chunk."""
    postgres_db.execute("CREATE TABLE t (sync_id int PRIMARY KEY)")
    with opened(postgres_db) as source, closing(source.stream(None, Stamp(1))) as stream:
        (table,) = source.describe()
        next(stream)
        next(stream)
        for _ in range(20):
            chunk = source.chunk(table, None, 10, epoch=1, run=1)
            piece = next(stream)
            assert piece.commit is not None
            assert source.reached(chunk.high, piece.commit.position)
