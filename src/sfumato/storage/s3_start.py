"""What a store is checked for before a service relies on it, and what is said when it refuses."""

import asyncio
import contextlib
from typing import Final
from uuid import uuid4

from sfumato.core.errors import AlreadyExists, TransientError, UnusableStore
from sfumato.core.ports import Blobs

__all__ = ["StoreRefuses", "check_creates", "refusal"]

RACERS: Final = 4
ADVICE: Final = {
    "NoSuchBucket": "Make the bucket, or correct SFUMATO_S3_BUCKET.",
    "InvalidBucketName": "Correct SFUMATO_S3_BUCKET.",
    "InvalidAccessKeyId": "Correct SFUMATO_S3_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "Correct SFUMATO_S3_SECRET_ACCESS_KEY; if it is right, SFUMATO_S3_REGION.",
    "RequestTimeTooSkewed": "Set this machine's clock, or the store's.",
    "RequestExpired": "Set this machine's clock, or the store's.",
    "AccessDenied": "Let the key read, write, list and delete in the bucket.",
    "AllAccessDisabled": "Let the key read, write, list and delete in the bucket.",
    "AccountProblem": "Settle it with the store's owner.",
    "ExpiredToken": "Renew the credentials.",
    "InvalidToken": "Renew the credentials.",
    "InvalidTokenId": "Renew the credentials.",
    "AuthorizationHeaderMalformed": "Correct SFUMATO_S3_REGION.",
    "PermanentRedirect": "Correct SFUMATO_S3_ENDPOINT or SFUMATO_S3_REGION.",
}
UNSAID: Final = (
    "Check SFUMATO_S3_ACCESS_KEY_ID, SFUMATO_S3_SECRET_ACCESS_KEY, the key's rights and this machine's clock."
)
"""A 403 to a HEAD carries no reason."""


class StoreRefuses(TransientError):
    """The store answers, and refuses this service: no bucket, a wrong key, a wrong clock. It passes once corrected."""


def refusal(code: str, said: str) -> str:
    """What to do about an answer that refuses this service, by S3's code; "" when the answer is no such one."""
    return ADVICE.get(code, UNSAID if "403 Forbidden" in said or "401 Unauthorized" in said else "")


async def check_creates(blobs: Blobs) -> None:
    """Race a few creates on one key: the outcome of a job is safe only where exactly one wins.

    Raises:
        UnusableStore: two won, the winner's bytes are not there, or the store refuses this service.
        TransientError: the store does not answer.
    """
    # Below uploads/ the sweeper removes what a crash leaves; no upload has such an id.
    key = f"uploads/check-{uuid4().hex}"
    racing = (blobs.put(key, bytes([number]), create_only=True) for number in range(RACERS))
    try:
        answers = await asyncio.gather(*racing, return_exceptions=True)
        winners = [number for number, answer in enumerate(answers) if isinstance(answer, str)]
        if len(winners) > 1:
            raise UnusableStore(
                f"{len(winners)} of {RACERS} racing creates of one key succeeded: this store does not honour "
                "If-None-Match: *, and jobs could end twice. Use one that does."
            )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, AlreadyExists):
                raise answer
        if not winners:
            raise TransientError("of several racing creates none succeeded; try again.")
        if await blobs.get(key) != bytes(winners):
            raise UnusableStore("a create that lost its race replaced the winner's bytes. Use a store that refuses it.")
    except StoreRefuses as error:
        raise UnusableStore(error.detail) from error
    finally:
        with contextlib.suppress(TransientError):
            await blobs.delete(key)
