"""Removes what is kept longer than promised. What lasts how long is a promise of config.Settings, in order of need."""

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sfumato.config import Settings
from sfumato.core.errors import TransientError
from sfumato.core.pictures import UPLOAD_KEEP_S
from sfumato.core.ports import Blobs, BlobSweep, JobRecorder, LogSweep, Outcomes
from sfumato.observability import count

__all__ = ["Keep", "Sweep", "promised"]

log = logging.getLogger(__name__)

PREVIEW_KEEP_S: Final = 600.0
"""A preview is deleted when its job ends; one that is left was made by a worker that died."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long inputs, logs and results are kept, and how long a job may wait (seconds)."""

    input_s: float
    log_s: float
    result_s: float
    wait_s: float

    @property
    def objects(self) -> Mapping[str, float]:
        """Prefix → how long objects under it are kept, in the order in which they are swept."""
        return {
            "outputs/": self.result_s,
            # A request is as old as its accept, its outcome as its end: no key is free again while an outcome holds.
            "requests/": self.result_s + self.wait_s,
            "inputs/": self.input_s,
            "uploads/": UPLOAD_KEEP_S,
            "previews/": PREVIEW_KEEP_S,
        }


def promised(settings: Settings) -> Keep:
    """What the settings promise."""
    return Keep(settings.input_keep_s, settings.log_keep_s, settings.result_keep_s, settings.job_wait_s)


class SweptBlobs(Blobs, BlobSweep, Protocol):
    """A store whose objects are expired by us."""


class Sweep:
    """Removes old objects, outcomes, rows and log entries."""

    def __init__(self, keep: Keep, blobs: SweptBlobs, outcomes: Outcomes, rows: JobRecorder, logs: LogSweep) -> None:
        self._keep, self._blobs, self._outcomes, self._rows, self._logs = keep, blobs, outcomes, rows, logs

    async def turn(self, now: float) -> None:
        """Sweep once. What can't be swept now is left to the next turn."""
        keep = self._keep
        # What points before what it points to: no row tells of an outcome, and no outcome of a picture, that is gone.
        await _swept("rows", self._rows.sweep(now - keep.result_s))
        await _swept("outcomes", self._outcomes.sweep(now - keep.result_s))
        for prefix, kept_s in keep.objects.items():
            await _swept(prefix.rstrip("/"), self._objects(prefix, now - kept_s))
        await _swept("messages", self._logs.trim(now - keep.log_s))

    async def _objects(self, prefix: str, before: float) -> int:
        removed = 0
        async for head in self._blobs.old(prefix, before):
            await self._blobs.delete(head.key)
            removed += 1
        return removed


async def _swept(kind: str, sweep: Awaitable[int]) -> None:
    try:
        removed = await sweep
    except TransientError as error:
        log.warning("%s could not be swept: %s", kind, error.detail)
        return
    count("sfumato_swept_total", removed, kind=kind)
    if removed:
        log.info("swept %d %s", removed, kind)
