"""The controller decides while it holds the lease, and what it decided reaches the hosts."""

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import Any

import pytest

from sfumato.controller.controller import LEASE_S, Controller
from sfumato.controller.sight import Sight
from sfumato.core.errors import TransientError
from sfumato.core.events import Alive, Standing
from sfumato.core.scaling import Decided, Ends, Placement
from sfumato.models.registry import Model, Registry, Scaling
from tests.memory_scaling import MemoryScaling
from tests.support import NOW

MODEL = "restyle"


class Clock:
    """The time of the test's world."""

    def __init__(self) -> None:
        self.now = NOW
        self.away = False

    def __call__(self) -> float:
        return self.now

    async def io(self, what: str) -> None:
        if self.away:
            raise TransientError(f"no {what}")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> MemoryScaling:
    return MemoryScaling(clock, clock.io)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def controller(board: MemoryScaling, name: str = "one", **given: Any) -> Controller:
    return Controller(name, board, Sight(silent_s=5.0), **({"most": 4} | given))


def models(**scaling: Any) -> list[Model]:
    return [dataclasses.replace(model, scaling=Scaling(**scaling)) for model in Registry.load(None)]


def tell(told: Controller, clock: Clock, waiting: int, **changes: Any) -> None:
    plain: dict[str, Any] = {"at": clock.now, "waiting": waiting, "running": 0, "slots": 0, "workers": 0}
    plain |= {"oldest_created_at": clock.now, "seconds_per_job": 10.0, "waiting_cost": waiting * 1_000}
    plain |= {"worker_cost_per_s": 100.0, "mean_cost": 1_000.0}
    told.sight.apply(MODEL, Standing(**(plain | changes)), clock.now)


def test_fresh_service_has_a_worker_ready_for_each_model(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        await board.offer("host", 4)
        assert await controller(board).turn(models(), clock.now)
        assert board.decided[MODEL].replicas == 1
        assert await board.placed("host") == {MODEL: Placement(1)}

    run(test())


def test_backlog_brings_workers_and_says_why(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board)
        await board.offer("host", 8)
        for _ in range(60):
            tell(one, clock, waiting=100)
            await one.turn(models(), clock.now)
            await board.offer("host", 8)
            clock.now += 1
        assert board.decided[MODEL].replicas == 4
        assert "100" in board.decided[MODEL].why

    run(test())


def test_places_bound_what_is_started(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board)
        for _ in range(60):
            await board.offer("a", 1)
            await board.offer("b", 1)
            tell(one, clock, waiting=100)
            await one.turn(models(), clock.now)
            clock.now += 1
        assert {name: placed[MODEL].replicas for name, placed in board.placements.items()} == {"a": 1, "b": 1}

    run(test())


def test_external_driver_is_bound_by_the_model_alone(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board, external=True)
        for _ in range(60):
            tell(one, clock, waiting=1_000)
            await one.turn(models(most=7), clock.now)
            clock.now += 1
        assert board.decided[MODEL].replicas == 7
        assert board.placements == {}

    run(test())


def test_no_model_gets_more_workers_than_it_has_lanes(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board, lanes=2)
        for _ in range(60):
            await board.offer("host", 8)
            tell(one, clock, waiting=1_000)
            await one.turn(models(most=7), clock.now)
            clock.now += 1
        assert board.decided[MODEL].replicas == 2

    run(test())


def test_second_controller_decides_nothing_until_the_first_falls_silent(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one, other = controller(board, "one"), controller(board, "other")
        await board.offer("host", 4)
        assert await one.turn(models(), clock.now)
        clock.now += LEASE_S - 1
        assert not await other.turn(models(), clock.now)

        clock.now += 2

        assert await other.turn(models(), clock.now)
        assert not await one.turn(models(), clock.now)

    run(test())


def test_controller_that_leaves_is_followed_at_once(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one, other = controller(board, "one"), controller(board, "other")
        await one.turn(models(), clock.now)
        await one.resign()
        assert await other.turn(models(), clock.now)

    run(test())


def test_successor_that_has_heard_of_nothing_keeps_what_was_decided(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one, other = controller(board, "one"), controller(board, "other")
        for _ in range(60):
            await board.offer("host", 4)
            tell(one, clock, waiting=100)
            await one.turn(models(), clock.now)
            clock.now += 1
        before = board.decided[MODEL].replicas
        await one.resign()
        clock.now += 1

        await other.turn(models(), clock.now)

        assert board.decided[MODEL].replicas == before == 4

    run(test())


def test_successor_of_one_that_was_killed_decides_as_soon_as_it_leads(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one, other = controller(board, "one"), controller(board, "other")
        await board.offer("host", 4)
        await one.turn(models(least=2), clock.now)
        began = clock.now
        while not await other.turn(models(least=2), clock.now):
            clock.now += 1
            await board.offer("host", 4)
        assert board.decided[MODEL].at == clock.now <= began + LEASE_S + 1

    run(test())


def test_while_the_store_is_away_what_was_decided_stays(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board)
        await board.offer("host", 4)
        await one.turn(models(), clock.now)
        before = dict(board.decided)
        clock.away = True
        clock.now += 60
        with pytest.raises(TransientError):
            await one.turn(models(), clock.now)
        clock.away = False
        assert board.decided == before

        await board.offer("host", 4)

        assert await one.turn(models(), clock.now)

    run(test())


def test_without_hosts_nothing_is_decided_anew(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board)
        await board.offer("host", 4)
        await one.turn(models(), clock.now)
        clock.now += 30
        tell(one, clock, waiting=0)
        assert await one.turn(models(), clock.now)
        assert board.decided[MODEL].replicas == 1

    run(test())


def test_idlest_worker_is_named_first(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board)
        for name in ("b", "a"):
            one.sight.apply(MODEL, Alive(at=clock.now, worker=name, slots=4, lanes=(0,)), clock.now)
        await board.offer("host", 4)
        await one.turn(models(), clock.now)
        assert board.placements["host"][MODEL].idlest == ("a", "b")

    run(test())


def test_workers_that_end_unheard_are_told_of_and_not_those_of_before_it_led(
    board: MemoryScaling, clock: Clock
) -> None:
    async def test() -> None:
        one = controller(board)
        for count, told in ((5, ""), (7, ""), (8, "ended with status -9, 3 times")):
            await board.offer("host", 4, {MODEL: Ends(count, "ended with status -9")})
            await one.turn(models(), clock.now)
            assert told in one.troubles.get(MODEL, "")
            assert bool(told) == (MODEL in one.troubles)
        one.sight.apply(MODEL, Alive(at=clock.now, worker="w", slots=4, lanes=(0,)), clock.now)
        await one.turn(models(), clock.now)
        assert one.troubles == {}

    run(test())


def test_least_and_most_of_models_toml_hold(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board, kept_s=0.0)
        for waiting in (100, 0):
            for _ in range(200):
                await board.offer("host", 8)
                tell(one, clock, waiting=waiting)
                await one.turn(models(least=2, most=3), clock.now)
                clock.now += 1
            assert board.decided[MODEL].replicas == (3 if waiting else 2)

    run(test())


def test_service_that_was_off_begins_anew_with_a_worker_for_each_model(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        board.decided = {MODEL: Decided(0, "it may rest until the next job", clock.now - 10)}
        await board.offer("host", 4)
        one = controller(board)
        await one.turn(models(), clock.now)
        assert board.decided[MODEL].replicas == 0, "it was asleep a moment ago, under another leader"
        await one.resign()

        clock.now += 3_600
        await board.offer("host", 4)
        await controller(board, "other").turn(models(), clock.now)

        assert board.decided[MODEL].replicas == 1

    run(test())


def test_after_an_outage_hosts_have_time_to_offer_themselves_again(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        one = controller(board)
        for host in ("a", "b"):
            await board.offer(host, 1)
        await one.turn(models(least=2), clock.now)
        assert {pool: counts[MODEL].replicas for pool, counts in board.placements.items()} == {"a": 1, "b": 1}

        clock.now += 30
        await board.offer("a", 1)
        await one.turn(models(least=2), clock.now)
        assert board.placements.keys() == {"a", "b"}

        for _ in range(8):
            clock.now += 1
            await board.offer("a", 1)
            await one.turn(models(least=2), clock.now)
        assert board.placements.keys() == {"a"}

    run(test())


def test_lease_that_was_written_by_a_clock_that_ran_ahead_is_taken(board: MemoryScaling, clock: Clock) -> None:
    async def test() -> None:
        await board.offer("host", 4)
        clock.now += 3_600
        assert await controller(board, "one").turn(models(), clock.now)
        clock.now -= 3_600
        assert await controller(board, "other").turn(models(), clock.now)

    run(test())
