"""The jobs log over Kafka: a topic of one partition, whose one consumer in the group is the reader."""

import logging
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

from confluent_kafka import KafkaException

from sfumato.broker.kafka_client import Config, trouble
from sfumato.broker.kafka_follower import KafkaFollower
from sfumato.broker.kafka_group import Member, silence
from sfumato.broker.kafka_producer import KafkaProducer, Record
from sfumato.broker.kafka_protocol import Groups
from sfumato.broker.kafka_thread import Keeper, Not
from sfumato.broker.kafka_topics import Topic, Topics
from sfumato.core.errors import Deposed
from sfumato.core.events import Unreadable, decode_job
from sfumato.core.job import Job
from sfumato.core.ports import Batch, Lead, Logged

__all__ = ["KafkaJobs"]

log = logging.getLogger(__name__)

ONLY: Final = 0
"""The one partition of a jobs topic."""


class _Place:
    """One process's claim to be the reader; touched by one thread alone."""

    def __init__(self, topic: str, takeover_s: float) -> None:
        self.topic, self._takeover_s = topic, takeover_s
        self.member: Member | None = None
        self._assignment = 0
        self._leads = False
        self._asked_at = self._polled_at = time.monotonic()

    def stand(self, settings: Config, now: float) -> None:
        """Be a candidate from now on; who leads already gives that up and begins anew."""
        if self._leads or self.member is None:
            self.leave("leads again")
            self.member = Member(settings, self.topic, 1)
            self._polled_at = now
        self._asked_at = now

    def take_lead(self, now: float) -> Lead | None:
        """The lead, if the group has given us the partition. Raises KafkaException when the commit is not told."""
        self._asked_at = now
        if self.member is None or ONLY not in self.member.assigned:
            return None
        self._assignment = self.member.assigned[ONLY]
        position, metadata = self.member.begun(ONLY)
        self.member.read[ONLY] = max(position, self.member.read.get(ONLY, 0))
        self._leads = True
        return Lead(position, metadata)

    def held(self) -> Member:
        """The member, which is the reader.

        Raises:
            Deposed: it is not.
        """
        if self.member is None or not self._leads or self.member.assigned.get(ONLY) != self._assignment:
            raise Deposed(f"this process does not read {self.topic}; lead again, from the committed position.")
        return self.member

    def take(self, limit: int, call: int, heard: int, now: float) -> list[Any]:
        """The next messages, as Member.take. Raises Deposed when this is not the reader."""
        self._asked_at = now
        return self.held().take(limit, call, heard)

    def poll(self, pause_s: float) -> None:
        if self.member is None:
            return
        now = time.monotonic()
        why = silence(now, self._asked_at, self._polled_at, self._takeover_s) or self.member.broken
        if why or (self._leads and self.member.assigned.get(ONLY) != self._assignment):
            self.leave(why or "another took over")
        else:
            self._polled_at = now
            self.member.poll(pause_s)

    def leave(self, why: str) -> None:
        """Hold nothing, and be no candidate."""
        if self.member is not None:
            log.info("leaves %s: %s", self.topic, why)
            self.member.leave()
        self.member, self._leads = None, False

    def close(self) -> None:
        self.leave("closed")


class _Lead:
    """One call of `lead`, as a look."""

    def __init__(self, settings: Config, wait_s: float) -> None:
        self._settings, self._wait_s = settings, wait_s
        self._until: float | None = None

    def __call__(self, place: _Place, now: float) -> Lead | Literal[Not.YET] | None:
        if self._until is None:
            self._until = now + self._wait_s
            place.stand(self._settings, now)
        try:
            lead = place.take_lead(now)
        except KafkaException as error:
            raise trouble(f"tell what was committed of {place.topic}", error) from error
        return lead if lead is not None or now >= self._until else Not.YET


class _Read:
    """One call of `read`, as a look. Nothing is given only after the broker said where the log ends."""

    def __init__(self, topics: Topics, limit: int, wait_s: float, call: int, heard: int) -> None:
        self._topics, self._limit, self._wait_s = topics, limit, wait_s
        self._call, self._heard = call, heard
        self._until: float | None = None
        self._end: int | None = None

    def __call__(self, place: _Place, now: float) -> Sequence[Logged[Job | Unreadable]] | Literal[Not.YET]:
        if self._until is None:
            self._until = now + self._wait_s
        taken = place.take(self._limit, self._call, self._heard, now)
        if taken:
            return [Logged(message.offset() + 1, decode_job(message.value() or b"")) for message in taken]
        if now < self._until:
            return Not.YET
        if self._end is None:
            self._end = self._topics.ends(place.topic)[ONLY]
        return [] if place.held().read.get(ONLY, 0) >= self._end else Not.YET


class _Commit:
    """One call of `commit`, as a look."""

    def __init__(self, position: int, metadata: str) -> None:
        self._position, self._metadata = position, metadata
        self._number: int | None = None

    def __call__(self, place: _Place, now: float) -> Literal[Not.YET] | None:
        member = place.held()
        if self._number is None:
            self._number = member.commit(ONLY, self._position, self._metadata)
        return None if member.confirmed(ONLY) >= self._number else Not.YET


class KafkaJobs:
    """One process's end of a model's jobs log (core.ports.JobsLog)."""

    def __init__(
        self,
        topic: Topic,
        topics: Topics,
        producer: KafkaProducer,
        groups: Groups,
        follower: KafkaFollower[Job | Unreadable],
    ) -> None:
        self.takeover_s = groups.takeover_s
        self._topic, self._topics, self._producer, self._groups = topic, topics, producer, groups
        self._follower = follower
        self._place = Keeper(f"reader of {topic.name}", _Place(topic.name, groups.takeover_s))
        self._calls = self._heard = 0

    async def publish(self, job: Job) -> None:
        await self._producer.send(self._topic, [Record(job.model_dump_json().encode(), partition=ONLY)])

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[Job | Unreadable]:
        return await self._follower.follow(after, limit, wait_s)

    async def end(self) -> str:
        return await self._follower.end()

    async def last(self) -> int:
        return (await self._topics.ends_now(self._topic))[ONLY]

    async def lead(self, wait_s: float) -> Lead | None:
        await self._topics.ready(self._topic)
        settings = await self._groups.settings(self._topic.name)
        return await self._place.ask(_Lead(settings, wait_s), wait_s)

    async def read(self, limit: int, wait_s: float) -> Sequence[Logged[Job | Unreadable]]:
        call = self._calls = self._calls + 1
        found = await self._place.ask(_Read(self._topics, limit, wait_s, call, self._heard), wait_s)
        self._heard = call
        return found

    async def commit(self, position: int, metadata: str) -> None:
        await self._place.ask(_Commit(position, metadata))

    async def close(self) -> None:
        await self._place.close()
        await self._follower.close()
