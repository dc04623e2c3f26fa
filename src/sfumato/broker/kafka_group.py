"""Being one of a group: which of its consumers holds which partition, and what they commit."""

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from sfumato.broker.kafka_client import ANSWER_S, polled

__all__ = ["Member", "silence"]

log = logging.getLogger(__name__)

BUFFER: Final = 2_000
RETRY_S: Final = 0.1
UNANSWERED_S: Final = 2.0
COMMIT_SLICE_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class _Told:
    """What to commit of one partition; a later one has a higher `serial`."""

    serial: int
    offset: int
    metadata: str


class Member:
    """A consumer in a group, with what it polled and was not yet taken. Touched by one thread alone.

    `assigned` is partition → number of its assignment: a partition that was lost and came back has another number.
    `read` is partition → offset up to which it was polled. `broken` says why it will never work again, if so.
    """

    def __init__(self, config: Mapping[str, Any], topic: str, first_assignment: int) -> None:
        """Raises KafkaException when the client refuses its settings."""
        self._topic = topic
        self._number = first_assignment - 1
        self.assigned: dict[int, int] = {}
        self.read: dict[int, int] = {}
        self._buffer: deque[Any] = deque()
        self._given: list[Any] = []
        self._given_to = 0
        self._paused = False
        self.broken = ""
        self._serial = 0
        self._wanted: dict[int, _Told] = {}
        self._sent: dict[int, _Told] = {}
        self._sent_at = self._retry_at = 0.0
        self._confirmed: dict[int, int] = {}
        self._consumer: Any = Consumer({**config, "on_commit": self._committed})
        self._consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    @property
    def next_assignment(self) -> int:
        """The number that the next assignment gets."""
        return self._number + 1

    # Called back by the client inside a poll. What a callback raises would come out of that poll, so none raises.

    def _assign(self, _: Any, partitions: Sequence[Any]) -> None:
        self._number += 1
        self.assigned.update((place.partition, self._number) for place in partitions)

    def _revoke(self, _: Any, partitions: Sequence[Any]) -> None:
        for place in partitions:
            for kept in (self.assigned, self.read, self._wanted, self._confirmed):
                kept.pop(place.partition, None)
        self._buffer = deque(message for message in self._buffer if message.partition() in self.assigned)
        # What a partition gave before it was lost comes again by itself.
        self._given = [message for message in self._given if message.partition() in self.assigned]

    def _committed(self, error: Any, partitions: Sequence[Any]) -> None:
        offsets = {place.partition: place.offset for place in partitions or ()}
        if offsets != {partition: told.offset for partition, told in self._sent.items()}:
            return  # The late answer of a round that was given up.
        error = error or next((place.error for place in partitions if place.error is not None), None)
        if error is not None:
            log.info("commit of %s is tried again: %s", self._topic, error)
            self._retry_at = time.monotonic() + RETRY_S
        for partition, told in self._sent.items() if error is None else ():
            self._confirmed[partition] = told.serial
            if self._wanted.get(partition) == told:
                del self._wanted[partition]
        self._sent = {}

    # Reading

    def poll(self, pause_s: float) -> None:
        """Serve the client: messages into the buffer, commits on their way, assignments as they change."""
        self._send_commit()
        self._throttle()
        # A poll doesn't end when a commit is answered.
        pause_s = min(pause_s, COMMIT_SLICE_S) if self._sent else pause_s
        for message in polled(self._consumer, pause_s, max(1, BUFFER - len(self._buffer))):
            error = message.error()
            if error is None:
                self._keep(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                partition = message.partition()
                if partition in self.assigned:
                    self.read[partition] = max(self.read.get(partition, 0), message.offset())
            else:
                log.warning("reading %s: %s", self._topic, error)
                if error.fatal():
                    self.broken = error.str()

    def _keep(self, message: Any) -> None:
        # Polled in one round with a revocation, it may come from a partition that is no longer ours.
        if message.partition() in self.assigned:
            self._buffer.append(message)
            self.read[message.partition()] = message.offset() + 1

    def _throttle(self) -> None:
        """A full buffer must not stop the polling: it is what keeps the member in its group."""
        full = len(self._buffer) >= BUFFER
        if full:
            self._consumer.pause(self._consumer.assignment())
        elif self._paused:
            self._consumer.resume(self._consumer.assignment())
        self._paused = full

    def take(self, limit: int, call: int, heard: int) -> list[Any]:
        """The next messages of partitions that are assigned, at most `limit`, for the caller's call number `call`.

        `heard` is the number of the last call whose answer reached the caller: what a later one took comes again.
        """
        if self._given_to > heard:
            self._buffer.extendleft(reversed(self._given))
        self._given = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._given_to = call
        return self._given

    def begun(self, partition: int) -> tuple[int, str]:
        """The group's committed offset and metadata (0 and "" at first). Raises KafkaException when it is not told."""
        (place,) = self._consumer.committed([TopicPartition(self._topic, partition)], timeout=ANSWER_S)
        if place.error is not None:
            raise KafkaException(place.error)
        return max(0, int(place.offset)), str(place.metadata or "")

    # Committing

    def commit(self, partition: int, offset: int, metadata: str = "") -> int:
        """Have it committed in the next round, and again until it is; the number that `confirmed` will give then."""
        self._serial += 1
        self._wanted[partition] = _Told(self._serial, offset, metadata)
        return self._serial

    def confirmed(self, partition: int) -> int:
        """Number of the last commit of this assignment that the group has; 0: none."""
        return self._confirmed.get(partition, 0)

    def _send_commit(self) -> None:
        now = time.monotonic()
        if self._sent and now - self._sent_at > UNANSWERED_S:
            self._sent = {}
        # One round at a time: in which order two are answered is not promised.
        if self._sent or not self._wanted or now < self._retry_at:
            return
        self._sent, self._sent_at = dict(self._wanted), now
        places = [TopicPartition(self._topic, p, told.offset, told.metadata) for p, told in self._sent.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            log.info("commit of %s is tried again: %s", self._topic, error)
            self._sent, self._retry_at = {}, now + RETRY_S

    def leave(self) -> None:
        """Leave the group, so that others get what this one held at once."""
        self._consumer.close()


def silence(now: float, asked_at: float, polled_at: float, takeover_s: float) -> str:
    """Why a member must leave: nobody asked it, or nobody polled it, for `takeover_s`; "" when it may stay. Seconds."""
    if now - asked_at > takeover_s:
        # Merely polling it would stay in the group, and block the place for who asks.
        return "its caller fell silent"
    return "its thread was stopped for longer than a session" if now - polled_at > takeover_s else ""
