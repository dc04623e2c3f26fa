"""Small pictures of running jobs that somebody watches. A service to the eye: what goes wrong here harms no job."""

import asyncio
import logging
from collections.abc import Callable

from sfumato.core.errors import SfumatoError
from sfumato.core.job import Job, preview_key
from sfumato.core.ports import Blobs
from sfumato.engine import images
from sfumato.engine.events import Pixels

__all__ = ["Previews"]

log = logging.getLogger(__name__)


class Previews:
    """Who is watched, and the newest preview of each, stored beside the pictures."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._until: dict[str, float] = {}
        self._posting: dict[str, asyncio.Task[None]] = {}
        self._dropping: set[asyncio.Task[None]] = set()

    def watch(self, job_id: str, until: float, now: float) -> None:
        """Somebody looks at this job, whether it runs here or not, until `until` (Unix seconds)."""
        self._until = {job: end for job, end in self._until.items() if end > now} | {job_id: until}

    def wanted(self, job_id: str, now: float) -> bool:
        """Whether somebody looks at it now."""
        return self._until.get(job_id, 0.0) > now

    def post(self, job: Job, prepared: images.Prepared, pixels: Pixels, stored: Callable[[], None]) -> None:
        """Store a preview and call `stored`; while the one before is still being stored, this one is left out."""
        if job.id not in self._posting:
            task = self._posting[job.id] = asyncio.create_task(self._post(job, prepared, pixels, stored))
            task.add_done_callback(lambda _: self._posting.pop(job.id, None))

    def drop(self, job_id: str) -> None:
        """The job left the engine: its preview is of no use any more. Nobody need wait for that, but `close`."""
        task = asyncio.create_task(self._drop(job_id))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def close(self) -> None:
        """Wait until what was dropped is gone."""
        await asyncio.gather(*self._dropping)

    async def _drop(self, job_id: str) -> None:
        if (task := self._posting.get(job_id)) is not None:
            await asyncio.gather(task, return_exceptions=True)
        try:
            await self._blobs.delete(preview_key(job_id))
        except SfumatoError as error:
            log.info("a preview is left behind: %s", error.detail)

    async def _post(self, job: Job, prepared: images.Prepared, pixels: Pixels, stored: Callable[[], None]) -> None:
        try:
            data = await asyncio.to_thread(images.preview, pixels, prepared, job.params)
            await self._blobs.put(preview_key(job.id), data)
        except SfumatoError as error:
            log.info("a preview could not be stored: %s", error.detail)
        else:
            stored()
