"""A service refuses an object store on which a job could end twice, and an outcome is never guessed."""

import asyncio

import pytest

from sfumato.core.errors import AlreadyExists, TransientError, UnusableStore
from sfumato.core.job import Outcome, State
from sfumato.storage.s3_outcomes import S3Outcomes
from sfumato.storage.s3_start import StoreRefuses, check_creates
from tests.simulation.memory import MemoryBlobs, World
from tests.support import NOW, job_id

CANCELED = Outcome(job_id=job_id(1), state=State.CANCELED, at=NOW)


def world() -> World:
    return World(clock=lambda: NOW)


class Liar(MemoryBlobs):
    """Takes every create, as a store does that ignores If-None-Match."""

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        del create_only
        return await super().put(key, data)


class Replacer(MemoryBlobs):
    """Says that something is there already, and replaces it all the same."""

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        try:
            return await super().put(key, data, create_only=create_only)
        except AlreadyExists:
            await super().put(key, data)
            raise


class Refuser(MemoryBlobs):
    """Answers as a store whose bucket is missing."""

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        raise StoreRefuses("NoSuchBucket. Make the bucket.")


class Undecided(MemoryBlobs):
    """Says that something is there, though nothing can be read: S3's 409 while creates race."""

    async def put(self, key: str, data: bytes, *, create_only: bool = False) -> str:
        raise AlreadyExists(key)


def test_honest_store_is_taken_and_keeps_nothing_of_the_check() -> None:
    honest = world()
    asyncio.run(check_creates(MemoryBlobs(honest)))
    assert honest.blobs == {}


def test_store_with_two_winners_is_refused() -> None:
    lying = world()
    with pytest.raises(UnusableStore, match="4 of 4 racing creates"):
        asyncio.run(check_creates(Liar(lying)))
    assert lying.blobs == {}


def test_store_whose_losers_write_is_refused() -> None:
    with pytest.raises(UnusableStore, match="replaced the winner's bytes"):
        asyncio.run(check_creates(Replacer(world())))


def test_store_that_refuses_is_unusable_at_start() -> None:
    with pytest.raises(UnusableStore, match="Make the bucket"):
        asyncio.run(check_creates(Refuser(world())))


def test_store_where_none_wins_is_asked_again() -> None:
    with pytest.raises(TransientError, match="try again"):
        asyncio.run(check_creates(Undecided(world())))


def test_outcome_that_exists_and_is_absent_is_no_answer() -> None:
    with pytest.raises(TransientError, match="is being decided"):
        asyncio.run(S3Outcomes(Undecided(world())).decide(CANCELED))


def test_outcome_that_cannot_be_read_is_no_answer() -> None:
    newer = world()
    newer.blobs[f"outcomes/{CANCELED.job_id}"] = (b'{"state": "sublimated"}', NOW)

    with pytest.raises(TransientError, match="Update this service"):
        asyncio.run(S3Outcomes(MemoryBlobs(newer)).get(CANCELED.job_id))
    with pytest.raises(TransientError, match="Update this service"):
        asyncio.run(S3Outcomes(MemoryBlobs(newer)).decide(CANCELED))
