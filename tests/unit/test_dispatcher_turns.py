"""The dispatcher's turns over ports in memory: what is written where, in which order, and what a failure leaves."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from sfumato.core.errors import TransientError
from sfumato.core.events import Alive, Dispatched, Ended, Event, Returned, Standing, Started, decode_event
from sfumato.core.job import Job, Outcome, State, Work
from sfumato.dispatcher.dispatcher import Dispatcher
from tests.simulation.memory import MemoryBroker, MemoryOutcomes, World
from tests.support import NOW, counted, make_job

T = TypeVar("T")
E = TypeVar("E", bound=Event)


class Site:
    """A world with one model, the clock in the test's hand, and seams that fail when told to."""

    def __init__(self) -> None:
        self.now = NOW
        self.fails = ""
        self.seams: list[str] = []
        self.world = World(clock=lambda: self.now, io=self._seam)
        self.topic = self.world.topic("m")

    async def _seam(self, what: str) -> None:
        self.seams.append(what)
        if self.fails and what == self.fails:
            self.fails = ""
            raise TransientError("the answer is lost")

    def dispatcher(self) -> Dispatcher:
        broker = MemoryBroker(self.world)
        return Dispatcher("m", broker.jobs("m"), broker.work("m"), broker.events("m"), MemoryOutcomes(self.world))

    def publish(self, *jobs: Job) -> None:
        self.topic.jobs.extend(job.model_dump_json() for job in jobs)

    def tell(self, *events: Event) -> None:
        self.topic.events.extend(event.model_dump_json() for event in events)

    def beat(self, slots: int = 1, worker: str = "w") -> None:
        self.tell(Alive(at=self.now, worker=worker, slots=slots, lanes=(0,)))

    def end(self, work: Work) -> None:
        outcome = Outcome(job_id=work.job.id, state=State.SUCCEEDED, at=self.now)
        self.tell(Ended(job_id=work.job.id, at=self.now, attempt=0, delivery=work.delivery, outcome=outcome))

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in map(decode_event, self.topic.events) if isinstance(event, kind)]

    @property
    def works(self) -> list[Work]:
        return list(self.topic.work.values())


def leading(site: Site) -> Dispatcher:
    dispatcher = site.dispatcher()
    assert run(dispatcher.lead(site.now))
    return dispatcher


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def test_a_job_goes_to_a_free_worker_in_the_turn_that_reads_it() -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat()
    site.publish(make_job(1))
    assert run(dispatcher.turn(site.now))
    assert [work.job for work in site.works] == [make_job(1)]
    assert [event.worker for event in site.told(Dispatched)] == ["w"]


def test_the_work_message_is_written_before_the_event() -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat()
    site.publish(make_job(1))
    run(dispatcher.turn(site.now))
    assert site.seams.index("handed out") < site.seams.index("append dispatched")


def test_a_second_dispatcher_does_not_lead_until_the_first_closes() -> None:
    site = Site()
    first, second = leading(site), site.dispatcher()
    assert not run(second.lead(site.now))
    run(first.close())
    assert run(second.lead(site.now))
    assert not run(first.turn(site.now))


def test_a_leader_folds_both_logs_to_their_ends_before_it_acts() -> None:
    site = Site()
    site.publish(*(make_job(n) for n in range(1, 4_501)))
    site.beat(slots=4)
    ended = Work(job=make_job(1), lane=0, attempt=0, delivery=0)
    for _ in range(1_500):
        site.end(ended)
    run(leading(site).act(site.now))
    assert [work.job.id for work in site.works] == [make_job(n).id for n in (2, 3, 4, 5)]
    assert site.told(Standing)[-1].waiting == 4_500 - 1 - 4


@pytest.mark.parametrize("seam", ["hand out", "handed out", "append dispatched", "appended dispatched"])
def test_a_lost_answer_costs_at_most_a_double_hand_out_and_no_slot(seam: str) -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat(slots=1)
    site.publish(make_job(1), make_job(2))
    site.fails = seam
    with pytest.raises(TransientError):
        run(dispatcher.turn(site.now))
    assert run(dispatcher.turn(site.now))
    assert {work.job.id for work in site.works} == {make_job(1).id}
    assert site.told(Dispatched)
    site.end(site.works[0])
    assert run(dispatcher.turn(site.now))
    assert {work.job.id for work in site.works} == {make_job(1).id, make_job(2).id}


def test_a_hand_out_not_told_is_told_by_who_leads_again() -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat(slots=1)
    site.publish(make_job(1))
    site.fails = "append dispatched"
    with pytest.raises(TransientError):
        run(dispatcher.turn(site.now))
    assert run(dispatcher.lead(site.now))
    run(dispatcher.turn(site.now))
    assert len(site.works) == 1


def test_a_lost_answer_of_the_jobs_log_means_to_lead_again() -> None:
    site = Site()
    dispatcher = leading(site)
    site.fails = "read jobs"
    assert not run(dispatcher.turn(site.now))


def test_commit_follows_the_decided_prefix_and_a_successor_does_not_run_it_again() -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat(slots=2)
    site.publish(make_job(1), make_job(2))
    run(dispatcher.turn(site.now))
    site.end(site.works[1])
    site.now += 1
    run(dispatcher.turn(site.now))
    assert site.topic.committed.position == 0
    site.end(site.works[0])
    site.now += 1
    run(dispatcher.turn(site.now))
    assert site.topic.committed.position == 2
    site.now += 60
    site.topic.work.clear()
    successor = leading(site)
    site.beat(slots=2)
    run(successor.turn(site.now))
    assert site.works == []


def test_an_idle_dispatcher_moves_the_event_cursor_on() -> None:
    site = Site()
    dispatcher = leading(site)
    for _ in range(12):
        site.now += 1
        site.beat()
        run(dispatcher.turn(site.now))
    assert site.topic.committed.position == 0
    assert int(site.topic.committed.metadata) > 5


def test_an_expired_job_is_decided_then_told() -> None:
    site = Site()
    dispatcher = leading(site)
    site.publish(make_job(1, expires_at=NOW + 5))
    run(dispatcher.turn(site.now))
    assert dispatcher.next_at(NOW) == NOW + 5
    site.now += 5
    run(dispatcher.turn(site.now))
    (ended,) = site.told(Ended)
    assert ended.outcome == site.world.outcomes[make_job(1).id]
    assert ended.outcome.error is not None
    assert ended.outcome.error.slug == "expired"
    assert site.seams.index("decided failed") < site.seams.index("append final")


def test_an_expiry_is_counted_as_an_end_with_the_time_it_took() -> None:
    before = counted("sfumato_outcomes_total", model="m", state="failed")
    measured = counted("sfumato_job_seconds_count", model="m", priority="normal")
    site = Site()
    dispatcher = leading(site)
    site.publish(make_job(1, expires_at=NOW + 5))
    site.now += 5
    run(dispatcher.turn(site.now))
    assert counted("sfumato_outcomes_total", model="m", state="failed") == before + 1
    assert counted("sfumato_job_seconds_count", model="m", priority="normal") == measured + 1


def test_an_expiry_that_loses_tells_the_outcome_that_holds() -> None:
    before = counted("sfumato_outcomes_total", model="m", state="canceled")
    site = Site()
    dispatcher = leading(site)
    canceled = Outcome(job_id=make_job(1).id, state=State.CANCELED, at=NOW)
    site.world.outcomes[make_job(1).id] = canceled
    site.publish(make_job(1, expires_at=NOW + 5))
    site.now += 5
    run(dispatcher.turn(site.now))
    assert [event.outcome for event in site.told(Ended)] == [canceled]
    assert counted("sfumato_outcomes_total", model="m", state="canceled") == before


@pytest.mark.parametrize("seam", ["decide failed", "decided failed", "append final", "appended final"])
def test_an_expiry_is_finished_by_the_next_turn(seam: str) -> None:
    site = Site()
    dispatcher = leading(site)
    site.publish(make_job(1, expires_at=NOW + 5))
    site.now += 5
    site.fails = seam
    with pytest.raises(TransientError):
        run(dispatcher.turn(site.now))
    run(dispatcher.turn(site.now))
    assert site.told(Ended)[-1].outcome == site.world.outcomes[make_job(1).id]
    site.now += 1
    run(dispatcher.turn(site.now))
    assert site.topic.committed.position == 1


def test_a_job_that_killed_three_workers_alone_is_decided_failed() -> None:
    site = Site()
    dispatcher = leading(site)
    site.publish(make_job(1))
    for death in range(4):
        site.beat(worker=f"w{death}")
        run(dispatcher.turn(site.now))
        (work,) = site.works
        who = {"job_id": work.job.id, "attempt": 0, "delivery": work.delivery}
        site.tell(Started(**who, at=site.now, worker=f"w{death}"))
        run(dispatcher.turn(site.now))
        site.now += 10
        site.topic.work.clear()
        site.tell(Returned(**who, at=site.now, worker=f"w{death + 1}", reason="left_over"))
        run(dispatcher.turn(site.now))
    error = site.world.outcomes[make_job(1).id].error
    assert error is not None
    assert error.slug == "dead-letter"
    assert [event.outcome.error for event in site.told(Ended)] == [error]
    assert [(letter.job, letter.outcome.error) for letter in site.topic.dead] == [(make_job(1), error)]


def test_first_job_of_a_model_without_workers_is_told_at_once() -> None:
    site = Site()
    dispatcher = leading(site)
    run(dispatcher.turn(site.now))
    assert len(site.told(Standing)) == 1

    site.now += 0.1
    site.publish(make_job(1))
    run(dispatcher.turn(site.now))
    site.now += 0.1
    site.publish(make_job(2))
    run(dispatcher.turn(site.now))

    assert [standing.waiting for standing in site.told(Standing)] == [0, 1]


def test_standing_is_told_when_it_changed_at_most_once_a_second() -> None:
    site = Site()
    dispatcher = leading(site)
    for n in range(1, 31):
        site.publish(make_job(n))
        site.now += 0.1
        run(dispatcher.turn(site.now))
    for _ in range(30):
        site.now += 0.1
        run(dispatcher.turn(site.now))
    told = site.told(Standing)
    assert 3 <= len(told) <= 5
    assert told[-1].waiting == 30


def test_closing_commits_what_is_decided() -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat()
    site.publish(make_job(1))
    run(dispatcher.turn(site.now))
    site.end(site.works[0])
    run(dispatcher.turn(site.now))
    run(dispatcher.close())
    assert site.topic.committed.position == 1


def waiting(priority: str) -> tuple[float, float]:
    """How many jobs wait, and for how long the oldest has, as the metrics say."""
    labels = {"model": "m", "priority": priority}
    return counted("sfumato_waiting_jobs", **labels), counted("sfumato_oldest_waiting_seconds", **labels)


def test_the_queue_is_measured_by_priority() -> None:
    site = Site()
    dispatcher = leading(site)
    jobs = [make_job(1, priority="low"), make_job(2, priority="low"), make_job(3, priority="high")]
    site.publish(*jobs)
    site.now += 10
    run(dispatcher.turn(site.now))
    assert waiting("low") == (2, 9)
    assert waiting("high") == (1, 7)
    assert waiting("normal") == (0, 0)


def test_a_job_that_was_handed_out_is_not_measured_as_waiting() -> None:
    site = Site()
    dispatcher = leading(site)
    site.beat()
    site.publish(make_job(1, priority="low"), make_job(2, priority="high"))
    site.now += 10
    run(dispatcher.turn(site.now))
    assert [work.job.priority for work in site.works] == ["high"]
    assert (waiting("low")[0], waiting("high")[0]) == (1, 0)


def test_who_leads_no_more_says_that_it_knows_nothing_of_the_queue() -> None:
    site = Site()
    dispatcher = leading(site)
    site.publish(make_job(1))
    run(dispatcher.turn(site.now))
    dispatcher.stand_down()
    assert math.isnan(waiting("normal")[0])
