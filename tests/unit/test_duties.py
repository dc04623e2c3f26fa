"""What a worker owes a job, duty by duty, and in which order."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from sfumato.core.errors import PermanentError, TransientError
from sfumato.core.events import Ended, Retried, Returned, Started, Unreadable, decode_event
from sfumato.core.job import Outcome, State, Work
from sfumato.core.ports import Received
from sfumato.core.retry import RetryPolicy
from sfumato.worker.duties import Duties, Held, Result
from tests.simulation.memory import MemoryBlobs, MemoryBroker, MemoryOutcomes, MemoryWork, World
from tests.support import NOW, counted, make_job

T = TypeVar("T")

JOB = make_job()
RESULT = Result(b"picture", "image/png", 64, 64, nonce="n1")


class Bench:
    """A worker's duties over a world in memory, with what happened in order."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.world = World(clock=lambda: NOW, io=self._note)
        broker = MemoryBroker(self.world)
        self.work: MemoryWork = broker.work("restyle")
        self.duties = Duties(
            "w1",
            self.work,
            broker.events("restyle"),
            MemoryBlobs(self.world),
            MemoryOutcomes(self.world),
            RetryPolicy(),
        )

    async def _note(self, what: str) -> None:
        self.happened.append(what)

    def receive(self) -> Received:
        """Hand `JOB` out to this worker and receive it."""

        async def steps() -> Received:
            await self.work.receive(0, wait_s=0)
            await self.work.hand_out([Work(job=JOB, lane=min(self.work.lanes), attempt=0, delivery=0)])
            return (await self.work.receive(1, wait_s=0))[0]

        return run(steps())

    def hold(self) -> Held:
        received = self.receive()
        held = run(self.duties.take(received, NOW))
        assert held is not None
        run(self.duties.start(held, NOW))
        return held

    @property
    def told(self) -> list[Any]:
        return [decode_event(raw) for raw in self.world.topic("restyle").events]

    @property
    def unacknowledged(self) -> int:
        return len(self.world.topic("restyle").work)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def test_a_job_is_told_as_started_before_it_runs() -> None:
    bench = Bench()

    held = bench.hold()

    assert held.job == JOB
    assert isinstance(bench.told[0], Started)
    assert bench.unacknowledged == 1


def test_success_stores_then_decides_then_tells_then_acknowledges() -> None:
    bench = Bench()
    held = bench.hold()
    bench.happened.clear()

    run(bench.duties.succeed(held, RESULT, NOW))

    effects = [what for what in bench.happened if what in {"stored outputs", "decided succeeded", "appended final"}]
    assert effects == ["stored outputs", "decided succeeded", "appended final"]
    assert bench.happened[-1] == "acknowledged"
    assert bench.unacknowledged == 0


def test_a_left_over_job_is_returned_instead_of_run() -> None:
    bench = Bench()
    received = bench.receive()

    held = run(bench.duties.take(Received(received.work, received.receipt, left_over=True), NOW))

    assert held is None
    assert [(type(event), event.reason) for event in bench.told] == [(Returned, "left_over")]
    assert bench.unacknowledged == 0


def test_a_job_that_ended_before_is_told_again_and_acknowledged() -> None:
    bench = Bench()
    received = bench.receive()
    canceled = Outcome(job_id=JOB.id, state=State.CANCELED, at=NOW)
    bench.world.outcomes[JOB.id] = canceled

    assert run(bench.duties.take(received, NOW)) is None

    assert [event.outcome for event in bench.told if isinstance(event, Ended)] == [canceled]
    assert bench.unacknowledged == 0


def test_a_job_past_its_time_fails_as_expired() -> None:
    bench = Bench()
    received = bench.receive()

    assert run(bench.duties.take(received, JOB.expires_at)) is None

    outcome = bench.world.outcomes[JOB.id]
    assert outcome.state is State.FAILED
    assert outcome.error is not None
    assert outcome.error.slug == "expired"


def test_the_loser_of_an_outcome_deletes_its_picture_and_follows_the_winner() -> None:
    bench = Bench()
    held = bench.hold()
    winner = Outcome(job_id=JOB.id, state=State.CANCELED, at=NOW)
    bench.world.outcomes[JOB.id] = winner

    outcome = run(bench.duties.succeed(held, RESULT, NOW))

    assert outcome == winner
    assert not [key for key in bench.world.blobs if key.startswith("outputs/")]
    assert bench.told[-1].outcome == winner


def test_an_end_is_counted_by_the_worker_that_made_it() -> None:
    before = counted("sfumato_outcomes_total", model="restyle", state="succeeded")
    measured = counted("sfumato_job_seconds_count", model="restyle", priority="normal")
    bench = Bench()

    run(bench.duties.succeed(bench.hold(), RESULT, NOW))

    assert counted("sfumato_outcomes_total", model="restyle", state="succeeded") == before + 1
    assert counted("sfumato_job_seconds_count", model="restyle", priority="normal") == measured + 1


def test_an_end_made_by_another_is_not_counted_here() -> None:
    before = counted("sfumato_outcomes_total", model="restyle", state="canceled")
    bench = Bench()
    held = bench.hold()
    bench.world.outcomes[JOB.id] = Outcome(job_id=JOB.id, state=State.CANCELED, at=NOW)

    run(bench.duties.succeed(held, RESULT, NOW))

    assert counted("sfumato_outcomes_total", model="restyle", state="canceled") == before


def test_a_passing_trouble_plans_a_retry_that_waits() -> None:
    bench = Bench()
    held = bench.hold()

    outcome = run(bench.duties.fail(held, TransientError("the store is away"), NOW, dice=0.5))

    assert outcome is None
    retried = bench.told[-1]
    assert isinstance(retried, Retried)
    assert (retried.attempt, retried.delivery) == (1, 0)
    assert retried.not_before > NOW
    assert bench.unacknowledged == 0


def test_a_lasting_trouble_fails_the_job_with_its_reason() -> None:
    bench = Bench()
    held = bench.hold()

    run(bench.duties.fail(held, PermanentError("no picture in it", slug="undecodable-picture"), NOW, dice=0.5))

    outcome = bench.world.outcomes[JOB.id]
    assert outcome.error is not None
    assert (outcome.state, outcome.error.slug) == (State.FAILED, "undecodable-picture")


def test_an_input_that_is_gone_is_a_lasting_trouble() -> None:
    bench = Bench()
    held = bench.hold()

    with pytest.raises(PermanentError, match="submit it again"):
        run(bench.duties.fetch(held))


def test_a_drained_job_is_handed_back() -> None:
    bench = Bench()
    held = bench.hold()

    run(bench.duties.hand_back(held, NOW))

    assert bench.told[-1].reason == "drain"
    assert bench.unacknowledged == 0


def test_a_message_of_a_newer_build_is_left_in_its_lane() -> None:
    bench = Bench()
    received = bench.receive()

    held = run(bench.duties.take(Received(Unreadable(raw="{}", why="version 9"), received.receipt, False), NOW))

    assert held is None
    assert bench.unacknowledged == 1
