"""Estimates and times as callers see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.events import Alive, Running, Share, Standing, new_row
from sfumato.core.job import State
from sfumato.gateway.live import Waiting
from sfumato.gateway.places import Place
from sfumato.gateway.views import Estimate, backlog_s, estimate, estimate_running, model_json, retry_after_s, rfc3339
from sfumato.models.registry import Registry
from tests.support import NOW, job_id, make_job

WAITING = new_row(make_job())
RUNNING = WAITING.model_copy(update={"state": State.RUNNING})
COST = WAITING.job.cost
STANDING = Standing(
    at=NOW,
    waiting=10,
    running=2,
    slots=2,
    workers=1,
    oldest_created_at=None,
    seconds_per_job=3.0,
    front=(job_id(7), WAITING.id),
    front_costs=(8 * COST, COST),
    waiting_cost=30 * COST,
    running_cost=4 * COST,
    cost_per_s=COST / 2,
)

SECOND = Place(1, 8.0 * COST)


def test_what_goes_before_counts_by_its_cost() -> None:
    # Half of one that runs (1), the one before (8) and its own on one of two slots (2), at half a job a second.
    assert estimate(WAITING, SECOND, STANDING, 2, NOW) == Estimate(2, 22.0)


def test_a_job_that_finds_a_free_slot_waits_for_nobody() -> None:
    free = STANDING.model_copy(update={"running": 1, "running_cost": COST})
    assert estimate(WAITING, Place(0, 0.0), free, 2, NOW) == Estimate(1, 4.0)


def test_a_job_shares_its_worker_with_a_call_of_others_or_with_all_that_go_before_it_there() -> None:
    wide = STANDING.model_copy(update={"slots": 16, "running": 16, "running_cost": 16 * COST})
    # Half of the call that runs, and its own in each call of four, or after the others of its owner.
    assert estimate(WAITING, Place(0, 0.0, beside=1), wide, 4, NOW).eta_s == 2 * (2 + 4)
    assert estimate(WAITING, Place(0, 0.0, beside=16), wide, 4, NOW).eta_s == 2 * (2 + 16)


def test_nobody_knows_when_without_a_dispatcher_or_a_job_done() -> None:
    unmeasured = STANDING.model_copy(update={"cost_per_s": None})
    for standing in (None, unmeasured):
        assert estimate(WAITING, Place(4, 4.0), standing, 2, NOW) == Estimate(5, None)
        assert estimate_running(RUNNING, standing, None, 2) == Estimate(0, None)
        assert backlog_s(Waiting(5, 5), standing) is None


def test_first_job_of_a_model_without_workers_waits_for_one_to_start() -> None:
    nobody = {"workers": 0, "slots": 0, "running": 0, "running_cost": 0}
    asleep = STANDING.model_copy(update=nobody | {"cold_start_s": 12.5})
    assert estimate(WAITING, SECOND, asleep, 2, NOW).eta_s == 12.5 + 2 * (8 + 1)
    assert backlog_s(Waiting(1, COST), asleep) == 12.5 + 2.0


def test_workers_that_came_since_the_pace_was_measured_count() -> None:
    grown = STANDING.model_copy(update={"workers": 4, "worker_cost_per_s": COST / 2})
    assert estimate(WAITING, SECOND, grown, 2, NOW).eta_s == pytest.approx(22.0 / 4)


def test_a_retry_does_not_begin_before_its_time() -> None:
    row = WAITING.model_copy(update={"not_before": NOW + 200})
    assert estimate(row, Place(0, 0.0), STANDING, 2, NOW).eta_s == 200


def test_a_running_job_shares_the_pace_with_what_runs_beside_it() -> None:
    progress = Running(job_id=RUNNING.id, attempt=0, delivery=0, step=3, steps=4)
    assert estimate_running(RUNNING, STANDING, progress, 2) == Estimate(0, 2.0)


def test_a_running_job_waits_only_for_its_turns_beside_another_owners_flood() -> None:
    shares = (Share(owner="flood", running=15), Share(owner="local", running=1))
    wide = STANDING.model_copy(update={"slots": 16, "running": 16, "running_cost": 16 * COST, "shares": shares})
    assert estimate_running(RUNNING, wide, None, 4).eta_s == 2 * 4
    flood = RUNNING.model_copy(update={"job": RUNNING.job.model_copy(update={"owner": "flood"})})
    assert estimate_running(flood, wide, None, 4).eta_s == 2 * 16


@given(
    ahead=st.integers(0, 10**6),
    waiting=st.integers(0, 10**6),
    cost=st.integers(1, 10**9),
    cost_per_s=st.floats(1e-3, 1e12),
)
def test_an_estimate_is_never_0_while_jobs_wait(ahead: int, waiting: int, cost: int, cost_per_s: float) -> None:
    told = {"waiting": waiting, "waiting_cost": waiting * cost, "running_cost": 0, "cost_per_s": cost_per_s}
    standing = STANDING.model_copy(update=told)
    eta_s = estimate(new_row(make_job(9, cost=cost)), Place(ahead, ahead * cost), standing, 2, NOW).eta_s
    left_s = backlog_s(Waiting(1, cost), standing)
    assert eta_s is not None
    assert left_s is not None
    assert min(eta_s, left_s) > 0


def test_nothing_to_do_takes_no_time() -> None:
    assert backlog_s(Waiting(0, 0), STANDING.model_copy(update={"running": 0})) == 0


@pytest.mark.parametrize(("eta_s", "seconds"), [(0.1, 1), (1.2, 2), (29.5, 30), (900.0, 30)])
def test_retry_after_is_whole_seconds_from_1_to_30(eta_s: float, seconds: int) -> None:
    assert retry_after_s(Estimate(1, eta_s)) == seconds


@pytest.mark.parametrize(("position", "seconds"), [(0, 1), (1, 1), (3, 3), (900, 5)])
def test_retry_after_follows_the_place_where_no_time_is_known(position: int, seconds: int) -> None:
    assert retry_after_s(Estimate(position, None)) == seconds


def test_times_are_rfc_3339() -> None:
    assert rfc3339(NOW + 0.5) == "2023-11-14T22:13:20.500Z"
    assert rfc3339(None) is None


@pytest.mark.parametrize(
    ("workers", "waiting", "trouble", "state", "shown"),
    [
        (0, 0, "", "idle", None),
        (0, 1, "", "starting", None),
        (0, 1, "no weights", "broken", "no weights"),
        (1, 0, "", "ready", None),
        (1, 0, "no weights", "ready", None),
    ],
)
def test_a_model_is_broken_when_no_worker_lives_and_the_last_could_not_load_it(
    workers: int, waiting: int, trouble: str, state: str, shown: str | None
) -> None:
    (model,) = Registry.load(None)
    alive = [Alive(at=NOW, worker="w", slots=1, lanes=())] * workers
    told = model_json(model, None, Waiting(waiting, waiting), alive, trouble, NOW)
    assert (told["state"], told["trouble"]) == (state, shown)


def test_a_model_is_broken_while_its_dispatcher_rests_because_everything_fails() -> None:
    (model,) = Registry.load(None)
    alive = [Alive(at=NOW, worker="w", slots=1, lanes=())]
    rests = STANDING.model_copy(update={"trouble": "20 jobs failed"})
    told = model_json(model, rests, Waiting(3, 3), alive, "", NOW)
    assert (told["state"], told["trouble"], told["workers"]) == ("broken", "20 jobs failed", 1)
