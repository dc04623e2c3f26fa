"""Who follows a job is woken for it, and for nothing else."""

import asyncio

from sfumato.core.events import Ended, JobEvent, Started
from sfumato.core.job import Outcome, State
from sfumato.gateway.followers import KEPT, Followers
from tests.support import NOW, job_id


def started(number: int = 1) -> Started:
    return Started(job_id=job_id(number), at=NOW, attempt=0, delivery=0, worker="w")


def ended(number: int = 1) -> Ended:
    outcome = Outcome(job_id=job_id(number), state=State.CANCELED, at=NOW)
    return Ended(job_id=job_id(number), at=NOW, attempt=0, delivery=0, outcome=outcome)


def test_follower_gets_the_events_of_its_job_in_order() -> None:
    async def run() -> None:
        followers = Followers()
        with followers.follower(job_id(1)) as follower:
            told: list[tuple[int, JobEvent]] = [(7, started()), (9, ended())]
            for position, event in told:
                followers.tell(position, event)
            followers.tell(8, started(2))
            assert await follower.news(within_s=1)
            assert list(follower.take()) == told
            assert list(follower.take()) == []

    asyncio.run(run())


def test_follower_sleeps_while_other_jobs_get_on() -> None:
    async def run() -> None:
        followers = Followers()
        with followers.follower(job_id(1)) as follower:
            followers.tell(8, started(2))
            followers.ring([job_id(2), job_id(3)])
            assert not await follower.news(within_s=0.01)

    asyncio.run(run())


def test_all_who_follow_a_job_are_woken_by_its_progress_and_by_the_end_of_the_gateway() -> None:
    async def run() -> None:
        followers = Followers()
        with followers.follower(job_id(1)) as one, followers.follower(job_id(1)) as other:
            followers.ring([job_id(1)])
            assert [await each.news(within_s=1) for each in (one, other)] == [True, True]
            followers.ring_all()
            assert [await each.news(within_s=1) for each in (one, other)] == [True, True]

    asyncio.run(run())


def test_who_follows_no_more_is_forgotten() -> None:
    followers = Followers()
    with followers.follower(job_id(1)) as follower:
        pass
    followers.tell(1, started())
    assert list(follower.take()) == []


def test_client_that_reads_nothing_costs_no_more_and_is_told_that_it_missed_something() -> None:
    followers = Followers()
    with followers.follower(job_id(1)) as follower:
        for position in range(1, KEPT + 2):
            followers.tell(position, started())
        assert follower.missed
        assert len(list(follower.take())) == KEPT
