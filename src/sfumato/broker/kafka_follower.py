"""Reading a topic from any place, beside any number of others: a consumer without a group, by a cursor."""

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, TopicPartition

from sfumato.broker.kafka_client import Access, polled
from sfumato.broker.kafka_thread import Keeper, Not
from sfumato.broker.kafka_topics import Topic, Topics
from sfumato.core.errors import UnusableStore
from sfumato.core.ports import Batch, Logged

__all__ = ["KafkaFollower", "cursor_of"]

log = logging.getLogger(__name__)

T = TypeVar("T")

BUFFER: Final = 2_000
"""Messages read ahead; behind them librdkafka has a few MiB more."""


def cursor_of(places: Mapping[int, int]) -> str:
    """Partition → next offset, as a cursor."""
    return json.dumps(dict(sorted(places.items())), separators=(",", ":"))


def _places(cursor: str) -> dict[int, int]:
    try:
        return {int(partition): int(offset) for partition, offset in json.loads(cursor or "{}").items()}
    except (ValueError, AttributeError) as error:
        detail = f"cursor {cursor!r} was not made by Kafka; begin with a database that was never fed by another broker."
        raise UnusableStore(detail) from error


class _Reading:
    """A consumer and where it stands; touched by one thread alone."""

    def __init__(self, access: Access, topic: str, partitions: int, ends: Callable[[], Mapping[int, int]]) -> None:
        self._access, self._topic, self._partitions = access, topic, partitions
        self.ends = ends
        self._consumer: Any = None
        self._buffer: deque[Any] = deque()
        self._given: dict[int, int] = {}
        self._read: dict[int, int] = {}

    def go(self, cursor: str) -> None:
        """Stand at `cursor`; costs nothing where it stands already."""
        places = _places(cursor)
        if self._consumer is None:
            # A group id is asked for and not used: this consumer is in no group.
            self._consumer = Consumer(self._access.consumer("sfumato-follower"))
        elif places == self._given:
            return
        self._buffer.clear()
        self._given, self._read = dict(places), dict(places)
        # From 0 and not from "the beginning", which the client first has to ask for. Where that expired the broker says
        # so, and the client begins at the oldest.
        self._consumer.assign([TopicPartition(self._topic, p, places.get(p, 0)) for p in range(self._partitions)])

    def poll(self, pause_s: float) -> None:
        if self._consumer is None or len(self._buffer) >= BUFFER:
            return
        for message in polled(self._consumer, pause_s, BUFFER - len(self._buffer)):
            error = message.error()
            if error is None:
                self._buffer.append(message)
                self._read[message.partition()] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Where everything expired no message tells how far it goes.
                partition = message.partition()
                self._read[partition] = max(self._read.get(partition, 0), message.offset())
            else:
                log.warning("following %s: %s", self._topic, error)

    def take(self, limit: int) -> list[Any]:
        """The next messages, at most `limit`."""
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        for message in taken:
            self._given[message.partition()] = message.offset() + 1
        return taken

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether all before `ends` was given."""
        if self._buffer or any(self._read.get(partition, 0) < end for partition, end in ends.items()):
            return False
        self._given = dict(self._read)
        return True

    @property
    def cursor(self) -> str:
        return cursor_of(self._given)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()


class _Follow(Generic[T]):
    """One call of `follow`, as a look."""

    def __init__(self, after: str, limit: int, wait_s: float, decode: Callable[[bytes], T]) -> None:
        self._after, self._limit, self._wait_s, self._decode = after, limit, wait_s, decode
        self._until: float | None = None
        self._ends: Mapping[int, int] | None = None

    def __call__(self, reading: _Reading, now: float) -> Batch[T] | Literal[Not.YET]:
        if self._until is None:
            self._until = now + self._wait_s
            reading.go(self._after)
        if taken := reading.take(self._limit):
            items = [Logged(message.offset() + 1, self._decode(message.value() or b"")) for message in taken]
            return Batch(items, reading.cursor)
        if now < self._until:
            return Not.YET
        # That a poll found nothing says little; only the broker knows where the log ends.
        self._ends = self._ends or reading.ends()
        return Batch([], reading.cursor) if reading.reached(self._ends) else Not.YET


class KafkaFollower(Generic[T]):
    """One process's way to follow one topic (core.ports.Follower).

    A consumer stays open between calls, so following on costs no more than taking what came meanwhile. Calls at
    the same time have a consumer each.
    """

    def __init__(self, access: Access, topics: Topics, topic: Topic, decode: Callable[[bytes], T]) -> None:
        self._access, self._topics, self._topic, self._decode = access, topics, topic, decode
        self._keepers: list[Keeper[_Reading]] = []
        self._idle: list[Keeper[_Reading]] = []

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[T]:
        partitions = await self._topics.ready(self._topic)
        keeper = self._idle.pop() if self._idle else self._open(partitions)
        try:
            return await keeper.ask(_Follow(after, limit, wait_s, self._decode), wait_s)
        finally:
            self._idle.append(keeper)

    def _open(self, partitions: int) -> Keeper[_Reading]:
        name = self._topic.name
        reading = _Reading(self._access, name, partitions, lambda: self._topics.ends(name))
        keeper = Keeper(f"follower of {name}", reading)
        self._keepers.append(keeper)
        return keeper

    async def end(self) -> str:
        return cursor_of(await self._topics.ends_now(self._topic))

    async def close(self) -> None:
        """Close the consumers."""
        for keeper in self._keepers:
            await keeper.close()
