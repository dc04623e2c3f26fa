"""What the controller sees of a model in its event log."""

from typing import Any

import pytest

from sfumato.controller.sight import STALE_S, Sight
from sfumato.core.events import Alive, Running, Standing
from tests.support import NOW, job_id

MODEL = "restyle"


def standing(**changes: Any) -> Standing:
    plain: dict[str, Any] = {"at": NOW, "waiting": 0, "running": 0, "slots": 0, "workers": 0}
    return Standing(**(plain | {"oldest_created_at": None, "seconds_per_job": 0.0} | changes))


def alive(worker: str = "w", jobs: int = 0, **changes: Any) -> Alive:
    running = tuple(Running(job_id=job_id(n), attempt=0, delivery=0, step=0, steps=4) for n in range(jobs))
    return Alive(**({"at": NOW, "worker": worker, "slots": 4, "lanes": (0,), "running": running} | changes))


@pytest.fixture
def sight() -> Sight:
    return Sight(silent_s=5.0)


def test_nothing_is_known_before_a_dispatcher_tells(sight: Sight) -> None:
    sight.apply(MODEL, alive(), NOW)
    assert sight.load(MODEL, NOW) is None


def test_nothing_is_known_when_the_dispatcher_is_silent_for_long(sight: Sight) -> None:
    sight.apply(MODEL, standing(), NOW)
    assert sight.load(MODEL, NOW + STALE_S) is not None
    assert sight.load(MODEL, NOW + STALE_S + 1) is None


def test_work_is_counted_in_seconds_of_a_worker(sight: Sight) -> None:
    told = standing(
        waiting=6,
        running=2,
        waiting_cost=6_000,
        worker_cost_per_s=500.0,
        mean_cost=1_000.0,
        arriving=(250.0, 125.0),
        cold_start_s=8.0,
        oldest_created_at=NOW - 7,
    )
    sight.apply(MODEL, told, NOW)
    load = sight.load(MODEL, NOW + 1)
    assert load is not None
    assert (load.waiting, load.running, load.waiting_work_s, load.seconds_per_job) == (6, 2, 12.0, 2.0)
    assert (load.arriving_fast, load.arriving_slow) == (0.5, 0.25)
    assert (load.cold_start_s, load.oldest_wait_s) == (8.0, 8.0)


def test_work_is_unknown_before_a_job_was_done(sight: Sight) -> None:
    sight.apply(MODEL, standing(waiting=3, waiting_cost=3_000, mean_cost=1_000.0, arriving=(9.0, 9.0)), NOW)
    load = sight.load(MODEL, NOW)
    assert load is not None
    assert (load.waiting, load.waiting_work_s, load.seconds_per_job, load.arriving_fast) == (3, 0.0, 0.0, 0.0)


def test_only_workers_that_live_and_stay_count_the_idlest_first(sight: Sight) -> None:
    sight.apply(MODEL, alive("silent"), NOW - 6)
    sight.apply(MODEL, alive("leaves", draining=True), NOW)
    sight.apply(MODEL, alive("busy", jobs=3), NOW)
    sight.apply(MODEL, alive("idle"), NOW)
    assert [each.worker for each in sight.workers(MODEL, NOW)] == ["idle", "busy"]


def test_model_is_broken_while_its_last_worker_could_not_load_it(sight: Sight) -> None:
    def broken() -> bool:
        load = sight.load(MODEL, NOW)
        assert load is not None
        return load.broken

    sight.apply(MODEL, standing(waiting=1), NOW)
    assert not broken()
    sight.apply(MODEL, alive("a", slots=0, draining=True, trouble="the weights are cut off"), NOW)
    assert broken()
    sight.apply(MODEL, alive("b"), NOW)
    assert not broken()
