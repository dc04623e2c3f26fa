"""Previews of jobs that somebody watches: stored, replaced, dropped, and never in a job's way."""

import asyncio
import io
from collections.abc import Awaitable, Callable

import numpy as np
from PIL import Image

from sfumato.core.errors import TransientError
from sfumato.core.job import preview_key
from sfumato.engine.images import Prepared
from sfumato.worker.previews import Previews
from tests.simulation.memory import MemoryBlobs, World
from tests.support import NOW, make_job, make_params

JOB = make_job(params=make_params(width=64, height=64))
PREPARED = Prepared(np.zeros((64, 64, 3), np.uint8), (0, 16, 64, 48))
CELLS = np.full((8, 8, 3), (200, 40, 10), np.uint8)


class Fault:
    """Awaited around every effect of the store."""

    failing = False

    async def __call__(self, what: str) -> None:
        if self.failing:
            raise TransientError("the store was told to fail")


def played(play: Callable[[Previews, World, Fault], Awaitable[None]]) -> World:
    fault = Fault()
    world = World(clock=lambda: NOW, io=fault)
    asyncio.run(_awaited(play(Previews(MemoryBlobs(world)), world, fault)))
    return world


async def _awaited(playing: Awaitable[None]) -> None:
    await playing


async def settle() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


def test_job_is_watched_until_the_time_that_was_told() -> None:
    previews = Previews(MemoryBlobs(World(clock=lambda: NOW, io=Fault())))
    previews.watch(JOB.id, NOW + 15, NOW)

    assert previews.wanted(JOB.id, NOW + 14)
    assert not previews.wanted(JOB.id, NOW + 15)
    assert not previews.wanted("another", NOW)


def test_preview_is_stored_as_a_small_jpeg_of_the_pictures_part() -> None:
    stored: list[int] = []

    async def play(previews: Previews, world: World, fault: Fault) -> None:
        previews.post(JOB, PREPARED, CELLS, lambda: stored.append(1))
        await settle()

    data, _ = played(play).blobs[preview_key(JOB.id)]
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (8, 4))
        assert np.abs(np.asarray(picture).astype(int) - (200, 40, 10)).max() < 12
    assert stored == [1]


def test_preview_that_comes_while_one_is_being_stored_is_left_out() -> None:
    stored: list[int] = []

    async def play(previews: Previews, world: World, fault: Fault) -> None:
        previews.post(JOB, PREPARED, CELLS, lambda: stored.append(1))
        previews.post(JOB, PREPARED, CELLS, lambda: stored.append(2))
        await settle()
        previews.post(JOB, PREPARED, CELLS, lambda: stored.append(3))
        await settle()

    played(play)
    assert stored == [1, 3]


def test_dropped_preview_is_gone_even_when_it_was_still_being_stored() -> None:
    async def play(previews: Previews, world: World, fault: Fault) -> None:
        previews.post(JOB, PREPARED, CELLS, lambda: None)
        previews.drop(JOB.id)
        await previews.close()

    assert played(play).blobs == {}


def test_store_that_fails_is_nobodys_trouble() -> None:
    stored: list[int] = []

    async def play(previews: Previews, world: World, fault: Fault) -> None:
        fault.failing = True
        previews.post(JOB, PREPARED, CELLS, lambda: stored.append(1))
        await settle()
        previews.drop(JOB.id)
        await previews.close()

    played(play)
    assert stored == []
