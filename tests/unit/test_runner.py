"""A job on its worker: who ends it elsewhere is heard at whatever moment."""

import asyncio
from typing import Any, cast

import pytest

from sfumato.core.events import Ended, decode_event
from sfumato.core.job import Outcome, State, Work
from sfumato.core.retry import RetryPolicy
from sfumato.worker.duties import Duties
from sfumato.worker.engine_thread import EngineThread
from sfumato.worker.filters import OutputFilter
from sfumato.worker.previews import Previews
from sfumato.worker.runner import JobRunner
from tests.sample_pictures import picture
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, World
from tests.support import NOW, make_job

JOB = make_job(expires_at=NOW * 2)
CANCELED = Outcome(job_id=JOB.id, state=State.CANCELED, at=NOW)


class Endless:
    """An engine in which a job runs until it is aborted."""

    def __init__(self) -> None:
        self.began: list[str] = []

    async def generate(self, key: str, *_: object) -> Any:
        self.began.append(key)
        await asyncio.Event().wait()

    def abort(self, key: str) -> None:
        assert key not in self.began, "it was to be heard before"


async def _canceled_at(moment: str) -> tuple[Endless, World]:
    """Run JOB on a worker, and cancel it while the worker waits for `moment` the first time."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def pause(what: str) -> None:
        if what == moment and not go_on.is_set():
            reached.set()
            await go_on.wait()

    world = World(clock=lambda: NOW, io=pause)
    broker, blobs, outcomes = MemoryBroker(world), MemoryBlobs(world), MemoryOutcomes(world)
    world.blobs[JOB.input.key] = (picture(), NOW)
    work, engine = broker.work("restyle"), Endless()
    duties = Duties("w1", work, broker.events("restyle"), blobs, outcomes, RetryPolicy())
    runner = JobRunner("restyle", duties, cast(EngineThread, engine), Previews(blobs), OutputFilter(""), 10**6, None)
    await work.receive(0, wait_s=0)
    await work.hand_out([Work(job=JOB, lane=min(work.lanes), attempt=0, delivery=0)])
    (received,) = await work.receive(1, wait_s=0)

    running = asyncio.create_task(runner.run(received))
    await asyncio.wait_for(reached.wait(), 5)
    world.outcomes[JOB.id] = CANCELED
    runner.abort(JOB.id)
    go_on.set()
    await asyncio.wait_for(running, 5)
    return engine, world


@pytest.mark.parametrize("moment", ["outcome", "append started", "appended started", "get"])
def test_a_job_canceled_before_it_reached_the_engine_never_gets_there(moment: str) -> None:
    engine, world = asyncio.run(_canceled_at(moment))

    assert engine.began == []
    told = [decode_event(raw) for raw in world.topic("restyle").events]
    assert isinstance(told[-1], Ended)
    assert told[-1].outcome == CANCELED
    assert not world.topic("restyle").work
