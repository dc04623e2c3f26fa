"""How fast a model works, learned from the jobs it finishes."""

import pytest

from sfumato.dispatcher.pace import Pace


def test_nothing_is_known_before_a_job_is_done() -> None:
    assert Pace().cost_per_s is None


def test_idle_time_does_not_count() -> None:
    pace = Pace()
    pace.done(100, begun_at=0, ended_at=10)
    pace.done(100, begun_at=5_000, ended_at=5_010)
    assert pace.cost_per_s == 10


def test_what_runs_side_by_side_is_counted_once() -> None:
    pace = Pace()
    for _ in range(4):
        pace.done(100, begun_at=0, ended_at=10)
    assert pace.cost_per_s == 40


def test_cost_counts_and_not_how_many_jobs() -> None:
    pace = Pace()
    pace.done(10, begun_at=0, ended_at=1)
    pace.done(1_000, begun_at=1, ended_at=101)
    assert pace.cost_per_s == 10


def test_a_change_of_pace_is_soon_believed() -> None:
    pace = Pace()
    for second in range(1_000):
        pace.done(10, begun_at=second, ended_at=second + 1)
    for second in range(1_000, 1_300):
        pace.done(1, begun_at=second, ended_at=second + 1)
    assert pace.cost_per_s == pytest.approx(1, abs=1)


def test_what_was_measured_is_not_unlearned() -> None:
    pace = Pace()
    pace.done(10, begun_at=0, ended_at=1)
    pace.learn(99)
    assert pace.cost_per_s == 10
