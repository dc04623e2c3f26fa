"""Requests a second counted for all gateways: what is asked, what is refused, and what holds while nobody answers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import TransientError
from sfumato.core.keys import ApiKey, Quota, Scope, key_text
from sfumato.gateway import shared_rates
from sfumato.gateway.problems import Refusal
from sfumato.gateway.quotas import Rates
from sfumato.gateway.shared_rates import SharedRates, window
from sfumato.observability import exposition
from tests.metrics import value

KEY = ApiKey.of(key_text(b"k" * 37), "alice", [Scope.SUBMIT], 0.0, quota=Quota(rate=2.5))


class Counter:
    """Says what a test tells it to; keeps what it was asked."""

    def __init__(self) -> None:
        self.wait_s = 0.0
        self.away = False
        self.asked: list[tuple[str, int, int]] = []
        self.tried: asyncio.Queue[None] = asyncio.Queue()

    async def hit(self, prefix: str, most: int, window_s: int) -> float:
        self.asked.append((prefix, most, window_s))
        if self.away:
            raise TransientError("it is away")
        return self.wait_s

    async def reach(self) -> None:
        self.tried.put_nowait(None)
        await self.hit("-", 1, 1)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(5, (5, 1)), (2.5, (5, 2)), (0.3, (3, 10)), (0.7, (7, 10)), (0.1, (1, 10)), (0.01, (1, 100)), (1.99, (19, 10))],
)
def test_a_rate_is_a_whole_number_of_requests_in_whole_seconds(rate: float, expected: tuple[int, int]) -> None:
    assert window(rate) == expected


@given(st.floats(1e-6, 1e6))
def test_a_window_never_has_more_than_the_rate_and_nine_tenths_of_it_from_one_a_second_on(rate: float) -> None:
    most, seconds = window(rate)
    assert most >= 1
    assert most / seconds <= rate * (1 + 1e-6)
    assert rate < 1 or most / seconds >= 0.9 * rate


def test_the_counter_is_asked_for_the_whole_rate_whatever_the_gateways() -> None:
    counter = Counter()
    asyncio.run(SharedRates(counter, Rates(2)).take(KEY))
    assert counter.asked == [(KEY.prefix, 5, 2)]


def test_a_key_without_a_rate_is_not_counted() -> None:
    counter = Counter()
    asyncio.run(SharedRates(counter, Rates(1)).take(ApiKey.of(key_text(b"k" * 37), "alice", [Scope.READ], 0.0)))
    assert counter.asked == []


def test_who_is_over_the_rate_is_told_when_there_is_room_and_until_then_nobody_is_asked() -> None:
    counter, now = Counter(), [0.0]
    rates = SharedRates(counter, Rates(1), lambda: now[0])
    counter.wait_s = 1.4
    for _ in range(100):
        with pytest.raises(Refusal) as refused:
            asyncio.run(rates.take(KEY))
    assert refused.value.case.slug == "rate-exceeded"
    assert refused.value.headers == {"RateLimit-Policy": '"requests";q=5;w=2', "RateLimit": '"requests";r=0;t=2'}
    assert len(counter.asked) == 1

    counter.wait_s, now[0] = 0.0, 1.5
    asyncio.run(rates.take(KEY))
    assert len(counter.asked) == 2


def test_while_the_counter_is_away_each_gateway_lets_its_part_through_and_asks_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter = Counter()
    counter.away = True
    before = counted_alone()

    async def three() -> None:
        rates = SharedRates(counter, Rates(2), lambda: 0.0)
        await rates.take(KEY)
        for _ in range(2):
            with pytest.raises(Refusal):
                await rates.take(KEY)

    asyncio.run(three())
    assert len(counter.asked) == 1
    assert counted_alone() == before + 3
    assert [record.getMessage() for record in caplog.records] == ["each gateway counts requests alone: it is away"]


def test_a_counter_that_is_back_counts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rates, "AGAIN_S", 0.01)
    counter = Counter()
    counter.away = True

    async def back() -> None:
        rates = SharedRates(counter, Rates(1), lambda: 0.0)
        asking = asyncio.create_task(rates.keep_asking())
        await rates.take(KEY)
        for _ in range(3):
            await counter.tried.get()
        counter.away = False
        await counter.tried.get()
        await rates.take(KEY)
        assert counter.asked[-1] == (KEY.prefix, 5, 2)
        asking.cancel()

    asyncio.run(asyncio.wait_for(back(), 5))


def counted_alone() -> float:
    return value(exposition(None).decode(), "sfumato_rates_alone_total") or 0.0
