"""What a gateway learns from the event log, and how waiting ends."""

import asyncio

from sfumato.core.events import Alive, Dispatched, Ended, Running, Standing, Started
from sfumato.core.job import Job, Outcome, State
from sfumato.gateway.live import Live
from tests.simulation.memory import MemoryOutcomes, World
from tests.support import NOW, job_id, make_job

SLUG = "restyle"


async def _soon(value: object) -> object:
    return value


def _live() -> Live:
    return Live(silent_s=6.0)


def _standing(waiting: int = 0, at: float = NOW) -> Standing:
    return Standing(at=at, waiting=waiting, running=0, slots=1, workers=1, oldest_created_at=None, seconds_per_job=1.0)


def _alive(worker: str = "w", at: float = NOW, **changes: object) -> Alive:
    return Alive.model_validate({"at": at, "worker": worker, "slots": 2, "lanes": (0,), **changes})


def _outcome(job: Job, state: State = State.FAILED) -> Outcome:
    return Outcome(job_id=job.id, state=state, at=NOW)


def _ended(job: Job) -> Ended:
    return Ended(job_id=job.id, at=NOW, attempt=0, delivery=0, outcome=_outcome(job))


def test_accepted_jobs_wait_until_the_dispatcher_counts_them() -> None:
    live, job = _live(), make_job()
    live.apply(SLUG, 1, _standing(waiting=3), NOW)
    live.remember(SLUG, job, NOW + 5)
    assert live.waiting(SLUG, NOW + 5) == (4, job.cost)
    live.apply(SLUG, 2, _standing(waiting=4, at=NOW + 6), NOW)
    assert live.waiting(SLUG, NOW + 6).jobs == 4


def test_a_standing_made_before_an_accept_does_not_count_it() -> None:
    live = _live()
    for number in range(3):
        live.remember(SLUG, make_job(number), NOW + 5)
    live.apply(SLUG, 1, _standing(waiting=0, at=NOW + 4.9), NOW)
    assert live.waiting(SLUG, NOW + 5.1).jobs == 3
    live.apply(SLUG, 2, _standing(waiting=1, at=NOW + 5.1), NOW)
    assert live.waiting(SLUG, NOW + 5.1).jobs == 4


def test_what_a_standing_counts_leaves_with_its_cost() -> None:
    live, jobs = _live(), [make_job(number, cost=number + 1) for number in range(4)]
    for second, job in enumerate(jobs):
        live.remember(SLUG, job, NOW + second)
    assert live.waiting(SLUG, NOW + 3) == (4, 10)
    live.apply(SLUG, 1, Dispatched(job_id=jobs[2].id, at=NOW, attempt=0, delivery=0, lane=0, worker="w"), NOW)
    live.apply(SLUG, 2, _standing(waiting=0, at=NOW + 1.6), NOW)
    assert live.waiting(SLUG, NOW + 3) == (1, 4)
    live.apply(SLUG, 3, _standing(waiting=0, at=NOW + 9), NOW)
    assert live.waiting(SLUG, NOW + 9) == (0, 0)


def test_a_standing_that_nothing_follows_had_counted_all() -> None:
    live = _live()
    live.remember(SLUG, make_job(), NOW)
    live.apply(SLUG, 1, _standing(waiting=1, at=NOW + 0.1), NOW)
    assert live.waiting(SLUG, NOW + 10).jobs == 1


def test_a_job_that_was_handed_out_waits_no_more() -> None:
    live, job = _live(), make_job()
    live.remember(SLUG, job, NOW)
    live.apply(SLUG, 1, Dispatched(job_id=job.id, at=NOW, attempt=0, delivery=0, lane=0, worker="w"), NOW)
    assert live.waiting(SLUG, NOW).jobs == 0


def test_a_job_under_way_into_the_store_waits_already() -> None:
    live = _live()
    with live.accepting(SLUG):
        assert live.waiting(SLUG, NOW).jobs == 1
    assert live.waiting(SLUG, NOW).jobs == 0


def test_steps_not_known_yet_are_no_progress() -> None:
    live, job = _live(), make_job()
    live.remember(SLUG, job, NOW)
    live.apply(SLUG, 1, _alive(running=(Running(job_id=job.id, attempt=0, delivery=0, step=0, steps=0),)), NOW)
    row = live.row(job.id)
    assert row is not None
    assert live.progress(SLUG, row) is None


def test_a_job_accepted_here_is_followed_without_the_database() -> None:
    live, job = _live(), make_job()
    live.remember(SLUG, job, NOW)
    live.apply(SLUG, 7, Started(job_id=job.id, at=NOW, attempt=0, delivery=0, worker="w"), NOW)
    row = live.row(job.id)
    assert row is not None
    assert (row.state, row.position) == (State.RUNNING, 7)


def test_silent_and_draining_workers_do_not_count() -> None:
    live = _live()
    live.apply(SLUG, 1, _alive("lives"), NOW)
    live.apply(SLUG, 2, _alive("silent", at=NOW - 7), NOW - 7)
    live.apply(SLUG, 3, _alive("leaves", draining=True), NOW)
    assert [alive.worker for alive in live.workers(SLUG, NOW)] == ["lives"]


def test_progress_is_that_of_the_latest_delivery() -> None:
    live, job = _live(), make_job()
    live.remember(SLUG, job, NOW)
    for worker, delivery, step in (("dead", 0, 9), ("lives", 1, 2)):
        running = Running(job_id=job.id, attempt=0, delivery=delivery, step=step, steps=10)
        live.apply(SLUG, 1, _alive(worker, running=(running,)), NOW)
    row = live.row(job.id)
    assert row is not None
    progress = live.progress(SLUG, row)
    assert progress is not None
    assert progress.step == 2


def test_waiting_ends_with_the_final_event() -> None:
    async def scenario() -> Outcome | None:
        live, job = _live(), make_job()
        outcomes = MemoryOutcomes(World(clock=lambda: NOW))
        waiting = asyncio.create_task(live.ended(job.id, 60, outcomes))
        await asyncio.sleep(0)
        live.apply(SLUG, 1, _ended(job), NOW)
        return await waiting

    outcome = asyncio.run(asyncio.wait_for(scenario(), 0.2))  # sooner than the polling would find it
    assert outcome is not None
    assert outcome.state is State.FAILED


def test_waiting_ends_without_any_event_too() -> None:
    async def scenario() -> Outcome | None:
        live, job, world = _live(), make_job(), World(clock=lambda: NOW)
        waiting = asyncio.create_task(live.ended(job.id, 60, MemoryOutcomes(world)))
        await asyncio.sleep(0)
        world.outcomes[job.id] = _outcome(job)
        return await waiting

    assert asyncio.run(asyncio.wait_for(scenario(), 5)) is not None


def test_waiting_ends_with_its_time_and_with_the_gateway() -> None:
    async def scenario() -> tuple[Outcome | None, Outcome | None]:
        live, outcomes = _live(), MemoryOutcomes(World(clock=lambda: NOW))
        late = await live.ended(job_id(1), 0.01, outcomes)
        waiting = asyncio.create_task(live.ended(job_id(2), 60, outcomes))
        await asyncio.sleep(0)
        live.release()
        return late, await waiting

    assert asyncio.run(asyncio.wait_for(scenario(), 5)) == (None, None)


def test_a_worker_that_can_not_load_leaves_its_trouble_until_one_lives() -> None:
    live = _live()
    assert live.trouble(SLUG) == ""
    live.apply(SLUG, 1, _alive("first", draining=True, trouble="unet is missing"), NOW)
    live.apply(SLUG, 2, _alive("old", draining=True), NOW)
    assert live.trouble(SLUG) == "unet is missing"
    assert live.workers(SLUG, NOW) == []
    live.apply(SLUG, 3, _alive("second"), NOW)
    assert live.trouble(SLUG) == ""
