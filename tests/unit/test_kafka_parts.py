"""The parts of the log in Kafka that need no broker: options, names, spans, runs."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from schemas.errors import LogReplaced, Misconfigured, Transient
from schemas.kinds import Kind
from schemas.table import Column, Table
from transport import kafka_runs
from transport.kafka import KafkaLog
from transport.kafka_draft import Draft
from transport.kafka_errors import translated
from transport.kafka_options import Options
from transport.kafka_runs import Runs
from transport.kafka_topics import Names
from transport.record import Span


def table(name: str, schema: str = "public") -> Table:
    id_ = Column(name="id", kind=Kind(name="int", bits=64), nullable=False)
    return Table(
        family="mysql",
        schema=schema,
        name=name,
        columns=(id_,),
        primary_key=("id",),
        identity=("id",),
    )


class Stored(NamedTuple):
    """What a delivery callback is told of a row; an offset that is not known is None there."""

    place: int
    at: int | None

    def partition(self) -> int:
        return self.place

    def offset(self) -> int | None:
        return self.at

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"value"


def nobody(topic: str, partition: int) -> tuple[int, int]:
    raise AssertionError("the broker told every offset")


def test_a_batch_is_whole_only_when_every_partition_has_answered() -> None:
    """H76: partition 2 acknowledged before partition 1."""
    draft = Draft(run=1, rows=4, tombstones=1)
    report, bury = draft.topic("shop.t", "t"), draft.bury("t")
    for stored in (Stored(2, 7), Stored(2, 8), Stored(1, 5)):
        report(None, stored)  # type: ignore[arg-type]
        assert not draft.is_acknowledged
    report(None, Stored(1, 9))  # type: ignore[arg-type]
    assert not draft.is_acknowledged, "its tombstone is missing"
    bury(None, Stored(1, 10))  # type: ignore[arg-type]
    assert draft.is_acknowledged
    assert draft.spans(nobody) == {"shop.t": {1: Span(5, 9, 2), 2: Span(7, 8, 2)}}


def test_a_refused_row_is_never_forgotten() -> None:
    draft = Draft(run=1, rows=2)
    report = draft.topic("shop.t", "public.t")
    report(KafkaError(KafkaError._MSG_TIMED_OUT), Stored(0, None))  # type: ignore[arg-type]
    report(None, Stored(0, 1))  # type: ignore[arg-type]
    assert not draft.is_acknowledged
    assert draft.refused is not None
    assert draft.refused.table == "public.t"


def test_a_span_is_made_of_real_offsets_only() -> None:
    """A retry that was stored already may be reported without its offset."""
    draft = Draft(run=1, rows=2)
    report = draft.topic("shop.t", "t")
    report(None, Stored(0, None))  # type: ignore[arg-type]
    report(None, Stored(0, 41))  # type: ignore[arg-type]
    assert draft.is_acknowledged
    assert draft.spans(lambda topic, partition: (10, 50)) == {"shop.t": {0: Span(10, 50, 2)}}


def test_a_span_that_cannot_hold_its_rows_is_asked_for_and_never_written() -> None:
    """Seen once: 22 rows in a partition that was told to end at its 21st."""
    draft = Draft(run=1, rows=3)
    report = draft.topic("shop.t", "t")
    for offset in (0, 0, 1):
        report(None, Stored(0, offset))  # type: ignore[arg-type]
    assert draft.spans(lambda topic, partition: (0, 2)) == {"shop.t": {0: Span(0, 2, 3)}}
    with pytest.raises(Transient, match="told of 3 rows in a partition that holds 2"):
        draft.spans(lambda topic, partition: (0, 1))


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # Apache Kafka's UtilsTest.testMurmur2.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_oracle_for_partitions_is_javas(key: bytes, hashed: int) -> None:
    """H90: what test_kafka_log.py compares the broker's partitions with."""
    assert murmur2(key) & 0xFFFFFFFF == hashed & 0xFFFFFFFF


def test_options_reach_both_clients_under_their_own_names() -> None:
    options = Options(
        "a:1,b:2",
        {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "me",
            "sasl.password": "secret",
            "ssl.ca.location": "/ca.pem",
            "ssl.endpoint.identification.algorithm": "none",
            "linger.ms": 50,
        },
    )
    assert options.admin() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "client_id": "headwater",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password": "secret",
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": False,
    }
    assert options.producer({"linger.ms": 1})["linger.ms"] == 50
    consumer = options.consumer({})
    assert "linger.ms" not in consumer
    assert consumer["sasl.username"] == "me"


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(Misconfigured, match=r"sasl\.user\b") as unknown:
        KafkaLog("a:1", "shop", options={"sasl.user": "me"})
    assert "sasl.username" in unknown.value.hint


def test_a_source_with_a_dot_in_its_name_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"shop\.eu"):
        KafkaLog("a:1", "shop.eu")


def test_what_kafka_refuses_in_a_name_becomes_an_underscore() -> None:
    assert Names("shop").topic(table("Bücher & co")) == "shop.public.B_cher___co"


@pytest.mark.parametrize("other", [table("a b"), table("b", schema="public.a")])
def test_two_tables_that_would_share_a_topic_are_refused(other: Table) -> None:
    names = Names("shop")
    names.topic(table("a_b"))
    with pytest.raises(Misconfigured, match=r"public\.a_b"):
        names.topic(other)


def test_a_name_too_long_for_kafka_is_refused() -> None:
    with pytest.raises(Misconfigured, match="characters"):
        Names("shop").topic(table("t" * 250))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._MSG_TIMED_OUT, Transient),
        (KafkaError.NOT_ENOUGH_REPLICAS, Transient),
        (KafkaError._AUTHENTICATION, Misconfigured),
        (KafkaError.SASL_AUTHENTICATION_FAILED, Misconfigured),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Misconfigured),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, LogReplaced),
    ],
)
def test_brokers_errors_are_told_apart(code: int, expected: type[Exception]) -> None:
    assert type(translated(KafkaError(code), "write")) is expected


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2_000), st.integers(1, 7), st.randoms(use_true_random=False))
def test_spilled_rows_come_back_in_order(rows: int, spills: int, rng: random.Random) -> None:
    """Frames of several runs and tables overlap; what is given out does not, table by table."""
    tables = {t.fingerprint: t for t in (table("a"), table("b"))}
    owners = [rng.choice([*tables]) for _ in range(rows)]
    order = rng.sample(range(rows), rows)
    runs = Runs(tables.__getitem__)
    for number, ordinal in enumerate(order):
        runs.add(owners[ordinal], [ordinal], ["c"], [b"k"], [b"%d" % ordinal])
        if number % max(1, rows // spills) == 0:
            runs.spill()
    runs.finish()
    for _ in range(2):
        given_out = list(runs.read())
        assert [r.ordinals[0] for r in given_out] == sorted(r.ordinals[0] for r in given_out)
        for fingerprint, one in tables.items():
            ordinals = [o for r in given_out if r.table is one for o in r.ordinals]
            assert ordinals == [o for o in range(rows) if owners[o] == fingerprint]
        assert all(r.values == [b"%d" % o for o in r.ordinals] for r in given_out)
    assert kafka_runs.FRAME_ROWS < 2_000
