"""How any client of ours talks to Kafka: its connection, its words for trouble, and one round of polling."""

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from sfumato.core.errors import TransientError

__all__ = ["ANSWER_S", "Access", "Config", "answers", "polled", "trouble"]

Config = dict[str, Any]

ANSWER_S: Final = 1.0
"""Longest one blocking question to a broker may take before it counts as not answered."""
_METADATA_MS: Final = 10_000
_CONSUMER_BUFFER_KIB: Final = 4_096

librdkafka_log = logging.getLogger("sfumato.broker.librdkafka")


@dataclass(frozen=True, slots=True)
class Access:
    """Where the brokers are, and who we are to them. Empty texts are left out."""

    servers: str
    security_protocol: str = "plaintext"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_ca: Path | None = None
    ssl_certificate: Path | None = None
    ssl_key: Path | None = None

    def _connection(self) -> Config:
        optional: Mapping[str, str | Path | None] = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_ca,
            "ssl.certificate.location": self.ssl_certificate,
            "ssl.key.location": self.ssl_key,
        }
        return {
            "bootstrap.servers": self.servers,
            "client.id": "sfumato",
            "security.protocol": self.security_protocol,
            "topic.metadata.refresh.interval.ms": _METADATA_MS,
            # A broker that comes back is found again within a second, however long it was away.
            "reconnect.backoff.max.ms": 1_000,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "socket.timeout.ms": 10_000,
            "log.connection.close": False,
        } | {name: str(value) for name, value in optional.items() if value}

    def producer(self, message_timeout_s: float) -> Config:
        """Every message on all replicas in sync, once and in order; what waits here is bounded."""
        return self._connection() | {
            "logger": librdkafka_log,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": int(message_timeout_s * 1_000),
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 65_536,
            # Java's own way of choosing the partition of a key, so that tools of others agree.
            "partitioner": "murmur2_random",
        }

    def consumer(self, group: str) -> Config:
        """Begins at the oldest where nothing else is said, and commits nothing by itself."""
        return self._connection() | {
            "logger": librdkafka_log,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            # After a seek the fetch under way is waited for, so it also bounds what a seek costs.
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 1_000,
            # By default a client that has so many fetches none for a second, also when they are gone at once.
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": _CONSUMER_BUFFER_KIB,
            "fetch.message.max.bytes": 1_048_576,
        }

    def admin(self) -> AdminClient:
        """A client that manages topics and asks for ends; any thread may use it."""
        # Nobody polls it, so its log lines would pile up: what goes wrong is raised anyway.
        return AdminClient(self._connection() | {"log_level": 0})


def trouble(what: str, error: Any) -> TransientError:
    """The error of a call whose effect is unknown. `what` completes "Kafka did not …"."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    why = error.str() if hasattr(error, "str") else str(error) or type(error).__name__
    return TransientError(f"Kafka did not {what} ({why}); try again.")


def polled(consumer: Any, pause_s: float, most: int) -> list[Any]:
    """Messages and events that are there, at most `most`; waits `pause_s` for the first one only."""
    first = consumer.poll(pause_s)
    if first is None:
        return []
    # `consume` would wait until it has as many as it may give, unless it may not wait at all.
    return [first, *(consumer.consume(most - 1, 0) if most > 1 else ())]


def answers(servers: str) -> bool:
    """Whether a broker at one of `servers` ("host:port", comma separated) answers what a client asks first."""
    host, _, port = servers.split(",", maxsplit=1)[0].rpartition(":")
    # A refused connection is known at once; a client would try for its whole time.
    with socket.create_connection((host, int(port)), timeout=ANSWER_S):
        return bool(Access(servers).admin().list_topics(timeout=ANSWER_S).brokers)
