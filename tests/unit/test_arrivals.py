"""How much work arrives."""

import pytest

from sfumato.dispatcher.arrivals import FAST_S, Arrivals
from tests.support import NOW


def test_steady_stream_has_its_rate_in_both_averages() -> None:
    arrivals = Arrivals()
    for second in range(600):
        arrivals.add(200.0, NOW + second)
    assert arrivals.rates(NOW + 599.5) == pytest.approx((200.0, 200.0), rel=0.06)
    assert arrivals.mean_cost == 200.0


def test_burst_shows_in_the_short_average_first_and_longer_in_the_long_one() -> None:
    arrivals = Arrivals()
    for _ in range(100):
        arrivals.add(10.0, NOW)
    at_once, later = arrivals.rates(NOW), arrivals.rates(NOW + 5 * FAST_S)
    assert at_once[0] > 5 * at_once[1]
    assert later[0] < later[1]


def test_one_job_of_long_ago_is_nothing() -> None:
    arrivals = Arrivals()
    arrivals.add(10.0, NOW)
    assert arrivals.rates(NOW + 3_600) == (0.0, 0.0)


def test_jobs_that_come_late_or_by_a_clock_that_jumps_count_all_the_same() -> None:
    arrivals = Arrivals()
    arrivals.add(10.0, NOW)
    arrivals.add(10.0, NOW - 100)
    assert arrivals.rates(NOW - 50)[0] == pytest.approx(2 * 10.0 / FAST_S)


def test_mean_cost_follows_the_latest_jobs() -> None:
    arrivals = Arrivals()
    for number in range(1_000):
        arrivals.add(1.0 if number < 500 else 9.0, NOW + number)
    assert arrivals.mean_cost == pytest.approx(9.0, rel=0.01)
