"""What every process of ours does alike."""

import asyncio

import pytest

from sfumato.process import any_set


@pytest.mark.parametrize("number", [0, 1])
def test_waiting_ends_when_any_of_the_events_is_set(number: int) -> None:
    async def test() -> None:
        events = [asyncio.Event(), asyncio.Event()]
        asyncio.get_running_loop().call_later(0.01, events[number].set)
        await asyncio.wait_for(any_set(60.0, *events), 5)
        assert events[number].is_set()

    asyncio.run(test())


def test_waiting_ends_after_its_time_and_leaves_nothing_behind() -> None:
    async def test() -> None:
        await asyncio.wait_for(any_set(0.01, asyncio.Event()), 5)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(test())


def test_waiting_that_is_given_up_leaves_nothing_behind() -> None:
    async def test() -> None:
        waiting = asyncio.create_task(any_set(60.0, asyncio.Event()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(test())
