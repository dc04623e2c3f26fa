"""One reader of the news for all who follow: each is told what is its own, once."""

import asyncio
from contextlib import ExitStack

from sfumato.core.job import Job
from sfumato.core.ports import RowChange
from sfumato.gateway.newsroom import Newsroom, Subscriber
from tests.simulation.memory import MemoryRows, World
from tests.support import NOW, make_job


def told(subscriber: Subscriber) -> list[str]:
    return [line.place.job_id for line in subscriber.take()]


def test_line_that_a_newcomer_has_read_by_itself_is_not_told_again() -> None:
    async def test() -> None:
        rows = MemoryRows(World(clock=lambda: NOW))
        room = Newsroom(rows)
        jobs: list[Job] = [make_job(number) for number in range(2)]
        with ExitStack() as stack:
            first = stack.enter_context(room.subscribed(None, (await rows.settled()).last))
            await rows.record([RowChange(job=jobs[0])], {})
            # It comes between two looks of the room, and reads by itself what there is by now.
            newcomer = stack.enter_context(room.subscribed(None, (await rows.settled()).last))
            await room._turn()
            assert (told(first), told(newcomer)) == ([jobs[0].id], [])

            await rows.record([RowChange(job=jobs[1])], {})
            await room._turn()
            assert told(first) == told(newcomer) == [jobs[1].id]

    asyncio.run(test())


def test_line_that_is_read_while_one_joins_is_left_to_the_newcomer() -> None:
    async def test() -> None:
        joining: list[Subscriber] = []

        async def io(where: str) -> None:
            if where == "news" and not joining:
                # What is read just now was asked for without this owner.
                joining.append(stack.enter_context(room.subscribed("bob", 0)))

        rows = MemoryRows(World(clock=lambda: NOW, io=io))
        room = Newsroom(rows)
        with ExitStack() as stack:
            stack.enter_context(room.subscribed("ann", 0))
            await rows.record([RowChange(job=make_job(1, owner="bob"))], {})
            await room._turn()
            (newcomer,) = joining
            assert newcomer.since == (await rows.settled()).last
            assert told(newcomer) == []

    asyncio.run(test())
