"""Places foretold from a dispatcher's word, held against the order that it really makes."""

import itertools
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.events import Standing
from sfumato.core.job import Job, Priority
from sfumato.dispatcher.order import SHARES_TOLD, Order, Ticket
from sfumato.gateway.places import Place, place
from tests.support import NOW, make_job


class Queue:
    """Jobs in the dispatcher's order, and what it would tell of them without naming the first."""

    def __init__(self) -> None:
        self.order, self.jobs, self.ranks = Order(), dict[str, Job](), dict[str, int]()
        self._counts: Counter[tuple[str, Priority]] = Counter()
        self._numbers = itertools.count(1)

    def add(self, owner: str, **more: Any) -> Job:
        number = next(self._numbers)
        job = make_job(number, **{"owner": owner, "cost": 1_000, "created_at": NOW} | more)
        self.order.add(Ticket(job.id, owner, job.priority, job.cost, number, weight=job.weight))
        self.jobs[job.id] = job
        self.ranks[job.id] = self._counts[owner, job.priority]
        self._counts[owner, job.priority] += 1
        return job

    def serve(self, how_many: int) -> None:
        for _ in range(how_many):
            job_id = self.order.take(NOW)
            assert job_id is not None
            gone = self.jobs.pop(job_id)
            for other in self.jobs.values():
                self.ranks[other.id] -= (other.owner, other.priority) == (gone.owner, gone.priority)

    def standing(self, front: int = 0) -> Standing:
        told = {"waiting": len(self.jobs), "running": 0, "slots": 1, "workers": 1, "oldest_created_at": None}
        first = tuple(self.order.front(NOW, front))
        costs = tuple(self.jobs[job_id].cost for job_id in first)
        shares = self.order.shares()
        return Standing(at=NOW, seconds_per_job=1.0, front=first, front_costs=costs, shares=shares, **told)

    def foretold(self, job: Job, front: int = 0) -> Place:
        return place(job, self.ranks[job.id], self.standing(front))

    def true_place(self, job: Job) -> int:
        position = self.order.position(job.id, NOW)
        assert position is not None
        return position - 1


def test_the_last_of_a_flood_stands_behind_it_and_a_newcomer_before_it() -> None:
    queue = Queue()
    flood = [queue.add("flood") for _ in range(3_000)]
    queue.serve(500)
    single = queue.add("ann")

    assert queue.foretold(single).ahead <= 1
    assert queue.foretold(flood[-1]).ahead == queue.true_place(flood[-1]) == 2_500
    assert queue.foretold(flood[1_500]).ahead == queue.true_place(flood[1_500])


def test_a_newcomer_whom_no_standing_knows_yet_is_not_put_behind_the_flood() -> None:
    queue = Queue()
    for _ in range(3_000):
        queue.add("flood")
    queue.serve(10)
    told = queue.standing(front=50)
    newcomer = make_job(9_999, owner="ann", created_at=NOW + 1)
    assert place(newcomer, 0, told).ahead <= 1


def test_who_was_served_a_moment_ago_is_foretold_the_turns_that_others_are_given_first() -> None:
    """An owner's expensive job has just gone, so its next one waits for as much of the others' work."""
    queue = Queue()
    queue.add("ann", cost=20_000)
    for _ in range(300):
        queue.add("bob")
    queue.serve(2)
    anns = queue.add("ann")

    assert queue.true_place(anns) >= 15
    assert abs(queue.foretold(anns).ahead - queue.true_place(anns)) <= 2


def test_a_heavy_owner_is_foretold_an_earlier_end() -> None:
    queue = Queue()
    heavy, light = ([queue.add(owner, weight=weight) for _ in range(300)] for owner, weight in (("a", 3.0), ("b", 1.0)))
    queue.serve(40)
    for job in (heavy[-1], light[-1], light[60]):
        assert abs(queue.foretold(job).ahead - queue.true_place(job)) <= 6


def test_an_urgent_job_goes_before_its_owners_others_and_a_low_one_among_the_last() -> None:
    queue = Queue()
    for _ in range(400):
        queue.add("ann")
    low, high = queue.add("ann", priority=Priority.LOW), queue.add("ann", priority=Priority.HIGH)
    for job in (low, high):
        assert abs(queue.foretold(job).ahead - queue.true_place(job)) <= 2


def test_what_goes_before_has_its_cost() -> None:
    queue = Queue()
    for _ in range(100):
        queue.add("dear", cost=4_000)
    job = [queue.add("cheap", cost=1_000) for _ in range(50)][-1]
    # While 49 of its owner's go, as much of the other's does.
    foretold = queue.foretold(job)
    assert abs(foretold.cost - 2 * 49_000) <= 8_000
    assert abs(foretold.ahead - queue.true_place(job)) <= 4


def test_the_first_are_told_exactly_and_nobody_else_is_put_among_them() -> None:
    queue = Queue()
    jobs = [queue.add(f"owner {number % 5}") for number in range(100)]
    first = queue.order.front(NOW, 50)
    for job in jobs:
        foretold = place(job.model_copy(update={"created_at": NOW - 5}), queue.ranks[job.id], queue.standing(50))
        assert foretold.ahead == queue.true_place(job) if job.id in first else foretold.ahead >= 50


def test_more_owners_than_are_named_are_served_all_the_same() -> None:
    queue = Queue()
    for number in range(40):
        for _ in range(number + 1):
            queue.add(f"owner {number:02}")
    last = next(job for job in reversed(queue.jobs.values()) if job.owner == "owner 39")
    shares = queue.order.shares()
    assert len(shares) == SHARES_TOLD + 1
    assert sum(sum(share.jobs) for share in shares) == 820
    assert queue.foretold(last).ahead == queue.true_place(last) == 819


def test_a_single_job_shares_its_worker_with_one_call_and_a_floods_with_all_that_are_in_hand() -> None:
    queue = Queue()
    flood, single = [queue.add("flood") for _ in range(100)], queue.add("ann")
    shares = queue.order.shares({"flood": 15, "bob": 1})
    standing = queue.standing().model_copy(update={"slots": 16, "shares": shares})

    assert {share.owner: share.running for share in shares} == {"flood": 15, "bob": 1, "ann": 0}
    assert place(single, 0, standing).beside == 3
    assert place(flood[-1], 99, standing).beside >= 16


def test_without_a_word_of_the_dispatcher_the_owners_own_jobs_count() -> None:
    assert place(make_job(cost=10), 7, None) == Place(7, 70.0)


owners = st.sampled_from([("ann", 1.0), ("bob", 2.0), ("cy", 0.5)])
asked = st.tuples(owners, st.sampled_from(Priority), st.integers(800, 1_200))


@given(waiting=st.lists(asked, min_size=20, max_size=100), served=st.integers(0, 10))
def test_whatever_waits_places_are_about_right(
    waiting: list[tuple[tuple[str, float], Priority, int]], served: int
) -> None:
    queue = Queue()
    for (owner, weight), priority, cost in waiting:
        queue.add(owner, weight=weight, priority=priority, cost=cost)
    queue.serve(served)
    standing = queue.standing()
    for true, job_id in enumerate(queue.order.front(NOW, len(queue.jobs))):
        foretold = place(queue.jobs[job_id], queue.ranks[job_id], standing)
        # One turn of an owner of weight 0.5 is up to ten of the others'.
        assert abs(foretold.ahead - true) <= max(20, true / 3)
