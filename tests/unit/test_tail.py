"""How a role that only wants to know what goes on reads an event log."""

import asyncio
from collections.abc import Awaitable, Callable

from sfumato.broker.tail import tail
from sfumato.core.errors import TransientError
from sfumato.core.events import Event, Unreadable, Watched
from tests.simulation.memory import MemoryBroker, World
from tests.support import NOW, eventually, job_id

SLUG = "restyle"


def _watched(number: int) -> Watched:
    return Watched(at=NOW, job_id=job_id(number), until=NOW)


async def _tailed(
    append: Callable[[MemoryBroker], Awaitable[None]],
    enough: int,
    take: Callable[[Event | Unreadable], None] = lambda event: None,
    world: World | None = None,
) -> list[Event | Unreadable]:
    broker = MemoryBroker(world or World(clock=lambda: NOW))
    found: list[Event | Unreadable] = []

    def taken(_position: int, event: Event | Unreadable) -> None:
        found.append(event)
        take(event)

    async def some() -> bool:
        return len(found) >= enough

    await broker.events(SLUG).append([_watched(0)])
    following = asyncio.create_task(tail(SLUG, broker.events(SLUG), taken, pause_s=0.0))
    await asyncio.sleep(0.01)
    await append(broker)
    await eventually(some)
    following.cancel()
    return found


def test_tail_begins_at_the_end_and_gives_what_comes() -> None:
    async def append(broker: MemoryBroker) -> None:
        for number in (1, 2):
            await broker.events(SLUG).append([_watched(number)])

    assert asyncio.run(asyncio.wait_for(_tailed(append, 2), 5)) == [_watched(1), _watched(2)]


def test_tail_goes_on_after_what_nobody_foresaw() -> None:
    def take(event: Event | Unreadable) -> None:
        if event == _watched(1):
            raise RuntimeError("nobody foresaw this")

    async def append(broker: MemoryBroker) -> None:
        for number in (1, 2):
            await broker.events(SLUG).append([_watched(number)])
            await asyncio.sleep(0.01)

    assert asyncio.run(asyncio.wait_for(_tailed(append, 2, take), 5)) == [_watched(1), _watched(2)]


def test_tail_loses_nothing_while_the_log_is_away() -> None:
    away = False

    async def io(where: str) -> None:
        if away and where == "follow events":
            raise TransientError("no log")

    async def append(broker: MemoryBroker) -> None:
        nonlocal away
        for number in (1, 2):
            away = True
            await broker.events(SLUG).append([_watched(number)])
            await asyncio.sleep(0.01)
            away = False
            await asyncio.sleep(0.01)

    found = asyncio.run(asyncio.wait_for(_tailed(append, 2, world=World(clock=lambda: NOW, io=io)), 5))

    assert found == [_watched(1), _watched(2)]
