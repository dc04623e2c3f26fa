"""A bad rollout rests instead of failing the whole backlog."""

import pytest

from sfumato.core.events import Ended
from sfumato.core.job import Outcome, Problem, State
from sfumato.dispatcher.brake import MOST_FAILURES, WITHIN_S, Brake
from tests.support import NOW, job_id
from tests.unit.test_dispatcher_ledger import Model, of


def ended(at: float, slug: str = "job-failed") -> Outcome:
    error = Problem(slug=slug, title="The job can't be done", detail="the model's output is not finite")
    return Outcome(job_id=job_id(1), state=State.FAILED, at=at, error=error)


def failed(times: int, slug: str = "job-failed", at: float = NOW) -> Brake:
    brake = Brake()
    for _ in range(times):
        brake.ended(ended(at, slug), NOW)
    return brake


def test_failures_in_a_row_make_hand_outs_rest_until_their_minute_is_over() -> None:
    brake = failed(MOST_FAILURES)

    assert brake.until(NOW + 1) == NOW + WITHIN_S
    assert "not finite" in brake.trouble(NOW + 1)
    assert brake.until(NOW + WITHIN_S) == NOW + WITHIN_S
    assert brake.trouble(NOW + WITHIN_S) == ""


def test_fewer_failures_change_nothing() -> None:
    assert failed(MOST_FAILURES - 1).until(NOW) == NOW


def test_one_success_releases() -> None:
    brake = failed(MOST_FAILURES)
    brake.ended(Outcome(job_id=job_id(2), state=State.SUCCEEDED, at=NOW), NOW)

    assert brake.until(NOW) == NOW


@pytest.mark.parametrize(
    "slug", ["undecodable-picture", "input-gone", "output-refused", "expired", "does-not-fit", "invalid-parameters"]
)
def test_what_is_the_senders_fault_does_not_count(slug: str) -> None:
    assert failed(2 * MOST_FAILURES, slug).until(NOW) == NOW


def test_canceled_jobs_do_not_count() -> None:
    brake = Brake()
    for _ in range(2 * MOST_FAILURES):
        brake.ended(Outcome(job_id=job_id(1), state=State.CANCELED, at=NOW), NOW)

    assert brake.until(NOW) == NOW


def test_clock_of_a_worker_that_is_ahead_makes_nobody_rest_for_longer_than_a_minute() -> None:
    brake = failed(MOST_FAILURES, at=NOW + 86_400)

    assert [brake.until(NOW + later) for later in (0, 30, 60)] == [NOW + WITHIN_S] * 3
    assert brake.trouble(NOW + WITHIN_S) == ""


def test_ledger_hands_nothing_out_while_everything_fails_and_goes_on_after() -> None:
    model = Model(jobs=2 * MOST_FAILURES, a=MOST_FAILURES)
    for work in model.works():
        outcome = ended(model.now).model_copy(update={"job_id": work.job.id})
        model.tell(Ended(**of(work), at=model.now, outcome=outcome))
    model.beat("a")

    assert model.works() == []
    assert "none succeeded" in model.ledger.standing(model.now).trouble
    assert model.ledger.next_at(model.now) == model.now + WITHIN_S
    assert model.successor().works() == []
    model.now += WITHIN_S
    model.beat("a")
    assert len(model.works()) == MOST_FAILURES
