"""The batcher under any order of arrivals, departures and calls, beside a plain list of who is in."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfumato.core.params import Shape
from sfumato.engine.batcher import Batcher

SHAPES = [Shape(64, 64), Shape(96, 48), Shape(48, 96)]


@dataclass
class Job:
    key: str
    shape: Shape
    rows: int
    since: float
    steps: int


class Batching(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(4)
        self.jobs: list[Job] = []
        self.now = 0.0
        self.count = 0

    @rule(
        shape=st.sampled_from(SHAPES),
        rows=st.integers(1, 2),
        steps=st.integers(1, 5),
        head_start_s=st.sampled_from([0.0, 0.0, 3.0]),
    )
    def arrive(self, shape: Shape, rows: int, steps: int, head_start_s: float) -> None:
        self.now += 1
        self.count += 1
        job = Job(f"job {self.count}", shape, rows, self.now - head_start_s, steps)
        self.batcher.add(job.key, shape, rows, self.now, head_start_s)
        self.jobs.append(job)
        self.jobs.sort(key=lambda job: job.since)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self.jobs.remove(job)
        assert self.batcher.remove(job.key)

    @rule(shape=st.sampled_from(SHAPES), rows=st.integers(1, 4))
    def run_out_of_memory(self, shape: Shape, rows: int) -> None:
        self.batcher.lower(shape, rows)

    @rule()
    def make_a_call(self) -> None:
        call = self.batcher.next()
        for job in [job for job in self.jobs if call is not None and job.key in call.keys]:
            job.steps -= 1
            if not job.steps:
                self.jobs.remove(job)
                self.batcher.remove(job.key)

    @invariant()
    def call_is_of_one_shape_holds_the_oldest_and_wastes_no_row(self) -> None:
        call = self.batcher.next()
        assert (call is None) == (not self.jobs)
        if call is None:
            return
        riders = [job for job in self.jobs if job.key in call.keys]
        waiting = [job for job in self.jobs if job.shape == call.shape and job not in riders]
        rows, cap = sum(job.rows for job in riders), self.batcher.cap(call.shape)
        assert len(riders) == len(call.keys)
        assert {job.shape for job in riders} == {call.shape}
        assert call.keys[0] == self.jobs[0].key
        assert rows <= cap or len(riders) == 1
        assert all(job.rows > cap - rows for job in waiting)

    @invariant()
    def it_knows_who_is_in(self) -> None:
        assert len(self.batcher) == len(self.jobs)


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
