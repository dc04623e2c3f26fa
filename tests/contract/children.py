"""What child processes of the broker suites do until they are killed, and how a test starts and kills them."""

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sfumato.core.events import Alive, Started
from tests.contract.stations import Station
from tests.support import job_id, make_job

__all__ = ["Child", "append_jobs_events", "child", "keep_leading", "keep_receiving", "publish_jobs"]

MODEL = "m"


@dataclass
class Child:
    """A running child: what it says, and its end."""

    process: multiprocessing.process.BaseProcess
    pipe: "Connection[None, Any]"

    def says(self, within_s: float = 20.0) -> Any:
        """The next thing it sent; AssertionError when it sends nothing in time."""
        assert self.pipe.poll(within_s), f"{self.process.name} said nothing for {within_s} s"
        return self.pipe.recv()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.join()


@contextmanager
def child(work: Callable[..., None], station: Station, *args: Any) -> Iterator[Child]:
    """Run `work(station, pipe, *args)` in a new process; it is killed at the end if it still runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(station, theirs, *args), name=work.__name__)
    process.start()
    theirs.close()
    running = Child(process, ours)
    try:
        yield running
    finally:
        running.kill()
        process.close()
        ours.close()


def publish_jobs(station: Station, pipe: "Connection[Any, None]", first: int, count: int) -> None:
    """Publish jobs with numbers from `first`; send each number once its publish returned."""

    async def run() -> None:
        jobs = station.open().jobs(MODEL)
        for number in range(first, first + count):
            await jobs.publish(make_job(number))
            pipe.send(number)
        await asyncio.Event().wait()

    asyncio.run(run())


def append_jobs_events(station: Station, pipe: "Connection[Any, None]", first: int, count: int) -> None:
    """Append `count` events of the job with number `first`, their `at` counting up; send that number at the end."""

    async def run() -> None:
        events = station.open().events(MODEL)
        for at in range(count):
            started = Started(job_id=job_id(first), at=at, attempt=0, delivery=0, worker=f"w{first}")
            await events.append([Alive(at=at, worker="w", slots=1, lanes=()), started])
        pipe.send(first)
        await asyncio.Event().wait()

    asyncio.run(run())


def keep_leading(station: Station, pipe: "Connection[Any, None]", commit: int, metadata: str) -> None:
    """Become the reader, commit up to `commit`, send the positions read, and go on reading."""

    async def run() -> None:
        jobs = station.open().jobs(MODEL)
        while await jobs.lead(wait_s=5) is None:
            pass
        found = await jobs.read(limit=100, wait_s=5)
        await jobs.commit(commit, metadata)
        pipe.send([logged.position for logged in found])
        while True:
            await jobs.read(limit=100, wait_s=0.2)

    asyncio.run(run())


def keep_receiving(station: Station, pipe: "Connection[Any, None]", acknowledge: int) -> None:
    """Take lanes, send them, then send the job id of each hand-out; acknowledge the first `acknowledge` of them."""

    async def run() -> None:
        work = station.open().work(MODEL)
        while not work.lanes:
            await work.receive(limit=0, wait_s=0)
        pipe.send(sorted(work.lanes))
        left = acknowledge
        while True:
            for received in await work.receive(limit=10, wait_s=0.2):
                if left > 0:
                    await work.acknowledge(received.receipt)
                left -= 1
                pipe.send(received.work.job.id)  # type: ignore[union-attr]  # the tests hand out what can be read

    asyncio.run(run())
