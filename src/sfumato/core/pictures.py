"""Where a job's pictures are, and deleting all of them."""

from typing import Final, Protocol

from sfumato.core.job import preview_key
from sfumato.core.ports import Blobs, BlobSweep

__all__ = ["UPLOAD_KEEP_S", "PictureStore", "delete_pictures"]

UPLOAD_KEEP_S: Final = 86_400.0
"""An upload is copied when its job is submitted; after a day nobody comes back for it."""


class PictureStore(Blobs, BlobSweep, Protocol):
    """A store of objects that can be listed."""


async def delete_pictures(blobs: PictureStore, job_id: str) -> int:
    """Delete a job's results (also those of attempts that lost), its input and its preview; how many were listed.

    Stopped half way, it may be called again.
    """
    deleted = 0
    for prefix in (f"outputs/{job_id}/", f"inputs/{job_id}/"):
        async for stored in blobs.old(prefix, before=float("inf")):
            await blobs.delete(stored.key)
            deleted += 1
    # Its worker deletes it when the job leaves the engine, unless the worker was killed.
    await blobs.delete(preview_key(job_id))
    return deleted
