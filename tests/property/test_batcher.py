"""The batcher under any order of arrivals, departures and calls, beside a plain list of who is in."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfumato.core.params import Shape
from sfumato.engine.batcher import Batcher, Call, Whose

SHAPES = [Shape(64, 64), Shape(96, 48), Shape(48, 96)]


@dataclass
class Job:
    key: str
    shape: Shape
    rows: int
    steps: int
    urgent: bool


class Batching(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(4)
        self.jobs: list[Job] = []
        self.count = 0
        self.left_out = 0

    @rule(
        shape=st.sampled_from(SHAPES),
        rows=st.integers(1, 2),
        steps=st.integers(1, 5),
        urgent=st.sampled_from([False, False, True]),
        whose=st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from([0.01, 1.0, 3.0])),
    )
    def arrive(self, shape: Shape, rows: int, steps: int, urgent: bool, whose: tuple[str, float]) -> None:
        self.count += 1
        job = Job(f"job {self.count}", shape, rows, steps, urgent)
        self.batcher.add(job.key, shape, rows, urgent=urgent, whose=Whose(*whose))
        self.jobs.append(job)

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
        assert (call is None) == (not self.jobs)
        if call is None:
            return
        riders = [job for job in self.jobs if job.key in call.keys]
        self.is_of_one_shape_and_wastes_no_row(call, riders)
        self.is_led_by_whose_turn_it_is(call, riders)
        for job in riders:
            job.steps -= 1
            if not job.steps:
                self.jobs.remove(job)
                self.batcher.remove(job.key)

    def is_of_one_shape_and_wastes_no_row(self, call: Call, riders: list[Job]) -> None:
        waiting = [job for job in self.jobs if job.shape == call.shape and job not in riders]
        rows, cap = sum(job.rows for job in riders), self.batcher.cap(call.shape)
        assert len(riders) == len(call.keys)
        assert {job.shape for job in riders} == {call.shape}
        assert rows <= cap or len(riders) == 1
        assert all(job.rows > cap - rows for job in waiting)

    def is_led_by_whose_turn_it_is(self, call: Call, riders: list[Job]) -> None:
        urgent = [job for job in self.jobs if job.urgent]
        ordinary = [job for job in self.jobs if not job.urgent]
        first = next(job for job in self.jobs if job.key == call.keys[0])
        assert first in (*urgent[:1], *ordinary[:1])
        if not first.urgent and urgent:
            assert self.left_out == 3
        self.left_out = self.left_out + 1 if ordinary and ordinary[0] not in riders else 0
        assert self.left_out <= 3

    @invariant()
    def it_knows_who_is_in(self) -> None:
        assert len(self.batcher) == len(self.jobs)


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
