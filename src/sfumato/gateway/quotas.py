"""How much a key may have, counted: its requests a second, and its owner's jobs in flight and cost a day.

Requests are counted here alone, in a token bucket by a clock that never jumps; shared_rates.py counts them for all
gateways together. Jobs are counted by the rows and, beside them, by what was accepted here and is not in the rows yet;
so one gateway never lets in more than the limit, and several see each other within a second.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sfumato.core.errors import TransientError
from sfumato.core.keys import ApiKey, UsageReader
from sfumato.gateway.problems import Refusal

__all__ = ["POLICIES", "Bucket", "Quotas", "Rates", "too_fast"]

POLICIES: Final = ("requests", "jobs-in-flight", "pixel-steps")
"""What a refusal names as violated."""
DAY_S: Final = 86_400.0
IN_FLIGHT_FRESH_S: Final = 1.0
COST_FRESH_S: Final = 10.0
FULL_FRESH_S: Final = 0.25
"""Before somebody is refused, what was read may be no older than this."""
AWAY_S: Final = 5.0
"""How long a database that did not answer is left in peace; what is known counts on."""
IN_FLIGHT_RETRY_S: Final = 2.0


@dataclass(slots=True)
class Bucket:
    """Tokens that come back at `rate` a second, a second's worth at most and never less than one."""

    tokens: float
    at: float

    def take(self, rate: float, now: float) -> float:
        """Take one; the seconds until there is one when there is none. Time that goes back counts as none."""
        self.tokens = min(burst(rate), self.tokens + max(0.0, now - self.at) * rate)
        self.at = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / rate


def burst(rate: float) -> float:
    """How many may come at once."""
    return max(1.0, float(math.floor(rate)))


class Rates:
    """Requests a second by key; each of `gateways` lets its part through. `now` never jumps (seconds)."""

    def __init__(self, gateways: int, now: Callable[[], float] = time.monotonic) -> None:
        self._gateways, self._now = gateways, now
        self._buckets: dict[str, Bucket] = {}

    def take(self, key: ApiKey) -> None:
        """Count one request. Raises Refusal (rate-exceeded)."""
        if key.quota.rate is None:
            return
        rate, now = key.quota.rate / self._gateways, self._now()
        bucket = self._buckets.get(key.prefix)
        if bucket is None:
            bucket = self._buckets[key.prefix] = Bucket(burst(rate), now)
        wait_s = bucket.take(rate, now)
        if wait_s:
            most = int(burst(rate))
            raise too_fast(key.quota.rate, wait_s, most, math.ceil(most / rate))


@dataclass(slots=True)
class _Owner:
    """What is known of one owner's jobs: as read from the rows at `read_at`, and what was accepted here since."""

    day: float = -1.0
    open: int = 0
    cost: int = 0
    read_at: float = float("-inf")
    away_at: float = float("-inf")
    mine: dict[str, int] = field(default_factory=dict)
    flying: set[str] = field(default_factory=set)
    taking: int = 0
    taking_cost: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def in_flight(self) -> int:
        return self.open + len(self.flying) + self.taking

    @property
    def spent(self) -> int:
        return self.cost + sum(self.mine.values()) + self.taking_cost

    def begin_day(self, day: float) -> None:
        if day != self.day:
            self.day, self.cost, self.read_at = day, 0, float("-inf")
            self.mine = dict.fromkeys(self.mine, 0)


class Quotas:
    """Jobs and cost by owner. `ended` tells whether a job accepted here is known to have ended.

    `clock` gives Unix seconds, by which days change; `now` never jumps (seconds).
    """

    def __init__(
        self,
        rows: UsageReader,
        ended: Callable[[str], bool],
        clock: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows, self._ended, self._clock, self._now = rows, ended, clock, now
        self._owners: dict[str, _Owner] = {}

    async def room(self, key: ApiKey | None, jobs: int = 1, cost: int = 1) -> None:
        """See that the key has room for so many jobs more, of this `cost` in all, as far as it is known yet.

        Raises:
            Refusal: quota-exceeded.
        """
        if key is None or not key.quota.counts_jobs:
            return
        owner = self._owner(key)
        await self._fresh(key.owner, owner, COST_FRESH_S if key.quota.in_flight is None else IN_FLIGHT_FRESH_S)
        try:
            self._check(key, owner, cost, jobs)
        except Refusal:
            await self._fresh(key.owner, owner, FULL_FRESH_S)
            self._check(key, owner, cost, jobs)

    @contextmanager
    def taking(self, key: ApiKey | None, job_id: str, cost: int) -> Iterator[None]:
        """Count a job while it is accepted, and on, if that went well. `cost` is pixels × steps.

        Raises:
            Refusal: quota-exceeded.
        """
        if key is None or not key.quota.counts_jobs:
            yield
            return
        owner = self._owner(key)
        if job_id in owner.mine:  # sent again with its Idempotency-Key
            yield
            return
        self._check(key, owner, cost)
        owner.taking += 1
        owner.taking_cost += cost
        try:
            yield
            owner.mine[job_id] = cost
            owner.flying.add(job_id)
        finally:
            owner.taking -= 1
            owner.taking_cost -= cost

    def _owner(self, key: ApiKey) -> _Owner:
        owner = self._owners.get(key.owner) or self._owners.setdefault(key.owner, _Owner())
        now = self._clock()
        owner.begin_day(now - now % DAY_S)
        return owner

    async def _fresh(self, name: str, owner: _Owner, within_s: float) -> None:
        """Read what the rows say, unless that was done `within_s`; while they are away, what is known counts on."""
        if self._is_fresh(owner, within_s):
            return
        async with owner.reading:
            if self._is_fresh(owner, within_s):
                return
            day, asked = owner.day, list(owner.mine)
            try:
                usage = await self._rows.usage(name, day, asked)
            except TransientError:
                owner.away_at = self._now()
            else:
                owner.open, owner.read_at = usage.in_flight, self._now()
                if day == owner.day:
                    owner.cost = usage.cost
                for job_id in usage.counted:
                    owner.mine.pop(job_id, None)
                    owner.flying.discard(job_id)
            owner.flying = {job_id for job_id in owner.flying if not self._ended(job_id)}

    def _is_fresh(self, owner: _Owner, within_s: float) -> bool:
        now = self._now()
        return now - owner.read_at < within_s or now - owner.away_at < AWAY_S

    def _check(self, key: ApiKey, owner: _Owner, cost: int, jobs: int = 1) -> None:
        most, per_day = key.quota.in_flight, key.quota.per_day
        if most is not None and owner.in_flight + jobs > most:
            wanted = "" if jobs == 1 else f" and this call makes {jobs}"
            told = f"{owner.in_flight} jobs have not ended{wanted}; this key may have {most}."
            detail = f"{told} Send it when one has ended."
            raise _exceeded("quota-exceeded", detail, "jobs-in-flight", most, 0, IN_FLIGHT_RETRY_S)
        if per_day is not None and owner.spent + cost > per_day:
            left, until_s = max(0, per_day - owner.spent), max(1.0, owner.day + DAY_S - self._clock())
            needs = f" and this {'job' if jobs == 1 else 'call'} takes {cost}" if cost > 1 else ""
            detail = f"{left} pixels × steps of {per_day} are left until midnight UTC{needs}."
            raise _exceeded("quota-exceeded", detail, "pixel-steps", per_day, left, until_s, int(DAY_S))


def too_fast(rate: float, wait_s: float, most: int, window_s: int) -> Refusal:
    """The refusal of a request over `rate`; `most` are let through within `window_s`."""
    after_s = math.ceil(wait_s)
    detail = f"This key may send {rate:g} requests a second; send it again in {after_s} s."
    return _exceeded("rate-exceeded", detail, "requests", most, 0, after_s, window_s)


def _exceeded(
    slug: str, detail: str, policy: str, most: int, left: int, after_s: float, window_s: int | None = None
) -> Refusal:
    """A refusal with the fields of draft-ietf-httpapi-ratelimit-headers-10."""
    window = "" if window_s is None else f";w={window_s}"
    headers = {
        "RateLimit-Policy": f'"{policy}";q={most}{window}',
        "RateLimit": f'"{policy}";r={left};t={math.ceil(after_s)}',
    }
    return Refusal(slug, detail, retry_after_s=math.ceil(after_s), headers=headers, violated_policies=[policy])
