"""Deletes ended jobs with their pictures when whoever runs the service says so, before they would be swept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from sfumato.core.history import EndedQuery, JobPurge
from sfumato.core.pictures import PictureStore, delete_pictures

__all__ = ["Purged", "purge"]

BATCH: Final = 200
"""Jobs removed in one transaction, so that a purge never holds up the recorder for long."""
AT_ONCE: Final = 16
"""Jobs whose pictures are deleted side by side: a store far away answers slowly, and many at once."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What is gone so far: rows, and pictures. `busy` are rows that somebody else had in hand, left for next time."""

    jobs: int = 0
    pictures: int = 0
    busy: int = 0


async def purge(which: EndedQuery, rows: JobPurge, blobs: PictureStore) -> AsyncIterator[Purged]:
    """Delete batch by batch, telling after each what is gone so far.

    Stopped anywhere it may be begun again: pictures go before their row, so what is left is still found.

    Raises:
        TransientError: a store does not answer.
    """
    done, cursor = Purged(), ""
    while (page := await rows.some(which, cursor, BATCH)).ids:
        pictures = await _delete_pictures(blobs, page.ids)
        dropped = await rows.drop(page.ids)
        done = Purged(done.jobs + dropped, done.pictures + pictures, done.busy + len(page.ids) - dropped)
        cursor = page.next
        yield done


async def _delete_pictures(blobs: PictureStore, job_ids: Sequence[str]) -> int:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(job_id: str) -> int:
        async with room:
            return await delete_pictures(blobs, job_id)

    return sum(await asyncio.gather(*map(one, job_ids)))
