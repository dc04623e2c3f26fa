"""Topics: what each is for, how it is made when it is missing, and where it ends."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic, OffsetSpec

from sfumato.broker.kafka_client import ANSWER_S, Access, trouble
from sfumato.core.errors import TransientError

__all__ = ["EVENT_PARTITIONS", "Topic", "Topics"]

log = logging.getLogger(__name__)

EVENT_PARTITIONS: Final = 4
"""Partitions of an event topic. Never changed for a topic that exists: a job's events would change their partition."""
MAKE_S: Final = 10.0
LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it should be. `grows`: partitions may be added later, because nothing is placed by its key."""

    name: str
    partitions: int
    keep_s: float
    grows: bool = False


class Topics:
    """Sees to it that a topic is there before it is used; any number of processes may do so at once.

    `admin` is the client that asks and manages: its calls block, any thread may make them.
    """

    def __init__(self, access: Access, replication: int, within_s: float) -> None:
        self.replication, self._within_s = replication, within_s
        self.admin: Any = access.admin()
        self._counts: dict[str, int] = {}
        self._making: dict[str, asyncio.Task[int]] = {}
        self._closing = threading.Event()

    async def ready(self, topic: Topic) -> int:
        """Make it if it is missing; how many partitions it has.

        Raises:
            TransientError: Kafka did not show it in the time a call has.
        """
        count = self._counts.get(topic.name)
        if count is not None:
            return count
        making = self._making.get(topic.name)
        if making is None:
            making = self._making[topic.name] = asyncio.create_task(asyncio.to_thread(self._make, topic))
            making.add_done_callback(lambda done: self._made(topic.name, done))
        try:
            # Who waits may give up; the making goes on for all who wait, and for the next one.
            async with asyncio.timeout(self._within_s):
                return await asyncio.shield(making)
        except TimeoutError as error:
            detail = f"Kafka did not show topic {topic.name} within {self._within_s:g} s; try again."
            raise TransientError(detail) from error

    def _made(self, name: str, done: "asyncio.Task[int]") -> None:
        del self._making[name]
        if not done.cancelled() and done.exception() is None:
            self._counts[name] = done.result()

    def gone(self, name: str) -> None:
        """It may be no longer there: the next who needs it looks, and makes it anew."""
        self._counts.pop(name, None)

    def ends(self, name: str) -> Mapping[int, int]:
        """Partition → the offset that its next message will have. Blocks; any thread may call it.

        Raises:
            TransientError: Kafka did not say.
        """
        partitions = range(self._counts.get(name, 0))
        asked = {TopicPartition(name, partition): OffsetSpec.latest() for partition in partitions}
        if not asked:
            raise TransientError(f"topic {name} is gone from Kafka; it is made anew by the next who writes to it.")
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                answers = self.admin.list_offsets(asked, request_timeout=ANSWER_S)
                return {place.partition: answer.result(ANSWER_S).offset for place, answer in answers.items()}
            except (KafkaException, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise trouble(f"say where {name} ends", error) from error
            self._look_again()

    def _look_again(self) -> None:
        """Learn who leads which partition now: the client would ask those it knows until its next refresh."""
        self._closing.wait(LOOK_S)
        with contextlib.suppress(KafkaException):
            self.admin.list_topics(timeout=ANSWER_S)

    async def ends_now(self, topic: Topic) -> Mapping[int, int]:
        """As `ends`, of a topic that may be missing yet."""
        await self.ready(topic)
        return await asyncio.to_thread(self.ends, topic.name)

    async def listed(self) -> None:
        """Have all topics listed. Raises TransientError when Kafka does not answer."""
        try:
            await asyncio.to_thread(self.admin.list_topics, timeout=ANSWER_S)
        except KafkaException as error:
            raise trouble("answer", error) from error

    async def close(self) -> None:
        """Give up what is being made."""
        self._closing.set()
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    # On a thread

    def _make(self, topic: Topic) -> int:
        deadline = time.monotonic() + MAKE_S
        while True:
            try:
                found = self._found(topic.name)
                if found >= topic.partitions or (found and not topic.grows):
                    return found
                if found:
                    self._expand(topic)
                else:
                    self._create(topic)
            except KafkaException as error:
                if time.monotonic() > deadline or self._closing.is_set():
                    advice = f"{self.replication} copies of each topic need as many brokers"
                    raise trouble(f"make topic {topic.name}; {advice}", error) from error
            if time.monotonic() > deadline:
                raise TransientError(f"Kafka made topic {topic.name} but does not show it; try again.")
            self._closing.wait(LOOK_S)

    def _found(self, name: str) -> int:
        """Its partitions, 0 when it is missing or a partition has no leader yet."""
        # All topics are listed, because asking for one by name may make it, with a broker's defaults.
        topic = self.admin.list_topics(timeout=ANSWER_S).topics.get(name)
        if topic is None or topic.error is not None or any(p.leader < 0 for p in topic.partitions.values()):
            return 0
        return len(topic.partitions)

    def _create(self, topic: Topic) -> None:
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(int(topic.keep_s * 1_000)),
            "retention.bytes": "-1",
            "min.insync.replicas": str(max(1, self.replication - 1)),
        }
        new = NewTopic(topic.name, topic.partitions, self.replication, config=config)
        self._done(self.admin.create_topics([new], request_timeout=2 * ANSWER_S), KafkaError.TOPIC_ALREADY_EXISTS)

    def _expand(self, topic: Topic) -> None:
        new = NewPartitions(topic.name, topic.partitions)
        # Refused as invalid: another process was quicker.
        self._done(self.admin.create_partitions([new], request_timeout=2 * ANSWER_S), KafkaError.INVALID_PARTITIONS)

    @staticmethod
    def _done(answers: Mapping[str, Any], harmless: int) -> None:
        for name, answer in answers.items():
            try:
                answer.result(3 * ANSWER_S)
                log.info("made topic %s", name)
            except KafkaException as error:
                if error.args[0].code() != harmless:
                    raise
