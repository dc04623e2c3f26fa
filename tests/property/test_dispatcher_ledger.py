"""Any interleaving of what clients, workers and dispatchers do keeps the ledger's promises."""

from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfumato.core.events import Alive, Ended, Event, Retried, Returned, Running, Started
from sfumato.core.job import Job, Outcome, Problem, State, Work
from sfumato.core.ports import Batch, Lead, Logged
from sfumato.dispatcher.ledger import Ledger
from tests.support import NOW, make_job

SILENCE_S = 3.0
SLOTS = {"a": 1, "b": 2, "c": 3}
PROBLEM = Problem(slug="try-again", title="Try again", detail="a passing trouble")
pick = st.randoms(use_true_random=False)


class OneModel(RuleBasedStateMachine):
    """Honest workers that may die, clients that repeat themselves, and dispatchers that follow each other."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.ledger = Ledger(Lead(0, ""), SILENCE_S)
        self.committed = Lead(0, "")
        self.jobs: list[Job] = []
        self.log: list[Event] = []
        self.ended: set[str] = set()
        self.lanes: dict[str, dict[str, Work]] = {name: {} for name in SLOTS}
        self.started: set[tuple[str, int, int]] = set()

    def tell(self, event: Event) -> None:
        self.log.append(event)
        self.ledger.follow(Batch([Logged(len(self.log), event)], str(len(self.log))), self.now)

    def publish(self, job: Job) -> None:
        self.jobs.append(job)
        self.ledger.read([Logged(len(self.jobs), job)])

    def end(self, job_id: str, state: State) -> None:
        outcome = Outcome(job_id=job_id, state=state, at=self.now)
        self.ended.add(job_id)
        self.tell(Ended(job_id=job_id, at=self.now, attempt=0, delivery=0, outcome=outcome))

    def any_work(self, dice: Random) -> tuple[str, Work]:
        return dice.choice([(worker, work) for worker, lane in self.lanes.items() for work in lane.values()])

    @rule(owner=st.sampled_from(["ann", "bob"]), cost=st.integers(1, 100))
    def submit(self, owner: str, cost: int) -> None:
        number = len(self.jobs) + 1
        self.publish(make_job(number, owner=owner, cost=cost, expires_at=NOW + 10_000))

    @precondition(lambda self: self.jobs)
    @rule(dice=pick)
    def submit_again(self, dice: Random) -> None:
        self.publish(dice.choice(self.jobs))

    @precondition(lambda self: self.jobs)
    @rule(dice=pick)
    def cancel(self, dice: Random) -> None:
        self.end(dice.choice(self.jobs).id, State.CANCELED)

    @rule(name=st.sampled_from(sorted(SLOTS)))
    def beat(self, name: str) -> None:
        running = tuple(
            Running(**_of(work), step=1, steps=2)
            for work in self.lanes[name].values()
            if (work.job.id, work.attempt, work.delivery) in self.started
        )
        lane = sorted(SLOTS).index(name)
        self.tell(Alive(at=self.now, worker=name, slots=SLOTS[name], lanes=(lane,), running=running))

    @rule(told=st.booleans())
    def hand_out(self, told: bool) -> None:
        hand_outs = self.ledger.hand_outs(self.now)
        for hand_out in hand_outs if told else ():
            lane, work = self.lanes[hand_out.told.worker], hand_out.work
            self.tell(hand_out.told)
            lane[work.job.id] = work
            # A canceled job leaves its worker within a step; its slot is given away at once.
            held = [other for other in lane.values() if other.job.id not in self.ended or other is work]
            assert len(held) <= SLOTS[hand_out.told.worker] + 1
            assert len(held) == 1 or not any(other.alone for other in held)
        if not told:
            self.ledger.take_back(hand_outs)

    @precondition(lambda self: any(self.lanes.values()))
    @rule(dice=pick)
    def start(self, dice: Random) -> None:
        worker, work = self.any_work(dice)
        self.started.add((work.job.id, work.attempt, work.delivery))
        self.tell(Started(**_of(work), at=self.now, worker=worker))

    @precondition(lambda self: any(self.lanes.values()))
    @rule(dice=pick, how=st.sampled_from(["succeed", "retry", "drain"]))
    def leave(self, dice: Random, how: str) -> None:
        worker, work = self.any_work(dice)
        del self.lanes[worker][work.job.id]
        if how == "succeed" or work.job.id in self.ended:
            self.end(work.job.id, State.SUCCEEDED)
        elif how == "drain":
            self.tell(Returned(**_of(work), at=self.now, worker=worker, reason="drain"))
        else:
            who = _of(work) | {"attempt": work.attempt + 1, "delivery": 0}
            self.tell(Retried(**who, at=self.now, not_before=self.now + 2, error=PROBLEM))

    @rule(name=st.sampled_from(sorted(SLOTS)), finder=st.sampled_from(sorted(SLOTS)))
    def die(self, name: str, finder: str) -> None:
        self.now += SILENCE_S + 0.1
        for work in self.lanes[name].values():
            self.tell(Returned(**_of(work), at=self.now, worker=finder, reason="left_over"))
        self.lanes[name].clear()

    @rule()
    def pass_time(self) -> None:
        self.now += 1.0

    @rule()
    def commit(self) -> None:
        self.committed = self.ledger.commit()

    @rule()
    def be_succeeded(self) -> None:
        start = self.committed.position
        self.ledger = Ledger(self.committed, SILENCE_S)
        self.ledger.read([Logged(n, job) for n, job in enumerate(self.jobs[start:], start + 1)])
        first = int(self.committed.metadata or 0)
        events = [Logged(n, event) for n, event in enumerate(self.log[first:], first + 1)]
        self.ledger.follow(Batch(events, str(len(self.log))), self.now, replay=True)

    @invariant()
    def commit_never_passes_an_undecided_job(self) -> None:
        position = self.ledger.commit().position
        assert {job.id for job in self.jobs[:position]} <= self.ended

    @invariant()
    def every_undecided_job_waits_or_is_out(self) -> None:
        standing = self.ledger.standing(self.now)
        ahead = {job.id for job in self.jobs[self.committed.position :]}
        # A job published again after its end was committed may run again; its worker will find the outcome.
        assert len(ahead - self.ended) <= standing.waiting + standing.running <= len(ahead)
        assert standing.running <= sum(map(len, self.lanes.values()))

    def teardown(self) -> None:
        """Left in peace, everything comes to its end."""
        for _ in range(4 * len(self.jobs) + 10):
            self.now += 31.0
            for name in SLOTS:
                self.beat(name)
            for end in self.ledger.ends(self.now, 100):
                self.end(end.job_id, State.FAILED)
            self.hand_out(told=True)
            for lane in self.lanes.values():
                for work in list(lane.values()):
                    self.end(work.job.id, State.SUCCEEDED)
                lane.clear()
        assert {job.id for job in self.jobs} == self.ended
        assert self.ledger.commit().position == len(self.jobs)


def _of(work: Work) -> dict[str, Any]:
    return {"job_id": work.job.id, "attempt": work.attempt, "delivery": work.delivery}


OneModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestOneModel = OneModel.TestCase
