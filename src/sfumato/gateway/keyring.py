"""The keys as a gateway knows them: all of them in memory, read again every 20 s, and kept while the database is away.

A request needs no look-up, whatever it shows. A key that nobody knows makes the keys be read again at once, at most
once a second, so that a new one works from its first request on and guessing costs the database nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from sfumato.core.errors import SfumatoError, TransientError
from sfumato.core.keys import ApiKey, KeyReader
from sfumato.observability import begin, count, gauge

__all__ = ["REFRESH_S", "Keyring"]

REFRESH_S: Final = 20.0
"""A key that was revoked opens nothing after this and the time of one query: within 30 s."""
AGAIN_S: Final = 1.0
log = logging.getLogger(__name__)


class Keyring:
    """The keys of a store. `now` is a clock that never jumps (seconds)."""

    def __init__(self, store: KeyReader, now: Callable[[], float] = time.monotonic) -> None:
        self._store, self._now = store, now
        self._keys: Mapping[str, ApiKey] | None = None
        self._asked_at = float("-inf")
        self._away = False
        self._reading = asyncio.Lock()

    @property
    def known(self) -> bool:
        """Whether the keys were ever read."""
        return self._keys is not None

    @property
    def any(self) -> bool:
        """Whether there ever was a key, as far as is known."""
        return bool(self._keys)

    def get(self, prefix: str) -> ApiKey | None:
        """The key with this prefix, as it was read last."""
        return None if self._keys is None else self._keys.get(prefix)

    async def refresh(self) -> None:
        """Read the keys again. Raises TransientError while the store is away; what was known stays."""
        async with self._reading:
            await self._read()

    async def look_again(self) -> None:
        """Know what the store holds by now: `refresh`, at most once a second for all who ask.

        Raises:
            TransientError: the store is away, so nobody knows whether there is such a key.
        """
        since = self._now()
        async with self._reading:
            left_s = AGAIN_S - (self._now() - self._asked_at)
            if left_s > 0 and self._away:
                raise _away()
            if self._asked_at >= since:
                return
            # A key may have been made right after the last reading: taken for unknown, it would be refused, and on a
            # service that knows of none yet its owner's job would be everybody's.
            await asyncio.sleep(max(0.0, left_s))
            await self._read()

    async def keep_fresh(self, every_s: float = REFRESH_S) -> None:
        """Read the keys again and again, for ever; while the store is away, more often."""
        for result in ("read", "failed"):
            begin("sfumato_key_readings_total", result=result)
        while True:
            pause_s = every_s
            try:
                await self.refresh()
            except SfumatoError as error:
                pause_s = AGAIN_S
                log.warning("The keys can't be read, so those read before hold: %s", error.detail)
            except Exception:
                pause_s = AGAIN_S
                log.exception("The keys can't be read, so those read before hold")
            await asyncio.sleep(pause_s)

    async def _read(self) -> None:
        result, self._asked_at = "failed", self._now()
        try:
            self._keys = await self._store.keys()
            self._away, result = False, "read"
            _show(self._keys)
        except TransientError as error:
            self._away = True
            raise _away() from error
        finally:
            count("sfumato_key_readings_total", result=result)


def _show(keys: Mapping[str, ApiKey]) -> None:
    now = time.time()
    revoked = sum(key.revoked_at is not None for key in keys.values())
    good = sum(key.good(now) for key in keys.values())
    for state, number in {"good": good, "revoked": revoked, "expired": len(keys) - good - revoked}.items():
        gauge("sfumato_api_keys", number, state=state)


def _away() -> TransientError:
    return TransientError("The database does not answer, so this key can't be looked up; send it again.")
