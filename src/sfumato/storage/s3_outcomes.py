"""The one end of every job, in an object store: the first create wins, everyone else reads it."""

from typing import Final, Protocol

from pydantic import ValidationError

from sfumato.core.errors import AlreadyExists, NotFound, TransientError
from sfumato.core.job import Outcome
from sfumato.core.ports import Blobs, BlobSweep
from sfumato.storage.outcomes import fitting

__all__ = ["S3Outcomes"]

PREFIX: Final = "outcomes/"


class OutcomeObjects(Blobs, BlobSweep, Protocol):
    """A store whose creates are exclusive (s3_start.check_creates)."""


class S3Outcomes:
    """`Outcomes` of core.ports as objects `outcomes/<job_id>`, created and never changed."""

    def __init__(self, blobs: OutcomeObjects) -> None:
        self._blobs = blobs

    async def decide(self, outcome: Outcome) -> Outcome:
        """Create the outcome of its job, unless there is one; gives the one that holds.

        Raises:
            ValueError: it is longer than OUTCOME_LIMIT_BYTES and can't be shortened.
        """
        fits = fitting(outcome)
        try:
            await self._blobs.put(_key(fits.job_id), fits.model_dump_json().encode(), create_only=True)
        except AlreadyExists as error:
            # It may be our own: a create whose answer was lost was tried again inside the store's client.
            held = await self.get(fits.job_id)
            if held is None:
                # S3 answers 409 while creates race, and the winner's may fail yet: nothing is decided that we know of.
                raise TransientError(f"the outcome of {fits.job_id} is being decided; ask again.") from error
            return held
        return fits

    async def get(self, job_id: str) -> Outcome | None:
        """The outcome that holds, if the job has ended."""
        try:
            return Outcome.model_validate_json(await self._blobs.get(_key(job_id)))
        except NotFound:
            return None
        except ValidationError as error:
            detail = f"{_key(job_id)} can't be read here: {error.error_count()} errors. Update this service."
            raise TransientError(detail) from error

    async def sweep(self, before: float) -> int:
        """Forget outcomes stored before `before` (Unix seconds); how many.

        The store tells when an object was stored, which is a moment after its outcome was decided, so this forgets none
        too early. Asking each for its `at` would cost a request an outcome.
        """
        swept = 0
        async for head in self._blobs.old(PREFIX, before):
            await self._blobs.delete(head.key)
            swept += 1
        return swept


def _key(job_id: str) -> str:
    return PREFIX + job_id
