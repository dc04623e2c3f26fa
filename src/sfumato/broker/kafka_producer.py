"""One producer a process: records in, acknowledged when every replica in sync has them."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from sfumato.broker.kafka_client import Access, trouble
from sfumato.core.errors import TransientError

__all__ = ["KafkaProducer", "Record"]

POLL_S: Final = 0.2
FLUSH_S: Final = 2.0
GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


@dataclass(frozen=True, slots=True)
class Record:
    """One message. Its partition is given, or follows from its key."""

    topic: str
    value: bytes
    key: str = ""
    partition: int | None = None


@dataclass(slots=True)
class _Sending:
    """What one `send` waits for. Touched on the loop only."""

    left: int
    done: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Landed:
    sending: _Sending
    topic: str
    error: Any


class KafkaProducer:
    """Sends for one event loop; a thread of its own hears of deliveries.

    A record's fate is unknown `within_s` seconds after it was given, whatever the brokers do. `gone` is told the name
    of a topic that is no longer there.
    """

    def __init__(self, access: Access, within_s: float, gone: Callable[[str], None]) -> None:
        self._access, self._within_s, self._gone = access, within_s, gone
        self._producer: Any = None
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._landed: deque[_Landed] = deque()
        self._waking = False
        self._closed = False

    async def send(self, records: Sequence[Record]) -> None:
        """Hand all of them over at once, in order; durable when this returns.

        Raises:
            TransientError: some, all or none are stored, or will be yet.
        """
        sending = _Sending(len(records), asyncio.get_running_loop().create_future())
        for record in records:
            self._produce(record, sending)
        try:
            async with asyncio.timeout(self._within_s):
                await sending.done
        except TimeoutError as error:
            raise TransientError(f"Kafka did not acknowledge within {self._within_s:g} s; try again.") from error

    def _produce(self, record: Record, sending: _Sending) -> None:
        def delivered(error: Any, message: Any) -> None:
            self._land(_Landed(sending, record.topic, error))

        producer = self._opened()
        place = {} if record.partition is None else {"partition": record.partition}
        try:
            producer.produce(record.topic, record.value, record.key or None, on_delivery=delivered, **place)
        except BufferError as error:
            raise TransientError("too many messages wait for Kafka already; try again.") from error
        except KafkaException as error:
            self._learn(record.topic, error.args[0])
            raise trouble("take a message", error) from error

    def _opened(self) -> Any:
        if self._closed:
            raise TransientError("this broker was closed; open another one.")
        if self._producer is None:
            self._loop = asyncio.get_running_loop()
            self._producer = Producer(self._access.producer(self._within_s))
            thread = threading.Thread(target=self._hear, args=(self._producer,), name="kafka-producer", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self._producer

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
                self._learn(landed.topic, error)
            if sending.done.done():
                continue
            if error is not None:
                sending.done.set_exception(trouble("acknowledge a message", error))
            elif sending.left == 0:
                sending.done.set_result(None)

    def _learn(self, topic: str, error: Any) -> None:
        if error.code() in GONE:
            self._gone(topic)
        if error.fatal() or error.code() == KafkaError._FATAL:
            # Such a producer never sends again. Its thread ends by itself, the next record opens another one.
            self._producer = None

    async def close(self) -> None:
        """Send what was handed over, for FLUSH_S at the longest."""
        self._closed, self._producer = True, None
        for thread in self._threads:
            await asyncio.to_thread(thread.join, FLUSH_S + 1.0)
