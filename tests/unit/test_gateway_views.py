"""Estimates and times as callers see them."""

import pytest

from sfumato.core.events import Running, Standing, new_row
from sfumato.core.job import State
from sfumato.gateway.views import Estimate, estimate, retry_after_s, rfc3339
from tests.support import NOW, make_job

WAITING = new_row(make_job())
RUNNING = WAITING.model_copy(update={"state": State.RUNNING})
STANDING = Standing(at=NOW, waiting=9, running=2, slots=2, workers=1, oldest_created_at=None, seconds_per_job=3.0)


@pytest.mark.parametrize(("ahead", "eta_s"), [(0, 3.0), (1, 3.0), (2, 6.0), (9, 15.0)])
def test_each_round_of_slots_takes_the_time_of_one_job(ahead: int, eta_s: float) -> None:
    assert estimate(WAITING, ahead, STANDING, None, NOW) == Estimate(ahead + 1, eta_s)


def test_nobody_knows_when_without_a_dispatcher() -> None:
    assert estimate(WAITING, 4, None, None, NOW) == Estimate(5, None)
    assert estimate(RUNNING, 0, None, None, NOW) == Estimate(0, None)


def test_a_retry_does_not_begin_before_its_time() -> None:
    row = WAITING.model_copy(update={"not_before": NOW + 20})
    assert estimate(row, 0, STANDING, None, NOW).eta_s == 20


def test_a_running_job_has_the_rest_of_its_steps_to_go() -> None:
    progress = Running(job_id=RUNNING.id, attempt=0, delivery=0, step=3, steps=4)
    assert estimate(RUNNING, 0, STANDING, progress, NOW) == Estimate(0, 0.8)


@pytest.mark.parametrize(("eta_s", "seconds"), [(None, 1), (0.0, 1), (1.2, 2), (29.5, 30), (900.0, 30)])
def test_retry_after_is_whole_seconds_from_1_to_30(eta_s: float | None, seconds: int) -> None:
    assert retry_after_s(Estimate(1, eta_s)) == seconds


def test_times_are_rfc_3339() -> None:
    assert rfc3339(NOW + 0.5) == "2023-11-14T22:13:20.500Z"
    assert rfc3339(None) is None
