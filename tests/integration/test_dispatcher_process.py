"""The dispatcher as a process of its own over the embedded broker."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.broker.sqlite import SqliteBroker
from sfumato.config import child_environment, load_settings
from sfumato.core.events import Alive, Unreadable
from sfumato.core.job import Job
from tests.support import eventually, make_job

SLUG = "restyle"
TAKEOVER_S = 3.0


@pytest.fixture
def dispatcher(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = child_environment(load_settings(data_dir=tmp_path, takeover_s=TAKEOVER_S))
    with subprocess.Popen([sys.executable, "-m", "sfumato", "dispatcher"], env=environment) as child:
        yield child
        child.kill()


async def hand_out(broker: SqliteBroker, *jobs: Job) -> list[Job]:
    """Publish the jobs, and give what a worker with a slot for each receives."""
    work, events, log = broker.work(SLUG), broker.events(SLUG), broker.jobs(SLUG)
    await work.receive(0, wait_s=0)
    await events.append([Alive(at=time.time(), worker="w", slots=len(jobs), lanes=tuple(work.lanes))])
    for job in jobs:
        await log.publish(job)
    received: list[Job] = []

    async def all_received() -> bool:
        for one in await work.receive(len(jobs), wait_s=0.1):
            assert not isinstance(one.work, Unreadable)
            received.append(one.work.job)
        return len(received) == len(jobs)

    await eventually(all_received)
    return received


def test_hands_out_what_is_published_and_leaves_its_place_when_told_to_stop(
    tmp_path: Path, dispatcher: "subprocess.Popen[bytes]"
) -> None:
    now = time.time()
    jobs = [make_job(n, created_at=now, expires_at=now + 60) for n in (1, 2, 3)]

    async def story() -> None:
        broker = SqliteBroker(tmp_path, TAKEOVER_S)
        try:
            assert await hand_out(broker, *jobs) == jobs
            assert await broker.jobs(SLUG).lead(wait_s=0) is None
            dispatcher.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(dispatcher.wait, 10) == 0
            assert await broker.jobs(SLUG).lead(wait_s=0) is not None
        finally:
            await broker.close()

    asyncio.run(story())
