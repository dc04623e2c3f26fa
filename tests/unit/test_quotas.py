"""Limits of a key: requests a second, jobs in flight, cost a day; by given clocks."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import TransientError
from sfumato.core.keys import ApiKey, Quota, Scope, Usage, key_text
from sfumato.gateway.problems import Refusal
from sfumato.gateway.quotas import DAY_S, Bucket, Quotas, Rates

NOON = 1_700_049_600.0
"""12:00 UTC of some day."""


def a_key(**quota: Any) -> ApiKey:
    return ApiKey.of(key_text(b"k" * 37), "alice", [Scope.SUBMIT], NOON, quota=Quota(**quota))


class Rows:
    """What the rows say, as a test tells them; counts how often they are asked."""

    def __init__(self) -> None:
        self.says = Usage(0, 0, frozenset())
        self.asked: list[tuple[float, Sequence[str]]] = []
        self.away = False

    async def usage(self, owner: str, since: float, job_ids: Sequence[str]) -> Usage:
        assert owner == "alice"
        self.asked.append((since, job_ids))
        if self.away:
            raise TransientError("away")
        return self.says


class Clocks:
    """Wall time and a clock that never jumps, set by the test."""

    def __init__(self) -> None:
        self.wall, self.steady = NOON, 50.0

    def quotas(self, rows: Rows, ended: frozenset[str] = frozenset()) -> Quotas:
        return Quotas(rows, ended.__contains__, lambda: self.wall, lambda: self.steady)


def take(quotas: Quotas, key: ApiKey, job_id: str, cost: int = 1) -> None:
    asyncio.run(quotas.room(key))
    with quotas.taking(key, job_id, cost):
        pass


# Requests a second


def test_a_second_s_worth_comes_at_once_and_then_as_fast_as_allowed() -> None:
    now = [0.0]
    rates, key = Rates(1, lambda: now[0]), a_key(rate=3)
    for _ in range(3):
        rates.take(key)
    with pytest.raises(Refusal) as refused:
        rates.take(key)
    assert refused.value.case.slug == "rate-exceeded"
    assert refused.value.headers == {"RateLimit-Policy": '"requests";q=3;w=1', "RateLimit": '"requests";r=0;t=1'}
    now[0] += 1 / 3 + 0.001
    rates.take(key)


def test_slow_rates_are_one_request_in_a_while() -> None:
    now = [0.0]
    rates, key = Rates(1, lambda: now[0]), a_key(rate=0.1)
    rates.take(key)
    with pytest.raises(Refusal) as refused:
        rates.take(key)
    assert refused.value.retry_after_s == 10
    assert refused.value.headers["RateLimit-Policy"] == '"requests";q=1;w=10'


def test_each_gateway_lets_its_part_through() -> None:
    rates, key = Rates(2, lambda: 0.0), a_key(rate=10)
    for _ in range(5):
        rates.take(key)
    with pytest.raises(Refusal):
        rates.take(key)


def test_a_clock_that_goes_back_gives_nothing_and_blocks_nobody() -> None:
    bucket = Bucket(1.0, 1_000.0)
    assert bucket.take(1.0, 1_000.0) == 0.0
    assert bucket.take(1.0, 400.0) > 0
    assert bucket.take(1.0, 401.0) == 0.0


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(0.1, 50))
def test_never_more_than_the_rate_and_one_burst(pauses: list[float], rate: float) -> None:
    bucket, now, taken = Bucket(max(1.0, rate // 1), 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(rate, now) == 0.0
    assert taken <= max(1.0, rate // 1) + rate * now + 1e-6


# Jobs in flight


def test_jobs_accepted_here_count_before_the_rows_have_them() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(in_flight=2)
    quotas = clocks.quotas(rows)
    take(quotas, key, "a")
    take(quotas, key, "b")
    with pytest.raises(Refusal) as refused:
        take(quotas, key, "c")
    assert refused.value.case.slug == "quota-exceeded"
    assert refused.value.headers == {
        "RateLimit-Policy": '"jobs-in-flight";q=2',
        "RateLimit": '"jobs-in-flight";r=0;t=2',
    }
    assert refused.value.members == {"violated_policies": ["jobs-in-flight"]}


def test_a_job_is_counted_once_when_its_row_is_there() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(in_flight=2)
    quotas = clocks.quotas(rows)
    take(quotas, key, "a")
    rows.says, clocks.steady = Usage(1, 1, frozenset("a")), clocks.steady + 1
    take(quotas, key, "b")
    assert rows.asked[-1][1] == ["a"]


def test_a_job_that_ended_gives_its_place_back() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(in_flight=1)
    quotas = clocks.quotas(rows)
    take(quotas, key, "a")
    rows.says, clocks.steady = Usage(0, 1, frozenset("a")), clocks.steady + 0.3
    take(quotas, key, "b")


def test_a_job_known_to_have_ended_gives_its_place_back_while_the_rows_are_away() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(in_flight=1)
    rows.away = True
    quotas = clocks.quotas(rows, ended=frozenset("a"))
    take(quotas, key, "a")
    clocks.steady += 6
    take(quotas, key, "b")
    with pytest.raises(Refusal):
        take(quotas, key, "c")


def test_who_sends_the_same_again_is_not_counted_again() -> None:
    clocks, key = Clocks(), a_key(per_day=10)
    quotas = clocks.quotas(Rows())
    with quotas.taking(key, "a", 10), quotas.taking(key, "b", 0):
        pass
    with quotas.taking(key, "a", 10):
        pass


def test_a_job_that_was_not_accepted_is_not_counted() -> None:
    quotas, key = Clocks().quotas(Rows()), a_key(in_flight=1)
    with pytest.raises(TransientError), quotas.taking(key, "a", 1):
        raise TransientError("the store is away")
    with quotas.taking(key, "b", 1):
        pass


def test_refusing_a_flood_reads_the_rows_four_times_a_second() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(in_flight=1)
    rows.says = Usage(1, 1, frozenset())
    quotas = clocks.quotas(rows)
    for _ in range(100):
        clocks.steady += 0.01
        with pytest.raises(Refusal):
            asyncio.run(quotas.room(key))
    assert len(rows.asked) <= 5


def test_a_key_without_quotas_asks_nobody() -> None:
    rows = Rows()
    quotas = Clocks().quotas(rows)
    take(quotas, a_key(rate=5), "a")
    asyncio.run(quotas.room(None))
    assert rows.asked == []


# Cost a day


def test_a_job_that_costs_more_than_is_left_is_refused_until_midnight() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(per_day=100)
    rows.says = Usage(0, 70, frozenset())
    quotas = clocks.quotas(rows)
    take(quotas, key, "a", 20)
    with pytest.raises(Refusal) as refused:
        take(quotas, key, "b", 11)
    assert refused.value.retry_after_s == DAY_S / 2
    assert refused.value.headers["RateLimit"] == '"pixel-steps";r=10;t=43200'
    assert refused.value.headers["RateLimit-Policy"] == '"pixel-steps";q=100;w=86400'
    take(quotas, key, "c", 10)


def test_a_new_day_begins_with_nothing_spent() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(per_day=100)
    quotas = clocks.quotas(rows)
    take(quotas, key, "a", 100)
    clocks.wall += DAY_S / 2
    take(quotas, key, "b", 100)
    assert rows.asked[-1][0] == NOON + DAY_S / 2


def test_a_clock_that_jumps_back_a_day_counts_that_day_from_the_rows() -> None:
    clocks, rows, key = Clocks(), Rows(), a_key(per_day=100)
    quotas = clocks.quotas(rows)
    take(quotas, key, "a", 100)
    clocks.wall -= DAY_S
    rows.says = Usage(0, 100, frozenset())
    with pytest.raises(Refusal):
        asyncio.run(quotas.room(key))
    assert rows.asked[-1][0] == NOON - DAY_S * 1.5
