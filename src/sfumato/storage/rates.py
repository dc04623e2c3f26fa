"""Requests counted for all gateways together, in Valkey or Redis, by the library `limits`.

Its window slides by the server's clock, so that gateways whose clocks differ count alike; one question counts and
answers. Everything that can go wrong there is a TransientError after ANSWER_WITHIN_S at most.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

from sfumato.core.errors import TransientError, UnusableStore

__all__ = ["ANSWER_WITHIN_S", "ValkeyCounter"]

ANSWER_WITHIN_S: Final = 0.25
"""A request waits for this: longer than any answer of a server that is well, shorter than anybody notices."""
CONNECTIONS: Final = 32
"""Of one gateway; more of what is asked at once waits its turn."""
PREFIX: Final = "sfumato:rates"
NOBODY: Final = "-"
"""Counted to see whether counting works; no key has this prefix."""
A_MOMENT_S: Final = 0.001


class ValkeyCounter:
    """`RateCounter` of core.keys. Connects when it is first asked."""

    def __init__(self, url: str, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        """Take `url` as valkey://:password@host:6379/0, valkeys:// over TLS, or the same of redis.

        Raises:
            UnusableStore: `sfumato[valkey]` is not installed, or the address can't be one.
        """
        try:
            from limits import RateLimitItemPerSecond
            from limits.aio.storage import RedisStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter
            from valkey.asyncio import ConnectionPool
        except ModuleNotFoundError as error:
            raise UnusableStore(f"SFUMATO_RATES_URL needs {error.name}: pip install 'sfumato[valkey]'.") from error
        tls = url.startswith(("valkeys://", "rediss://"))
        # The client does not compare a certificate's name unless it is asked to.
        secure: dict[str, Any] = {"ssl_check_hostname": True} if tls else {}
        try:
            self._pool = ConnectionPool.from_url(url, socket_timeout=answer_within_s, **secure)
        except ValueError as error:
            raise UnusableStore(f"SFUMATO_RATES_URL is no address of Valkey: {error}.") from error
        pool: dict[str, Any] = {"connection_pool": self._pool}
        self._storage = RedisStorage("async+valkey://", implementation="valkey", key_prefix=PREFIX, **pool)
        self._limit, self._limiter = RateLimitItemPerSecond, SlidingWindowCounterRateLimiter(self._storage)
        self._answer_within_s = answer_within_s
        # The client has a pool that makes callers wait, but those that are canceled meanwhile wait on, for seconds.
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def hit(self, prefix: str, most: int, window_s: int) -> float:
        """Count one request of a key; the seconds until there is room when there is none."""
        item = self._limit(most, window_s)
        with self._in_our_words():
            async with asyncio.timeout(self._answer_within_s), self._turns:
                if await self._limiter.hit(item, prefix):
                    return 0.0
                counted = await self._storage.get_sliding_window(item.key_for(prefix), window_s)
        return max(A_MOMENT_S, _room_in(most, window_s, *counted))

    async def reach(self) -> None:
        """See that it counts."""
        await self.hit(NOBODY, 1_000, 1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        # What is under way has its own bound; that the server is away already is no news at the end.
        with self._in_our_words(quiet=True):
            await self._pool.disconnect()

    @contextmanager
    def _in_our_words(self, *, quiet: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever its client raises, nobody is refused for it
            if not quiet:
                late = isinstance(error, TimeoutError)
                why = f"no answer within {self._answer_within_s:g} s" if late else f"{type(error).__name__}: {error}"
                raise TransientError(f"Valkey does not count: {why}") from error


def _room_in(most: int, window_s: int, before: int, before_s: float, now: int, now_s: float) -> float:
    """Seconds until one more fits in. `before` and `now` are the counts of the last window and of this one.

    The counts of a window are kept for the time of two; of the last one as much still counts as of it is left.
    """
    if now >= most:
        return now_s - window_s
    return before_s - (most - now) * window_s / before if before else 0.0
