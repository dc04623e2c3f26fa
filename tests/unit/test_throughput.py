"""How much a worker does in a second, by how many jobs it has."""

import pytest

from sfumato.dispatcher.throughput import Throughput

COST = 1_000.0


def run_alone(throughput: Throughput, jobs: int, seconds: float, worker: str = "w", at: float = 0.0) -> float:
    """Jobs one after the other; when the last ended."""
    for number in range(jobs):
        throughput.began(worker, f"alone {number}", at)
        at += seconds
        throughput.left(worker, f"alone {number}", at, COST)
    return at


def run_together(throughput: Throughput, jobs: int, seconds: float, worker: str = "w", at: float = 0.0) -> float:
    """Jobs side by side, from one moment to another; when they ended."""
    for number in range(jobs):
        throughput.began(worker, f"{number}", at)
    for number in range(jobs):
        throughput.left(worker, f"{number}", at + seconds, COST)
    return at + seconds


def test_nothing_is_known_before_a_job_is_done() -> None:
    throughput = Throughput()
    throughput.began("w", "a", 0.0)
    assert throughput.cost_per_s == 0


def test_jobs_one_by_one_take_their_own_time() -> None:
    throughput = Throughput()
    run_alone(throughput, jobs=5, seconds=2.0)
    assert throughput.cost_per_s == COST / 2


def test_jobs_side_by_side_share_the_worker() -> None:
    throughput = Throughput()
    run_together(throughput, jobs=4, seconds=4.0)
    assert throughput.cost_per_s == pytest.approx(COST)


def test_pace_is_that_of_a_full_worker_though_most_jobs_run_alone() -> None:
    throughput = Throughput()
    at = run_together(throughput, jobs=4, seconds=4.0)
    run_alone(throughput, jobs=50, seconds=2.0, at=at)
    assert throughput.cost_per_s == pytest.approx(COST)


def test_two_workers_at_once_are_two_workers() -> None:
    throughput = Throughput()
    throughput.began("a", "1", 0.0)
    throughput.began("b", "2", 0.0)
    throughput.left("a", "1", 2.0, COST)
    throughput.left("b", "2", 2.0, COST)
    assert throughput.cost_per_s == COST / 2


def test_what_failed_or_went_back_tells_nothing() -> None:
    throughput = Throughput()
    throughput.began("w", "a", 0.0)
    throughput.left("w", "a", 0.001, 0.0)
    assert throughput.cost_per_s == 0


def test_worker_that_died_tells_nothing_when_its_job_ends_later() -> None:
    throughput = Throughput()
    throughput.began("w", "a", 0.0)
    throughput.forget("w")
    throughput.left("w", "a", 1_000.0, COST)
    assert throughput.cost_per_s == 0


def test_what_a_predecessor_told_holds_until_enough_was_seen_here() -> None:
    throughput = Throughput()
    throughput.learn(7.0)
    at = run_alone(throughput, jobs=2, seconds=1.0)
    assert throughput.cost_per_s == 7.0

    run_alone(throughput, jobs=2, seconds=1.0, at=at)

    assert throughput.cost_per_s == COST


def test_clock_that_jumps_back_breaks_nothing() -> None:
    throughput = Throughput()
    throughput.began("w", "a", 100.0)
    throughput.left("w", "a", 50.0, COST)
    run_alone(throughput, jobs=3, seconds=1.0, at=40.0)
    run_alone(throughput, jobs=3, seconds=1.0, at=200.0)
    assert throughput.cost_per_s == COST
