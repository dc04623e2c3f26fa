"""The event log over Kafka: a topic of several partitions, in which all events of a job share one."""

from collections.abc import Sequence

from sfumato.broker.kafka_follower import KafkaFollower
from sfumato.broker.kafka_producer import KafkaProducer, Record
from sfumato.broker.kafka_topics import Topic
from sfumato.core.events import Alive, Event, Standing, Unreadable
from sfumato.core.ports import Batch

__all__ = ["KafkaEvents"]


class KafkaEvents:
    """One process's end of a model's event log (core.ports.EventLog)."""

    def __init__(self, topic: Topic, producer: KafkaProducer, follower: KafkaFollower[Event | Unreadable]) -> None:
        self._topic, self._producer, self._follower = topic, producer, follower

    async def append(self, events: Sequence[Event]) -> None:
        if events:
            records = [Record(event.model_dump_json().encode(), self._key(event)) for event in events]
            await self._producer.send(self._topic, records)

    def _key(self, event: Event) -> str:
        """Whose events keep their order: a job's, a worker's, the model's."""
        if isinstance(event, Alive):
            return event.worker
        return self._topic.name if isinstance(event, Standing) else event.job_id

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[Event | Unreadable]:
        return await self._follower.follow(after, limit, wait_s)

    async def end(self) -> str:
        return await self._follower.end()

    async def close(self) -> None:
        """Close its consumers."""
        await self._follower.close()
