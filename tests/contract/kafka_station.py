"""Kafka as the broker suites see it: topics of a prefix of their own, read and written around the port."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from sfumato.broker.kafka import KafkaBroker
from sfumato.broker.kafka_protocol import GroupProtocol
from tests.contract.stations import Kind

__all__ = ["KafkaStation"]


@dataclass(frozen=True)
class KafkaStation:
    """Topics `<prefix>.…` on the broker at `servers`."""

    servers: str
    prefix: str
    group_protocol: GroupProtocol = "auto"
    takeover_s: float = 3.0
    slack_s: float = 4.0

    @classmethod
    def new(cls, servers: str, group_protocol: GroupProtocol = "auto") -> "KafkaStation":
        """With nothing in it: its topics are its own."""
        return cls(servers, f"test-{uuid4().hex[:12]}", group_protocol)

    def open(self) -> KafkaBroker:
        return KafkaBroker(
            self.servers,
            takeover_s=self.takeover_s,
            work_partitions=4,
            group_protocol=self.group_protocol,
            prefix=self.prefix,
        )

    def _topic(self, kind: Kind, model: str) -> str:
        return f"{self.prefix}.{kind}.{model}"

    def stored(self, kind: Kind, model: str) -> Sequence[str]:
        topic = self._topic(kind, model)
        consumer: Any = Consumer({"bootstrap.servers": self.servers, "group.id": "t", "enable.partition.eof": True})
        try:
            partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
            found: list[Any] = []
            ended: set[int] = set()
            deadline = time.monotonic() + 10
            while len(ended) < len(partitions):
                assert time.monotonic() < deadline, f"{topic} could not be read to its end"
                message = consumer.poll(0.2)
                if message is not None and message.error() is None:
                    found.append(message)
                elif message is not None and message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        finally:
            consumer.close()
        return [message.value().decode() for message in sorted(found, key=lambda message: message.timestamp()[1])]

    def plant(self, kind: Kind, model: str, raw: str, lane: int = 0) -> None:
        producer: Any = Producer({"bootstrap.servers": self.servers})
        producer.produce(self._topic(kind, model), raw.encode(), partition=lane)
        assert producer.flush(5) == 0
