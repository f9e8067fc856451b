"""The log on the oldest line of brokers that is supported, and behind a login.

Each test starts a broker of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import LogReplaced, LogTruncated, Misconfigured
from tests.conformance.logs import Writer, batches, ids, positions, users
from tests.services import kafka as broker
from tests.services.server import Server
from transport.kafka import KafkaLog

KAFKA_3 = "3.9.2"
USER, PASSWORD = "headwater", "a,b=c d"
LOGIN_AS = {"sasl.username": USER, "sasl.password": PASSWORD}
LOGIN = LOGIN_AS | {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
DEMAND_LOGIN = [
    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms=PLAIN",
    "sasl.mechanism.inter.broker.protocol=PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config="
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";',
]


class Logs:
    """Connects to one broker as often as asked; all is closed before the broker stops."""

    def __init__(self, server: Server) -> None:
        self._address = server.address
        self._made: list[KafkaLog] = []

    def connect(self, options: Mapping[str, str] = MappingProxyType({})) -> KafkaLog:
        self._made.append(KafkaLog(self._address, "shop", partitions=1, options=options))
        return self._made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for log in self._made:
            log.close()


def test_kafka_3_keeps_a_log_and_shows_its_gaps(server_dir: Path) -> None:
    """Topics are made, written, read; H81: retention's gap; a topic that was made anew."""
    with broker.start(server_dir, version=KAFKA_3) as server, Logs(server) as logs:
        log, reader = logs.connect(), logs.connect()
        writer = Writer(log)
        writer.write("a", users(1, 2, 3))
        writer.write("b", users(4))
        assert [ids(batch) for batch in batches(reader)] == [
            [("c", 1), ("c", 2), ("c", 3)],
            [("c", 4)],
        ]
        admin = AdminClient({"bootstrap.servers": server.address, "log_level": 0})
        place = TopicPartition("shop.public.users", 0, 2)
        for done in admin.delete_records([place]).values():
            done.result(30)
        first, second = batches(logs.connect())
        with pytest.raises(LogTruncated):
            ids(first)
        assert ids(second) == [("c", 4)]
        assert "shop.commits" in logs.connect().drop()
        Writer(logs.connect()).write("z", users(1))
        with pytest.raises(LogReplaced):
            log.open()
        with pytest.raises(LogReplaced):
            batches(reader, second.offset)


def test_a_login_is_passed_to_every_client_and_a_wrong_one_is_one_sentence(
    server_dir: Path,
) -> None:
    """The admin's, the producer's and the consumers' connections; a password of odd characters."""
    with broker.start(server_dir, DEMAND_LOGIN, client=LOGIN) as server, Logs(server) as logs:
        Writer(logs.connect(LOGIN)).write("a", users(1, 2))
        (batch,) = batches(logs.connect(LOGIN))
        assert ids(batch) == [("c", 1), ("c", 2)]
        lower = {"security.protocol": "sasl_plaintext", "sasl.mechanisms": LOGIN["sasl.mechanism"]}
        assert positions(batches(logs.connect(LOGIN_AS | lower))) == ["a"]
        for wrong in ({"sasl.password": "guess"}, {"sasl.mechanism": "SCRAM-SHA-256"}):
            with pytest.raises(Misconfigured, match=r"^could not log in to Kafka") as refused:
                logs.connect(LOGIN | wrong).open()
            assert refused.value.exit_code == 78
            assert "sasl" in refused.value.hint
            with pytest.raises(Misconfigured):
                logs.connect(LOGIN | wrong).span()
