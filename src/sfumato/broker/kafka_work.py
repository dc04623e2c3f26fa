"""The work queue over Kafka: a lane is a partition, held by whom the group gave it."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from sfumato.broker.kafka_client import Config
from sfumato.broker.kafka_group import Member, silence
from sfumato.broker.kafka_producer import KafkaProducer, Record
from sfumato.broker.kafka_protocol import Groups
from sfumato.broker.kafka_thread import Keeper, Not
from sfumato.broker.kafka_topics import Topic, Topics
from sfumato.broker.offsets import OffsetTracker
from sfumato.core.events import decode_work
from sfumato.core.job import DeadLetter, Work
from sfumato.core.ports import Received

__all__ = ["KafkaWork"]

log = logging.getLogger(__name__)


class _Lane:
    """A partition since it was assigned to us. What lies below the offset `mark` was there before."""

    def __init__(self, assignment: int, mark: int) -> None:
        self.assignment, self.mark = assignment, mark
        self._tracker = OffsetTracker(0)
        self._seen = self._committing = self._commit = 0

    def see(self, position: int) -> None:
        """It is given to the caller, perhaps again."""
        if position > self._seen:
            self._tracker.register(position)
            self._seen = position

    def decide(self, position: int, commit: Callable[[int], int]) -> int:
        """It is done with. `commit` gets the next offset when the prefix has grown; the number of the latest commit."""
        self._tracker.decide(position)
        if self._tracker.committable > self._committing:
            self._committing = self._tracker.committable
            # A position is its offset + 1, which is the next offset: what a commit names.
            self._commit = commit(self._committing)
        return self._commit


class _Lanes:
    """The lanes of one receiver; touched by one thread alone."""

    def __init__(self, topics: Topics, topic: str, takeover_s: float) -> None:
        self._topics, self._topic, self._takeover_s = topics, topic, takeover_s
        self.member: Member | None = None
        self._lanes: dict[int, _Lane] = {}
        self._next_assignment = 1
        self._asked_at = self._polled_at = time.monotonic()

    def join(self, settings: Config, now: float) -> None:
        """Show that the caller lives; join the group if we are not in it."""
        self._asked_at = now
        if self.member is None:
            self.member = Member(settings, self._topic, self._next_assignment)
            self._polled_at = now

    def take(self, limit: int, call: int, heard: int, now: float) -> list[Received]:
        """The next of the lanes held, as Member.take.

        Raises:
            TransientError: it is not known how full a new lane was; nothing was taken.
        """
        self._asked_at = now
        if self.member is None:
            return []
        self._mark_new_lanes(self.member)
        return [self._received(message) for message in self.member.take(limit, call, heard)]

    def _mark_new_lanes(self, member: Member) -> None:
        self._lanes = {p: lane for p, lane in self._lanes.items() if member.assigned.get(p) == lane.assignment}
        fresh = member.assigned.keys() - self._lanes.keys()
        if fresh:
            # Asked before the lane is told to anybody, so what was handed to us lies behind it.
            ends = self._topics.ends(self._topic)
            self._lanes |= {p: _Lane(member.assigned[p], ends[p]) for p in fresh}

    def _received(self, message: Any) -> Received:
        partition, offset = message.partition(), message.offset()
        lane = self._lanes[partition]
        lane.see(offset + 1)
        receipt = f"{lane.assignment}:{partition}:{offset + 1}"
        return Received(decode_work(message.value() or b""), receipt, left_over=offset < lane.mark)

    @property
    def held(self) -> frozenset[int]:
        return frozenset(self._lanes)

    def decide(self, assignment: int, partition: int, position: int) -> int | None:
        """It is done with; the number of the commit that tells so. None: the lane was lost since."""
        lane, member = self._lanes.get(partition), self.member
        if lane is None or member is None or not self.confirmed(assignment, partition, 0):
            return None
        return lane.decide(position, lambda offset: member.commit(partition, offset))

    def confirmed(self, assignment: int, partition: int, number: int) -> bool | None:
        """Whether the group has this commit. None: the lane was lost since."""
        lane = self._lanes.get(partition)
        if self.member is None or lane is None or lane.assignment != assignment:
            return None
        if self.member.assigned.get(partition) != assignment:
            return None
        return self.member.confirmed(partition) >= number

    def poll(self, pause_s: float) -> None:
        if self.member is None:
            return
        now = time.monotonic()
        if why := silence(now, self._asked_at, self._polled_at, self._takeover_s) or self.member.broken:
            self.leave(why)
        else:
            self._polled_at = now
            self.member.poll(pause_s)

    def leave(self, why: str) -> None:
        """Give all lanes up."""
        if self.member is not None:
            log.info("leaves %s: %s", self._topic, why)
            self.member.leave()
            self._next_assignment = self.member.next_assignment
        self.member, self._lanes = None, {}

    def close(self) -> None:
        self.leave("closed")


class _Receive:
    """One call of `receive`, as a look: what came, and the lanes held."""

    def __init__(self, settings: Config, limit: int, wait_s: float, call: int, heard: int) -> None:
        self._settings, self._limit, self._wait_s = settings, limit, wait_s
        self._call, self._heard = call, heard
        self._until: float | None = None

    def __call__(self, lanes: _Lanes, now: float) -> tuple[list[Received], frozenset[int]] | Literal[Not.YET]:
        if self._until is None:
            self._until = now + self._wait_s
            lanes.join(self._settings, now)
        taken = lanes.take(self._limit, self._call, self._heard, now)
        return (taken, lanes.held) if taken or now >= self._until else Not.YET


class _Acknowledge:
    """One call of `acknowledge`, as a look."""

    def __init__(self, receipt: str) -> None:
        self._assignment, self._partition, self._position = map(int, receipt.split(":"))
        self._number: int | None = None

    def __call__(self, lanes: _Lanes, now: float) -> Literal[Not.YET] | None:
        if self._number is None:
            self._number = lanes.decide(self._assignment, self._partition, self._position)
            if self._number is None:
                return None
        confirmed = lanes.confirmed(self._assignment, self._partition, self._number)
        return Not.YET if confirmed is False else None


class KafkaWork:
    """One process's end of a model's work queue (core.ports.WorkQueue)."""

    def __init__(self, topic: Topic, dead: Topic, topics: Topics, producer: KafkaProducer, groups: Groups) -> None:
        self.takeover_s = groups.takeover_s
        self._topic, self._dead, self._topics, self._producer, self._groups = topic, dead, topics, producer, groups
        self._keeper = Keeper(f"receiver of {topic.name}", _Lanes(topics, topic.name, groups.takeover_s))
        self._held: frozenset[int] = frozenset()
        self._calls = self._heard = 0

    @property
    def lanes(self) -> frozenset[int]:
        return self._held

    async def hand_out(self, works: Sequence[Work]) -> None:
        if works:
            records = [Record(work.model_dump_json().encode(), partition=work.lane) for work in works]
            await self._producer.send(self._topic, records)

    async def bury(self, letter: DeadLetter) -> None:
        await self._producer.send(self._dead, [Record(letter.model_dump_json().encode(), letter.job.id)])

    async def receive(self, limit: int, wait_s: float) -> Sequence[Received]:
        await self._topics.ready(self._topic)
        settings = await self._groups.settings(self._topic.name)
        call = self._calls = self._calls + 1
        received, self._held = await self._keeper.ask(_Receive(settings, limit, wait_s, call, self._heard), wait_s)
        self._heard = call
        return received

    async def acknowledge(self, receipt: str) -> None:
        await self._keeper.ask(_Acknowledge(receipt))

    async def close(self) -> None:
        self._held = frozenset()
        await self._keeper.close()
