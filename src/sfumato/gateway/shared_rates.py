"""A key's requests a second, counted for all gateways together; while that can't be, each lets its part through.

A request waits for the answer of a counter that is well, and for its short bound once, when the counter falls silent.
From then on nobody waits: it is asked aside, again and again, until it counts again.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from sfumato.core.errors import TransientError
from sfumato.core.keys import ApiKey, RateCounter
from sfumato.gateway.quotas import Rates, too_fast
from sfumato.observability import count

__all__ = ["SharedRates", "window"]

AGAIN_S: Final = 1.0
LONGEST_WINDOW_S: Final = 10
"""Of rates above one in this time; the others are one request in a while."""
ROUNDING: Final = 1e-9
"""0.7 × 10 is 7, whatever floating point makes of it."""
log = logging.getLogger(__name__)


def window(rate: float) -> tuple[int, int]:
    """`rate` as a whole number of requests within whole seconds: the nearest that is never more."""
    tried = ((math.floor(rate * seconds + ROUNDING), seconds) for seconds in range(1, LONGEST_WINDOW_S + 1))
    most, seconds = max(tried, key=lambda each: each[0] / each[1])
    return (most, seconds) if most else (1, math.ceil(1 / rate - ROUNDING))


class SharedRates:
    """Requests a second by key, counted by `counter`, or by `alone` while that is away. `now` never jumps (seconds)."""

    def __init__(self, counter: RateCounter, alone: Rates, now: Callable[[], float] = time.monotonic) -> None:
        self._counter, self._alone, self._now = counter, alone, now
        self._full_until: dict[str, float] = {}
        self._away = asyncio.Event()

    async def take(self, key: ApiKey) -> None:
        """Count one request. Raises Refusal (rate-exceeded)."""
        rate = key.quota.rate
        if rate is None:
            return
        if not self._away.is_set():
            most, window_s = window(rate)
            try:
                wait_s = await self._wait_s(key.prefix, most, window_s)
            except TransientError as error:
                if not self._away.is_set():  # others asked at the same time and waited as long
                    log.warning("each gateway counts requests alone: %s", error.detail)
                self._away.set()
            else:
                if wait_s:
                    raise too_fast(rate, wait_s, most, window_s)
                return
        count("sfumato_rates_alone_total")
        self._alone.take(key)

    async def _wait_s(self, prefix: str, most: int, window_s: int) -> float:
        # Room comes by time alone: until then a flood need not be counted anywhere.
        if (known_s := self._full_until.get(prefix, 0.0) - self._now()) > 0:
            return known_s
        wait_s = await self._counter.hit(prefix, most, window_s)
        if wait_s:
            self._full_until[prefix] = self._now() + wait_s
        return wait_s

    async def keep_asking(self) -> None:
        """See for ever that a counter that is away is taken up again when it is back."""
        while True:
            await self._away.wait()
            await asyncio.sleep(AGAIN_S)
            try:
                await self._counter.reach()
            except TransientError:
                continue
            except Exception:
                log.exception("each gateway counts requests alone")
                continue
            self._away.clear()
            log.info("all gateways count requests together again")
