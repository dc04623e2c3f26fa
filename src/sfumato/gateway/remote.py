"""Pictures that a caller names by their address: fetched by the one guarded fetcher, where that is switched on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sfumato.config import Settings
from sfumato.gateway.problems import Refusal
from sfumato.gateway.uploads import Limits, Received, Receiving, held
from sfumato.net.addresses import Allowed
from sfumato.net.fetcher import Fetcher, Unreachable
from sfumato.net.targets import RefusedUrl

__all__ = ["RemotePictures"]

AT_ONCE: Final = 32
"""Fetches of one gateway; who waits for a slow host must not keep all others waiting for long, nor flood one."""
OK: Final = 200


class RemotePictures:
    """Fetches pictures of at most `limits`, or says that nobody may ask for that here.

    `patience_s`: longest that one waits for a place among those that are fetched at once.
    """

    def __init__(self, fetcher: Fetcher | None, limits: Limits, patience_s: float = 20.0) -> None:
        self._fetcher, self._limits, self._patience_s = fetcher, limits, patience_s
        self._places = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def of(cls, settings: Settings) -> "RemotePictures":
        """As the settings have it."""
        limits = Limits(settings.max_upload_bytes, settings.max_input_pixels)
        if not settings.remote_images:
            return cls(None, limits)
        allowed, most = Allowed.parse(settings.remote_images_allow), limits.max_bytes
        fetcher = Fetcher(allowed, total_s=settings.remote_images_s, limit_bytes=most)
        return cls(fetcher, limits, settings.remote_images_s)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places. Raises Refusal (overloaded): else a queue behind slow hosts would grow without end, with
        the bodies of those who wait, and of those who left it, in memory."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._places.acquire()
        except TimeoutError as error:
            detail = "Too many pictures are being fetched at once; send it again, or send the picture itself."
            raise Refusal("overloaded", detail, retry_after_s=1) from error
        try:
            yield
        finally:
            self._places.release()

    async def picture(self, url: str) -> Received:
        """The picture at `url`, its bytes counted into what the running task holds.

        Raises:
            Refusal: addresses are not taken here, this one leads where nothing may be fetched, nothing or no picture
                came, or there is no room for it.
        """
        if self._fetcher is None:
            detail = "This service fetches no pictures, send the picture itself; who runs it may allow addresses"
            raise Refusal("bad-image-url", f"{detail} (SFUMATO_REMOTE_IMAGES).")
        receiving = Receiving(self._limits)
        try:
            async with self._place():
                answer = await self._fetcher.fetch("GET", url, headers={"Accept": "image/*"}, came=held)
        except RefusedUrl as error:
            detail = f"The picture's address is refused. {error.detail} Who runs the service may allow more"
            raise Refusal("bad-image-url", f"{detail} (SFUMATO_REMOTE_IMAGES_ALLOW).") from error
        except Unreachable as error:
            raise Refusal("bad-image-url", f"The picture could not be fetched. {error.detail}") from error
        if answer.status != OK:
            moved = "; redirects are not followed, give the address it leads to" if 300 <= answer.status < 400 else ""
            raise Refusal("bad-image-url", f"The picture's address answers {answer.status}{moved}.")
        if not answer.whole:
            most = self._limits.max_bytes
            raise Refusal("bad-image-url", f"The picture at this address has over {most} bytes, or comes too slowly.")
        receiving.feed(answer.body)
        return receiving.finish()
