"""Contract: a hand-out reaches one living receiver; what the dead did not acknowledge reaches another, as left over."""

import asyncio
import json
import time

from sfumato.core.events import Unreadable
from sfumato.core.job import DeadLetter, Outcome, Problem, State, Work
from sfumato.core.ports import Received, WorkReceiver
from tests.contract.children import MODEL, child, keep_receiving
from tests.contract.stations import Station, brokers, in_loop
from tests.support import NOW, eventually, job_id, make_job


def _work(number: int, lane: int) -> Work:
    return Work(job=make_job(number), lane=lane, attempt=0, delivery=0)


async def _lane(receiver: WorkReceiver) -> int:
    """A lane of the receiver, as soon as it has one."""

    async def held() -> frozenset[int]:
        await receiver.receive(limit=0, wait_s=0)
        return receiver.lanes

    lanes: frozenset[int] = await eventually(held, within_s=20)
    return min(lanes)


async def _received(receiver: WorkReceiver, count: int, within_s: float = 20.0) -> list[Received]:
    """What arrives until there are `count` or more."""
    found: list[Received] = []

    async def enough() -> bool:
        found.extend(await receiver.receive(limit=count, wait_s=0.1))
        return len(found) >= count

    await eventually(enough, within_s)
    return found


async def _nothing_for(receiver: WorkReceiver, duration_s: float) -> None:
    end = time.monotonic() + duration_s
    while time.monotonic() < end:
        assert list(await receiver.receive(limit=10, wait_s=0.1)) == []


@in_loop
async def test_work_is_stored_when_hand_out_returns(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.work(MODEL).hand_out([_work(1, 0), _work(2, 1)])

        bodies = {_work(1, 0).model_dump_json(), _work(2, 1).model_dump_json()}
        assert set(station.stored("work", MODEL)) == bodies


@in_loop
async def test_a_dead_letter_is_stored_when_bury_returns_and_nobody_receives_it(station: Station) -> None:
    problem = Problem(slug="dead-letter", title="The job ends its workers", detail="three died")
    outcome = Outcome(job_id=job_id(1), state=State.FAILED, at=NOW, error=problem)
    letter = DeadLetter(job=make_job(1), outcome=outcome)
    async with brokers(station, 1) as (broker,):
        queue = broker.work(MODEL)

        await queue.bury(letter)

        assert list(station.stored("dead", MODEL)) == [letter.model_dump_json()]
        assert await queue.receive(limit=10, wait_s=0.1) == []


@in_loop
async def test_handing_out_nothing_changes_nothing(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        queue = broker.work(MODEL)

        await queue.hand_out([])

        assert await queue.receive(limit=10, wait_s=0) == []


@in_loop
async def test_receiver_gets_each_hand_out_once_in_order(station: Station) -> None:
    async with brokers(station, 2) as (dispatcher, worker):
        receiver = worker.work(MODEL)
        lane = await _lane(receiver)

        await dispatcher.work(MODEL).hand_out([_work(3, lane), _work(1, lane)])
        await dispatcher.work(MODEL).hand_out([_work(2, lane)])

        received = await _received(receiver, 3)
        assert [one.work for one in received] == [_work(3, lane), _work(1, lane), _work(2, lane)]
        assert not any(one.left_over for one in received)
        await _nothing_for(receiver, 0.3)


@in_loop
async def test_receiver_gets_no_more_than_it_has_room_for(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        queue = broker.work(MODEL)
        lane = await _lane(queue)
        await queue.hand_out([_work(number, lane) for number in (1, 2, 3)])

        assert await queue.receive(limit=0, wait_s=0) == []
        first = await eventually(lambda: queue.receive(limit=2, wait_s=1))
        rest = await _received(queue, 3 - len(first))

        assert len(first) <= 2
        assert [one.work for one in (*first, *rest)] == [_work(number, lane) for number in (1, 2, 3)]


@in_loop
async def test_living_receivers_hold_different_lanes_and_get_only_their_own(station: Station) -> None:
    async with brokers(station, 3) as (dispatcher, one, two):
        first, second = one.work(MODEL), two.work(MODEL)

        async def settled() -> bool:
            await first.receive(limit=0, wait_s=0)
            await second.receive(limit=0, wait_s=0)
            return bool(first.lanes and second.lanes and not first.lanes & second.lanes)

        await eventually(settled, within_s=20)
        mine, other = min(first.lanes), min(second.lanes)

        await dispatcher.work(MODEL).hand_out([_work(1, mine), _work(2, other), _work(3, mine)])

        assert [one.work for one in await _received(second, 1)] == [_work(2, other)]
        assert [one.work for one in await _received(first, 2)] == [_work(1, mine), _work(3, mine)]


@in_loop
async def test_queues_of_two_models_do_not_mix(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        one, two = broker.work("one"), broker.work("two")
        lane = await _lane(one)
        await _lane(two)

        await broker.work("one").hand_out([_work(1, lane)])

        assert [received.work for received in await _received(one, 1)] == [_work(1, lane)]
        assert await two.receive(limit=10, wait_s=0.2) == []


@in_loop
async def test_acknowledged_work_is_not_left_over(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        leaving, staying = one.work(MODEL), two.work(MODEL)
        lane = await _lane(leaving)
        await leaving.hand_out([_work(number, lane) for number in (1, 2, 3)])
        for received in await _received(leaving, 3):
            await leaving.acknowledge(received.receipt)

        await leaving.close()

        await _lane(staying)
        await _nothing_for(staying, station.takeover_s)


@in_loop
async def test_work_acknowledged_out_of_order_leaves_over_what_was_not(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        leaving, staying = one.work(MODEL), two.work(MODEL)
        lane = await _lane(leaving)
        await leaving.hand_out([_work(number, lane) for number in (1, 2, 3, 4)])
        received = await _received(leaving, 4)
        for index in (2, 0):
            await leaving.acknowledge(received[index].receipt)

        await leaving.close()

        # Number 3 may come too: a log can only give up a prefix.
        left = [found for found in await _received(staying, 2) if found.work != _work(3, lane)]
        assert [found.work for found in left][:2] == [_work(2, lane), _work(4, lane)][: len(left)]
        assert all(found.left_over for found in left)


@in_loop
async def test_what_a_closed_receiver_did_not_acknowledge_is_left_over_at_once(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        leaving, staying = one.work(MODEL), two.work(MODEL)
        lane = await _lane(leaving)
        await leaving.hand_out([_work(1, lane)])
        await _received(leaving, 1)

        await leaving.close()

        (left,) = await _received(staying, 1, within_s=station.takeover_s / 2)
        assert (left.work, left.left_over) == (_work(1, lane), True)


@in_loop
async def test_what_a_killed_receiver_did_not_acknowledge_reaches_another_within_takeover_s(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        with child(keep_receiving, station, 1) as dead:
            lane = (await asyncio.to_thread(dead.says))[0]
            await broker.work(MODEL).hand_out([_work(number, lane) for number in (1, 2)])
            assert [await asyncio.to_thread(dead.says) for _ in range(2)] == [make_job(1).id, make_job(2).id]
            survivor = broker.work(MODEL)
            await survivor.receive(limit=0, wait_s=0)
            dead.kill()

            (left,) = await _received(survivor, 1, within_s=station.takeover_s + station.slack_s)

        assert (left.work, left.left_over) == (_work(2, lane), True)
        await survivor.acknowledge(left.receipt)
        await _nothing_for(survivor, 0.3)


@in_loop
async def test_left_over_work_that_its_second_holder_leaves_too_is_left_over_again(station: Station) -> None:
    async with brokers(station, 3) as (one, two, three):
        first, second, third = one.work(MODEL), two.work(MODEL), three.work(MODEL)
        lane = await _lane(first)
        await first.hand_out([_work(1, lane)])
        await first.close()
        await _received(second, 1)
        await second.close()

        (left,) = await _received(third, 1, within_s=station.takeover_s / 2)

        assert (left.work, left.left_over) == (_work(1, lane), True)


@in_loop
async def test_living_receiver_without_room_keeps_its_lanes_and_its_work(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        full, idle = one.work(MODEL), two.work(MODEL)

        async def settled() -> bool:
            await full.receive(limit=0, wait_s=0)
            await idle.receive(limit=0, wait_s=0)
            return bool(full.lanes and idle.lanes and not full.lanes & idle.lanes)

        await eventually(settled, within_s=20)
        lanes = full.lanes
        await full.hand_out([_work(1, min(lanes))])
        end = time.monotonic() + 2 * station.takeover_s

        while time.monotonic() < end:
            assert await full.receive(limit=0, wait_s=0) == []
            assert await idle.receive(limit=1, wait_s=0.1) == []

        assert full.lanes == lanes
        (received,) = await _received(full, 1)
        assert not received.left_over


@in_loop
async def test_silent_receiver_loses_its_work_and_gets_a_lane_again(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        silent, other = one.work(MODEL), two.work(MODEL)
        lane = await _lane(silent)
        await silent.hand_out([_work(1, lane)])
        (received,) = await _received(silent, 1)

        (left,) = await _received(other, 1, within_s=station.takeover_s + station.slack_s)
        await silent.acknowledge(received.receipt)
        await other.close()

        assert left.left_over
        (again,) = await _received(silent, 1)
        assert (again.work, again.left_over) == (_work(1, lane), True)
        assert silent.lanes


@in_loop
async def test_work_in_a_lane_that_nobody_holds_reaches_a_receiver(station: Station) -> None:
    async with brokers(station, 1) as (broker,):
        await broker.work(MODEL).hand_out([_work(1, lane=3)])

        (received,) = await _received(broker.work(MODEL), 1)

        assert (received.work, received.left_over) == (_work(1, 3), True)


@in_loop
async def test_waiting_receiver_gets_work_when_it_comes(station: Station) -> None:
    async with brokers(station, 2) as (dispatcher, worker):
        receiver = worker.work(MODEL)
        lane = await _lane(receiver)
        waiting = asyncio.create_task(receiver.receive(limit=5, wait_s=30))
        begin = time.monotonic()

        await dispatcher.work(MODEL).hand_out([_work(1, lane)])

        assert [received.work for received in await waiting] == [_work(1, lane)]
        assert time.monotonic() - begin < 5


@in_loop
async def test_work_of_an_unknown_version_comes_as_unreadable_and_is_kept_until_acknowledged(station: Station) -> None:
    async with brokers(station, 2) as (one, two):
        old, new = one.work(MODEL), two.work(MODEL)
        lane = await _lane(old)
        strange = json.dumps(_work(1, lane).model_dump(mode="json") | {"version": 99})
        station.plant("work", MODEL, strange, lane)
        await old.hand_out([_work(2, lane)])

        received = await _received(old, 2)
        await old.acknowledge(received[1].receipt)
        await old.close()

        assert isinstance(received[0].work, Unreadable)
        assert received[1].work == _work(2, lane)
        left = await _received(new, 1)
        assert isinstance(left[0].work, Unreadable)
        assert left[0].work.raw == strange
        assert left[0].left_over
