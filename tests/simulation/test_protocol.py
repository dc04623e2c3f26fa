"""Every 202 ends once, whatever dies, fails or is answered twice at whichever await; and the judge is not blind."""

import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from sfumato.core.errors import AlreadyExists
from sfumato.core.events import Ended
from sfumato.core.job import Outcome, State
from sfumato.gateway.intake import Accepted, Intake, Submission
from sfumato.worker.duties import Duties, Held
from tests.simulation.story import Makers, Story

SEEDS = 10_000
PLANTED_WITHIN = 600
"""A planted fault must be found within this many seeds."""


def _run_many(first: int, last: int) -> list[str]:
    found = ((seed, Story(seed, Makers()).run()) for seed in range(first, last))
    return [f"seed {seed}: {trouble}" for seed, trouble in found if trouble]


@pytest.mark.timeout(300)
def test_every_accepted_job_ends_once_over_ten_thousand_seeds() -> None:
    edges = range(0, SEEDS, 250)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(_run_many, edges, (edge + 250 for edge in edges))
        trouble = [line for lines in results for line in lines]
    assert trouble == []


def test_a_story_is_the_same_each_time_it_is_told() -> None:
    histories = []
    for _ in range(2):
        story = Story(17, Makers())
        story.run()
        histories.append(story.scheduler.history)
    assert histories[0] == histories[1]


def test_a_job_that_kills_its_workers_is_found_and_the_others_succeed() -> None:
    for seed in range(40):
        story = Story(seed, Makers(), jobs=4, faults=2, poison="job 3")
        assert story.run() == "", f"seed {seed}"
        ends = {job_id: story.world.outcomes[job_id] for job_id in story.ledger.accepted}
        failed = [outcome for outcome in ends.values() if outcome.state is State.FAILED]
        assert all(outcome.error and outcome.error.slug == "dead-letter" for outcome in failed), f"seed {seed}"


class _AcknowledgesTooEarly(Duties):
    async def follow(self, held: Held, outcome: Outcome, now: float) -> None:
        await self._work.acknowledge(held.receipt)
        await super().follow(held, outcome, now)


class _TakesExistsForDone(Intake):
    async def accept(self, submission: Submission, now: float) -> Accepted:
        try:
            await self._blobs.put(f"requests/{submission.job_id}", b"", create_only=True)
        except AlreadyExists:
            return Accepted(self._job(submission, now))
        await self._store(submission.picture, self._job(submission, now).input.key)
        await self._publisher(submission.model.slug).publish(self._job(submission, now))
        return Accepted(self._job(submission, now))


class _CancelsWithoutOutcome(Intake):
    async def cancel(self, job_id: str, now: float, model: str | None = None) -> Outcome:
        del model
        outcome = Outcome(job_id=job_id, state=State.CANCELED, at=now)
        await self._sink("restyle").append([Ended(job_id=job_id, at=now, attempt=0, delivery=0, outcome=outcome)])
        return outcome


@pytest.mark.parametrize(
    "makers",
    [
        pytest.param(Makers(duties=_AcknowledgesTooEarly), id="acknowledges before the final event"),
        pytest.param(Makers(intake=_TakesExistsForDone), id="treats exists as done"),
        pytest.param(Makers(intake=_CancelsWithoutOutcome), id="cancels without an outcome"),
    ],
)
def test_a_planted_fault_is_found(makers: Makers) -> None:
    assert any(Story(seed, makers).run() for seed in range(PLANTED_WITHIN))
