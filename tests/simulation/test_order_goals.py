"""The order's goals in one discrete-event simulation: the real ledger, workers that only take time, a virtual clock.

`python -m tests.simulation.test_order_goals` prints its figures, and how fast the ledger itself is.
"""

import heapq
import itertools
import random
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from sfumato.core.events import Alive, Ended, Event, Started
from sfumato.core.job import Job, Outcome, Priority, State, Work
from sfumato.core.ports import Lead, Logged
from sfumato.dispatcher.ledger import Ledger
from tests.support import job_id, make_job

SLOTS = 4
LATENCY_S = 0.005
"""One way between dispatcher and worker, each way."""
BEAT_S = 2.0
FLOOD = 3_000
FLEETS = (1, 4, 16, 32)


@dataclass
class _Worker:
    name: str
    lane: int
    queue: deque[Work] = field(default_factory=deque)
    busy: int = 0


class Cluster:
    """A model's dispatcher and workers; a job takes 0.5 to 1.5 s on a slot, whatever runs beside it."""

    def __init__(self, workers: int, seed: int = 1) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.ledger = Ledger(Lead(0, ""), silence_s=3.0)
        self.workers = {f"w{lane}": _Worker(f"w{lane}", lane) for lane in range(workers)}
        self.began: dict[str, float] = {}
        self.jobs: dict[str, Job] = {}
        self.finished: list[tuple[float, str]] = []
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count(1)
        for worker in self.workers.values():
            self._beat(worker)

    def at(self, moment: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (moment, next(self._numbers), what))

    def run(self, until: float) -> None:
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, what = heapq.heappop(self._agenda)
            what()

    def submit(self, owner: str, priority: Priority = Priority.NORMAL) -> str:
        number = len(self.jobs) + 1
        job = make_job(number, owner=owner, priority=priority, created_at=self.now, expires_at=self.now + 86_400)
        self.jobs[job.id] = job
        self.ledger.read([Logged(number, job)])
        self._act()
        return job.id

    def waits(self, owner: str) -> list[float]:
        """Submission to start, in seconds, of the owner's jobs that began."""
        return sorted(at - self.jobs[job].created_at for job, at in self.began.items() if self.jobs[job].owner == owner)

    def _act(self) -> None:
        for hand_out in self.ledger.hand_outs(self.now):
            self.at(self.now + LATENCY_S, partial(self._arrive, hand_out.work, hand_out.told.worker))

    def _arrive(self, work: Work, to: str) -> None:
        worker = self.workers[to]
        worker.queue.append(work)
        self._begin(worker)

    def _begin(self, worker: _Worker) -> None:
        while worker.queue and worker.busy < SLOTS:
            work = worker.queue.popleft()
            worker.busy += 1
            self.began[work.job.id] = self.now
            self._tell(Started(**_who(work, self.now), worker=worker.name))
            self.at(self.now + self.dice.uniform(0.5, 1.5), partial(self._finish, worker, work))

    def _finish(self, worker: _Worker, work: Work) -> None:
        worker.busy -= 1
        self.finished.append((self.now, work.job.id))
        outcome = Outcome(job_id=work.job.id, state=State.SUCCEEDED, at=self.now)
        self._tell(Ended(**_who(work, self.now), outcome=outcome))
        self._begin(worker)

    def _beat(self, worker: _Worker) -> None:
        self._tell(Alive(at=self.now, worker=worker.name, slots=SLOTS, lanes=(worker.lane,)))
        self.at(self.now + BEAT_S, partial(self._beat, worker))

    def _tell(self, event: Event) -> None:
        self.at(self.now + LATENCY_S, partial(self._hear, event))

    def _hear(self, event: Event) -> None:
        self.ledger.apply(event, self.now)
        self._act()


def _who(work: Work, now: float) -> dict[str, object]:
    return {"job_id": work.job.id, "at": now, "attempt": work.attempt, "delivery": work.delivery}


def throughput_alone(workers: int) -> float:
    """What one owner gets, as a share of what the slots can do (a job takes 1 s on average)."""
    cluster, seconds = Cluster(workers), 60.0
    for _ in range(int(workers * SLOTS * seconds * 1.2)):
        cluster.submit("alone")
    cluster.run(until=5 + seconds)
    return sum(at > 5 for at, _ in cluster.finished) / (workers * SLOTS * seconds)


def waits_beside_a_flood(workers: int) -> list[float]:
    """How long the jobs of ten modest owners wait (seconds, sorted) while another has 3,000 in the queue.

    Together they ask for a fifth of the slots. The flood is there from the beginning and never runs dry.
    """
    cluster, dice = Cluster(workers), random.Random(2)
    for _ in range(FLOOD):
        cluster.submit("flood")
    moment = 5.0
    for number in range(600):
        moment += dice.expovariate(workers * SLOTS / 5)
        cluster.at(moment, partial(cluster.submit, f"modest {number % 10}"))
        for _ in range(4):
            cluster.at(moment, partial(cluster.submit, "flood"))
    cluster.run(until=moment + 30)
    return sorted(itertools.chain.from_iterable(cluster.waits(f"modest {number}") for number in range(10)))


def p99(ordered: list[float]) -> float:
    return ordered[int(len(ordered) * 0.99)]


@pytest.mark.parametrize("workers", FLEETS)
def test_an_owner_alone_gets_the_whole_fleet(workers: int) -> None:
    assert throughput_alone(workers) >= 0.95


@pytest.mark.parametrize("workers", FLEETS)
def test_beside_a_flood_the_others_begin_within_a_second(workers: int) -> None:
    waits = waits_beside_a_flood(workers)
    assert len(waits) == 600
    assert p99(waits) <= 1.0


def test_low_never_starves_while_high_and_normal_keep_coming() -> None:
    cluster = Cluster(workers=1)
    for priority in Priority:
        for _ in range(300):
            cluster.submit("one owner", priority)
    cluster.run(until=60)
    begun = Counter(cluster.jobs[job].priority for job in cluster.began)
    shares = {priority: count / begun.total() for priority, count in begun.items()}
    assert shares == {
        Priority.HIGH: pytest.approx(0.70, abs=0.02),
        Priority.NORMAL: pytest.approx(0.25, abs=0.02),
        Priority.LOW: pytest.approx(0.05, abs=0.02),
    }


def fold_seconds(jobs: int, owners: int = 100) -> float:
    """How long a successor takes to fold so many waiting jobs, already decoded."""
    logged = [
        Logged(n, make_job(n, owner=f"owner {n % owners}", priority=list(Priority)[n % 3])) for n in range(1, jobs + 1)
    ]
    ledger = Ledger(Lead(0, ""), silence_s=3.0)
    begin = time.perf_counter()
    ledger.read(logged)
    ledger.standing(0.0)
    return time.perf_counter() - begin


def hand_outs_per_second(jobs: int = 20_000, workers: int = 32) -> float:
    """Hand-outs of a second of the dispatcher's own time, each followed by its job's start and end."""
    ledger = Ledger(Lead(0, ""), silence_s=3.0)
    ledger.read([Logged(n, make_job(n, owner=f"owner {n % 100}")) for n in range(1, jobs + 1)])
    for lane in range(workers):
        ledger.apply(Alive(at=0, worker=f"w{lane}", slots=SLOTS, lanes=(lane,)), 0)
    outcome = Outcome(job_id=job_id(1), state=State.SUCCEEDED, at=0)
    done, begin = 0, time.perf_counter()
    while hand_outs := ledger.hand_outs(1.0):
        for hand_out in hand_outs:
            who = _who(hand_out.work, 1.0)
            ledger.apply(Started(**who, worker=hand_out.told.worker), 1.0)
            ledger.apply(Ended(**who, outcome=outcome), 1.0)
            done += 1
        ledger.commit()
    assert done == jobs
    return done / (time.perf_counter() - begin)


def figures() -> Iterator[str]:
    """Lines with what the tests above only compare, and with the ledger's own speed."""
    for workers in FLEETS:
        alone, waits = throughput_alone(workers), waits_beside_a_flood(workers)
        beside = f"beside a flood p50 {statistics.median(waits):.2f} s, p99 {p99(waits):.2f} s"
        yield f"{workers:2} workers: alone {alone:.2f} of ideal; {beside}"
    yield f"100,000 waiting jobs folded in {fold_seconds(100_000):.2f} s"
    yield f"{hand_outs_per_second():,.0f} hand-outs a second"


if __name__ == "__main__":
    for line in figures():
        sys.stdout.write(f"{line}\n")
