"""The tasks around a dispatcher: they wake it for whatever comes, and outlast what fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from sfumato.core.errors import Deposed, TransientError
from sfumato.core.events import Alive
from sfumato.dispatcher import dispatcher as shell
from sfumato.dispatcher.dispatcher import Dispatcher
from tests.simulation.memory import MemoryBroker, MemoryOutcomes, World
from tests.support import eventually, make_job


class Site:
    """One dispatcher kept by the shell on a world in memory, whose seams fail when told to."""

    def __init__(self) -> None:
        self.fails = ""
        self.world = World(clock=time.time, io=self._seam)
        broker = MemoryBroker(self.world)
        self.topic, self.jobs = self.world.topic("m"), broker.jobs("m")
        self.dispatcher = Dispatcher("m", self.jobs, broker.work("m"), broker.events("m"), MemoryOutcomes(self.world))

    async def _seam(self, what: str) -> None:
        if self.fails and what == self.fails:
            self.fails = ""
            raise TransientError("the answer is lost")

    async def keep(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        stop = asyncio.Event()
        assert await self.dispatcher.lead(time.time())
        keeping = asyncio.create_task(shell._keep(self.dispatcher, stop))
        await meanwhile()
        stop.set()
        await asyncio.wait_for(keeping, 5)

    def publish(self, number: int) -> None:
        now = time.time()
        self.topic.jobs.append(make_job(number, created_at=now, expires_at=now + 60).model_dump_json())

    def beat(self, slots: int) -> None:
        alive = Alive(at=time.time(), worker="w", slots=slots, lanes=(0,))
        self.topic.events.append(alive.model_dump_json())

    async def handed_out(self, count: int) -> None:
        async def enough() -> bool:
            return len({work.job.id for work in self.topic.work.values()}) >= count

        await eventually(enough, within_s=5)


def test_a_job_and_a_beat_each_wake_the_dispatcher() -> None:
    site = Site()

    async def meanwhile() -> None:
        site.publish(1)
        site.beat(slots=2)
        await site.handed_out(1)
        site.publish(2)
        await site.handed_out(2)

    asyncio.run(site.keep(meanwhile))


@pytest.mark.parametrize("seam", ["follow events", "hand out", "append dispatched"])
def test_what_fails_once_is_done_again(seam: str) -> None:
    site = Site()

    async def meanwhile() -> None:
        site.beat(slots=2)
        site.publish(1)
        site.fails = seam
        await site.handed_out(1)
        site.publish(2)
        await site.handed_out(2)

    asyncio.run(site.keep(meanwhile))


def test_who_was_deposed_stops_acting() -> None:
    site = Site()

    async def story() -> None:
        assert await site.dispatcher.lead(time.time())
        site.topic.leader = object()
        await asyncio.wait_for(shell._keep(site.dispatcher, asyncio.Event()), 5)

    with pytest.raises(Deposed):
        asyncio.run(story())
