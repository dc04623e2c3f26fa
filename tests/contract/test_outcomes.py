"""The contract of Outcomes: one end a job, whoever comes first."""

import asyncio
import time
from pathlib import Path

import pytest

from sfumato.core.errors import TransientError
from sfumato.core.job import OUTCOME_LIMIT_BYTES, Outcome, Picture, Problem, State
from sfumato.storage.outcomes import SqliteOutcomes
from tests.contract.stations import in_loop
from tests.contract.stores import (
    DiskStores,
    MemoryStores,
    ObjectStores,
    S3Stores,
    decide_in_process,
    racing_processes,
)
from tests.s3_servers import S3_SERVERS, s3_bucket
from tests.support import NOW, job_id

ID = job_id(1)
PICTURE = Picture(key=f"outputs/{ID}/n.png", media_type="image/png", width=64, height=64, size_bytes=9)
SUCCEEDED = Outcome(job_id=ID, state=State.SUCCEEDED, at=NOW, picture=PICTURE, seconds={"generate": 0.5})
CANCELED = Outcome(job_id=ID, state=State.CANCELED, at=NOW + 1)


AGES_OTHERWISE = pytest.mark.xfail(
    strict=True, reason="S3 tells when an outcome was stored; asking each for its `at` would cost a request an outcome"
)


@pytest.fixture(params=["sql", "memory", *S3_SERVERS])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStores:
    return opened(request, tmp_path)


@pytest.fixture(params=["sql", *S3_SERVERS])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStores:
    """What processes can share, and what is left when they end."""
    return opened(request, tmp_path)


@pytest.fixture(params=["sql", "memory", *(pytest.param(*each.values, marks=AGES_OTHERWISE) for each in S3_SERVERS)])
def dated(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStores:
    """What can tell an outcome's age by its `at`."""
    return opened(request, tmp_path)


def opened(request: pytest.FixtureRequest, folder: Path) -> ObjectStores:
    if request.param == "memory":
        return MemoryStores()
    return DiskStores(folder) if request.param == "sql" else S3Stores(s3_bucket(request))


@pytest.fixture
def disk(tmp_path: Path) -> DiskStores:
    return DiskStores(tmp_path)


@in_loop
async def test_first_outcome_holds(stores: ObjectStores) -> None:
    async with stores.outcomes() as outcomes:
        assert await outcomes.decide(SUCCEEDED) == SUCCEEDED
        assert await outcomes.decide(CANCELED) == SUCCEEDED

        assert await outcomes.get(ID) == SUCCEEDED
        assert stores.stored_outcome(ID) == SUCCEEDED


@in_loop
async def test_job_without_an_end_has_no_outcome(stores: ObjectStores) -> None:
    async with stores.outcomes() as outcomes:
        assert await outcomes.get(ID) is None


@in_loop
async def test_deciding_the_same_again_is_harmless(stores: ObjectStores) -> None:
    async with stores.outcomes() as outcomes:
        for _ in range(3):
            assert await outcomes.decide(CANCELED) == CANCELED


@in_loop
async def test_racing_writers_all_learn_the_same_outcome(stores: ObjectStores) -> None:
    rivals = [CANCELED.model_copy(update={"at": NOW + n}) for n in range(12)]

    async with stores.outcomes() as one, stores.outcomes() as other:
        answers = await asyncio.gather(*((one, other)[n % 2].decide(rival) for n, rival in enumerate(rivals)))

    assert len({answer.at for answer in answers}) == 1
    assert stores.stored_outcome(ID) == answers[0]


@in_loop
async def test_outcomes_are_forgotten_by_age(dated: ObjectStores) -> None:
    later = CANCELED.model_copy(update={"job_id": job_id(2), "at": NOW + 100})
    async with dated.outcomes() as outcomes:
        await outcomes.decide(CANCELED)
        await outcomes.decide(later)

        assert await outcomes.sweep(NOW + 50) == 1

        assert await outcomes.get(ID) is None
        assert await outcomes.get(later.job_id) == later


@in_loop
async def test_no_outcome_is_forgotten_before_its_time(stores: ObjectStores) -> None:
    async with stores.outcomes() as outcomes:
        await outcomes.decide(SUCCEEDED.model_copy(update={"at": time.time()}))

        assert await outcomes.sweep(time.time() - 60) == 0
        assert await outcomes.sweep(time.time() + 60) == 1

        assert await outcomes.get(ID) is None


def test_racing_processes_all_learn_the_same_outcomes(shared: ObjectStores) -> None:
    with racing_processes(3) as processes:
        answers = list(processes.map(decide_in_process, [shared] * 3, [30] * 3))

    assert answers[0] == answers[1] == answers[2]


@in_loop
async def test_outcome_is_there_after_opening_again(shared: ObjectStores) -> None:
    async with shared.outcomes() as outcomes:
        await outcomes.decide(SUCCEEDED)

    async with shared.outcomes() as outcomes:
        assert await outcomes.get(ID) == SUCCEEDED


@pytest.mark.parametrize("detail", ["x" * 5_000, "é" * 5_000, '"\x01\\' * 1_000], ids=["plain", "accents", "escapes"])
@in_loop
async def test_long_error_is_cut_to_two_kilobytes(shared: ObjectStores, detail: str) -> None:
    error = Problem(slug="job-failed", title="The job can't be done", detail=detail)

    async with shared.outcomes() as outcomes:
        holds = await outcomes.decide(Outcome(job_id=ID, state=State.FAILED, at=NOW, error=error))

    assert holds.error is not None
    assert holds.error.detail.endswith("…")
    assert shared.stored_outcome(ID) == holds
    assert len(holds.model_dump_json().encode()) <= OUTCOME_LIMIT_BYTES


@in_loop
async def test_outcome_too_long_for_its_store_is_refused(shared: ObjectStores) -> None:
    stages = {f"stage {n}": 1.0 for n in range(400)}

    async with shared.outcomes() as outcomes:
        with pytest.raises(ValueError, match="too long"):
            await outcomes.decide(SUCCEEDED.model_copy(update={"seconds": stages}))

    assert shared.stored_outcome(ID) is None


@in_loop
async def test_full_disk_decides_nothing_and_says_so(disk: DiskStores) -> None:
    async with disk.outcomes() as outcomes:
        # SQLite itself now refuses the page that it would need.
        await outcomes._file.write(lambda connection: connection.execute("PRAGMA max_page_count=1").fetchone())
        answers = {job_id(number): await _refusal(outcomes, job_id(number)) for number in range(100)}

    refused = {job for job, answer in answers.items() if answer}
    stored = {job for (job,) in disk.select("outcomes", "SELECT job_id FROM outcomes")}
    assert refused
    assert stored == answers.keys() - refused
    assert all("free some space" in answers[job] for job in refused)


async def _refusal(outcomes: SqliteOutcomes, job: str) -> str:
    try:
        await outcomes.decide(CANCELED.model_copy(update={"job_id": job}))
    except TransientError as error:
        return error.detail
    return ""
