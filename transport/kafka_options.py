"""What people may set on the Kafka clients, under librdkafka's names, and what kafka-python calls
the same.

Invariant: a name that neither client would obey is refused before anything connects.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from confluent_kafka import KafkaError

from schemas.errors import Misconfigured

SECURITY = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "ssl.endpoint.identification.algorithm": "ssl_check_hostname",
    "client.id": "client_id",
}
"""What every client needs, with the name kafka-python has for it."""

PRODUCER = frozenset(
    {
        "batch.size",
        "compression.level",
        "compression.type",
        "delivery.timeout.ms",
        "linger.ms",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
    }
)
CONSUMER = frozenset(
    {"check.crcs", "fetch.max.bytes", "fetch.wait.max.ms", "queued.max.messages.kbytes"}
)
CLIENT = frozenset({"broker.address.family", "client.dns.lookup", "socket.keepalive.enable"})

Value = str | int | float | bool


class Options:
    """Options sorted by the client they are for; raises Misconfigured for a name or value nobody
    obeys.
    """

    def __init__(self, servers: str, options: Mapping[str, Value]) -> None:
        known = {*SECURITY, *PRODUCER, *CONSUMER, *CLIENT}
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise Misconfigured(
                    f"found an unknown Kafka option {name}",
                    hint=f"did you mean {near[0]}?"
                    if near
                    else f"use one of {', '.join(sorted(known))}",
                )
        self.servers = servers
        self._options = dict(options)

    def _shared(self) -> dict[str, Value]:
        data_only = PRODUCER | CONSUMER
        picked = {n: v for n, v in self._options.items() if n not in data_only}
        # Errors reach us by callbacks, and people by ours: librdkafka's own lines only repeat them.
        quiet: dict[str, Value] = {"log_level": 2, "client.id": "headwater"}
        return {"bootstrap.servers": self.servers, **quiet, **picked}

    def client(self, report: Callable[[KafkaError], None]) -> dict[str, Any]:
        """What only asks; connection errors are reported."""
        return {**self._shared(), "error_cb": report}

    def producer(self, defaults: Mapping[str, Value]) -> dict[str, Value]:
        """The producer's settings: ours where nothing else was asked for."""
        return {**self._shared(), **defaults, **self._of(PRODUCER)}

    def consumer(self, defaults: Mapping[str, Value]) -> dict[str, Value]:
        """A consumer's settings."""
        return {**self._shared(), **defaults, **self._of(CONSUMER)}

    def admin(self) -> dict[str, Any]:
        """The same security for kafka-python."""
        found: dict[str, Any] = {"client_id": "headwater"}
        for name, value in self._options.items():
            if name == "ssl.endpoint.identification.algorithm":
                found["ssl_check_hostname"] = str(value).lower() != "none"
            elif name == "security.protocol":
                found["security_protocol"] = str(value).upper()  # librdkafka takes lower case too
            elif name in SECURITY:
                found[SECURITY[name]] = value
        return {"bootstrap_servers": self.servers.split(","), **found}

    def _of(self, names: frozenset[str]) -> dict[str, Value]:
        return {n: v for n, v in self._options.items() if n in names}
