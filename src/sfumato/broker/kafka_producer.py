"""One producer a process: records in, acknowledged when every replica in sync has them."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from sfumato.broker.kafka_client import Access, refused, trouble
from sfumato.broker.kafka_topics import Topic, Topics
from sfumato.core.errors import TransientError

__all__ = ["KafkaProducer", "Record"]

POLL_S: Final = 0.2
FLUSH_S: Final = 2.0
GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


@dataclass(frozen=True, slots=True)
class Record:
    """One message. Its partition is given, or follows from its key."""

    value: bytes
    key: str = ""
    partition: int | None = None


@dataclass(slots=True)
class _Sending:
    """What one `send` waits for. Touched on the loop only."""

    topic: str
    left: int
    done: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Landed:
    sending: _Sending
    error: Any


class KafkaProducer:
    """Sends for one event loop; a thread of its own hears of deliveries.

    A record's fate is unknown `within_s` seconds after it was given, whatever the brokers do. The client is opened at
    once, because the brokers need half a second to know it.

    Raises:
        UnusableStore: the client refuses its settings.
    """

    def __init__(self, access: Access, topics: Topics, within_s: float) -> None:
        self._access, self._topics, self._within_s = access, topics, within_s
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._landed: deque[_Landed] = deque()
        self._waking = False
        self._closed = False
        self._producer: Any = self._open()

    def _open(self) -> Any:
        try:
            self._producer = Producer(self._access.producer(self._within_s))
        except KafkaException as error:
            raise refused(error) from error
        thread = threading.Thread(target=self._hear, args=(self._producer,), name="kafka-producer", daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._producer

    async def send(self, topic: Topic, records: Sequence[Record]) -> None:
        """Hand all of them over at once, in order; durable when this returns. The topic is made when it is missing.

        Raises:
            TransientError: some, all or none are stored, or will be yet.
        """
        if self._closed:
            raise TransientError("this broker was closed; open another one.")
        try:
            async with asyncio.timeout(self._within_s):
                await self._topics.ready(topic)
                await self._produce(topic.name, records)
        except TimeoutError as error:
            # To a topic that was deleted the client sends until the time is over, as to brokers that are away.
            self._topics.gone(topic.name)
            raise TransientError(f"Kafka did not acknowledge within {self._within_s:g} s; try again.") from error

    def _produce(self, topic: str, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Hand them to the client; the future tells when all have landed, or the first trouble."""
        self._loop = asyncio.get_running_loop()
        sending = _Sending(topic, len(records), self._loop.create_future())

        def delivered(error: Any, _: Any) -> None:
            self._land(_Landed(sending, error))

        try:
            for record in records:
                place = {} if record.partition is None else {"partition": record.partition}
                self._producer.produce(topic, record.value, record.key or None, on_delivery=delivered, **place)
        except BufferError as error:
            raise TransientError("too many messages wait for Kafka already; try again.") from error
        except KafkaException as error:
            self._learn(topic, error.args[0])
            raise trouble("take a message", error) from error
        return sending.done

    # On the thread

    def _hear(self, producer: Any) -> None:
        while producer is self._producer:
            producer.poll(POLL_S)
        producer.flush(FLUSH_S)

    def _land(self, landed: _Landed) -> None:
        """A delivery's answer; one wake-up for all that came since the loop last looked. Never raises."""
        self._landed.append(landed)
        if self._waking or self._loop is None:
            return
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._settle)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            self._waking = False

    # On the loop

    def _settle(self) -> None:
        # Lowered first: what lands from now on wakes the loop again, what landed before is taken below.
        self._waking = False
        while self._landed:
            landed = self._landed.popleft()
            sending, error = landed.sending, landed.error
            sending.left -= 1
            if error is not None:
                self._learn(sending.topic, error)
            if sending.done.done():
                continue
            if error is not None:
                sending.done.set_exception(trouble("acknowledge a message", error))
            elif sending.left == 0:
                sending.done.set_result(None)

    def _learn(self, topic: str, error: Any) -> None:
        if error.code() in GONE:
            self._topics.gone(topic)
        if error.fatal() or error.code() == KafkaError._FATAL:
            # Such a producer never sends again; its thread ends by itself.
            self._open()

    async def close(self) -> None:
        """Send what was handed over, for FLUSH_S at the longest."""
        self._closed, self._producer = True, None
        for thread in self._threads:
            await asyncio.to_thread(thread.join, FLUSH_S + 1.0)
