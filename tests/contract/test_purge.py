"""The contract of JobPurge, and of deleting jobs with their pictures: rows and objects of every kind of store."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.core.errors import TransientError
from sfumato.core.events import Ended
from sfumato.core.history import EndedQuery
from sfumato.core.job import Job, Outcome, State, preview_key
from sfumato.core.pictures import delete_pictures
from sfumato.core.ports import RowChange
from sfumato.core.webhooks import Hook
from sfumato.recorder.purge import BATCH, Purged, purge
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.purge import SqlPurge
from tests.contract.stations import in_loop
from tests.contract.stores import DiskStores, MemoryStores, ObjectStore, ObjectStores, S3Stores
from tests.postgres import PostgresServer, say
from tests.s3_servers import S3_SERVERS, s3_bucket
from tests.support import NOW, job_id, make_job

ALL = EndedQuery(before=NOW + 1_000)


@dataclass(frozen=True)
class Rows:
    """One database with nothing in it."""

    address: str | Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[SqlJobs, SqlPurge]]:
        address = self.address
        opening = Database.open(address) if isinstance(address, Path) else Database.connect(address)
        async with opening as database:
            yield SqlJobs(database), SqlPurge(database)

    def kept(self, table: str) -> int:
        """How many lines a table has, read around the port."""
        count = f"SELECT count(*) FROM {table}"  # noqa: S608 - a table of ours
        if isinstance(self.address, str):
            return int(say(self.address, count))
        with closing(sqlite3.connect(self.address)) as connection:
            return int(connection.execute(count).fetchone()[0])


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Rows:
    if request.param == "sqlite":
        return Rows(tmp_path / "rows.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    return Rows(server.fresh())


@pytest.fixture(params=["folder", "memory", *S3_SERVERS])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStores:
    if request.param == "memory":
        return MemoryStores()
    return DiskStores(tmp_path) if request.param == "folder" else S3Stores(s3_bucket(request))


def over(job: Job, state: State = State.SUCCEEDED) -> list[RowChange]:
    """A job and its end."""
    outcome = Outcome(job_id=job.id, state=state, at=NOW + 9)
    end = Ended(job_id=job.id, at=NOW + 9, attempt=0, delivery=0, outcome=outcome)
    return [RowChange(job=job), RowChange(event=end, position=1)]


async def left(rows: SqlPurge, which: EndedQuery = ALL) -> list[str]:
    return list((await rows.some(which, "", 1_000)).ids)


# Pictures


async def put_all(blobs: ObjectStore, job: str) -> list[str]:
    """Everything that is ever stored of a job's pictures; the keys."""
    keys = [
        f"inputs/{job}/{'0' * 64}",
        f"inputs/{job}/{'a' * 16}/{'1' * 64}",
        f"outputs/{job}/won.png",
        f"outputs/{job}/lost.webp",
        preview_key(job),
    ]
    for key in keys:
        await blobs.put(key, b"a picture")
    return keys


@in_loop
async def test_no_picture_of_a_deleted_job_is_left_and_every_other_is(stores: ObjectStores) -> None:
    blobs = stores.blobs()
    gone, kept = [await put_all(blobs, job_id(number)) for number in (1, 2)]
    await blobs.put(f"requests/{job_id(1)}", b"{}")

    assert await delete_pictures(blobs, job_id(1)) == 4  # the preview is not looked for
    assert await delete_pictures(blobs, job_id(1)) == 0

    assert [key for key in gone if stores.stored_object(key) is not None] == []
    assert [key for key in kept if stores.stored_object(key) is None] == []
    assert stores.stored_object(f"requests/{job_id(1)}") is not None


# Rows


@in_loop
async def test_only_ended_jobs_are_there_for_a_purge(stored: Rows) -> None:
    ended, waiting = make_job(1), make_job(2)
    async with stored.open() as (jobs, rows):
        await jobs.record([*over(ended), RowChange(job=waiting)], {})

        assert await rows.count(ALL) == 1
        assert await left(rows) == [ended.id]
        assert await rows.drop([ended.id, waiting.id]) == 1

        assert await jobs.get(waiting.id) is not None
        assert await jobs.get(ended.id) is None
    assert stored.kept("jobs") == 1


@in_loop
async def test_purge_takes_only_what_was_asked_for(stored: Rows) -> None:
    failed, other_model = make_job(1), make_job(2, model="sketch")
    others, young = make_job(3, owner="alice"), make_job(4, created_at=NOW + 2_000)
    changes = [change for job in (other_model, others, young) for change in over(job)]
    async with stored.open() as (jobs, rows):
        await jobs.record([*over(failed, State.FAILED), *changes], {})

        assert await left(rows) == [failed.id, other_model.id, others.id]
        assert await left(rows, EndedQuery(ALL.before, owner="alice")) == [others.id]
        assert await left(rows, EndedQuery(ALL.before, model="sketch")) == [other_model.id]
        assert await left(rows, EndedQuery(ALL.before, state=State.FAILED)) == [failed.id]
        assert await rows.count(EndedQuery(ALL.before, owner="bob")) == 0


@in_loop
async def test_pages_of_a_purge_hold_each_job_once_the_oldest_first(stored: Rows) -> None:
    many = [make_job(n, created_at=NOW + n // 3) for n in range(10)]
    async with stored.open() as (jobs, rows):
        await jobs.record([change for job in many for change in over(job)], {})
        found: list[str] = []
        cursor = ""
        while (page := await rows.some(ALL, cursor, 4)).ids:
            found, cursor = [*found, *page.ids], page.next

    assert found == [job.id for job in many]


@in_loop
async def test_hidden_jobs_and_what_hangs_on_a_row_go_with_it(stored: Rows) -> None:
    job = make_job(1, webhook_url="https://example.com/", webhook_events=(Hook.SUCCEEDED,))
    async with stored.open() as (jobs, rows):
        await jobs.record(over(job), {})
        await jobs.forget(job.id)
        assert (stored.kept("deliveries"), stored.kept("forgotten")) == (1, 1)

        assert await rows.drop(await left(rows)) == 1

    assert [stored.kept(table) for table in ("jobs", "deliveries", "forgotten")] == [0, 0, 0]


# Both together


async def purged(rows: SqlPurge, blobs: ObjectStore) -> list[Purged]:
    return [done async for done in purge(ALL, rows, blobs)]


@in_loop
async def test_purge_goes_in_batches_and_leaves_neither_row_nor_picture(stored: Rows) -> None:
    stores = MemoryStores()
    many = [make_job(n) for n in range(BATCH + 5)]
    async with stored.open() as (jobs, rows):
        await jobs.record([change for job in many for change in over(job)], {})
        for job in many[::100]:
            await put_all(stores.blobs(), job.id)

        told = await purged(rows, stores.blobs())

    assert told == [Purged(BATCH, 8), Purged(BATCH + 5, 12)]
    assert stores.world.blobs == {}
    assert stored.kept("jobs") == 0


@in_loop
async def test_purge_that_was_stopped_goes_on_where_it_was(stored: Rows) -> None:
    stores = MemoryStores()
    many = [make_job(n) for n in range(3)]
    blobs = stores.blobs()
    async with stored.open() as (jobs, rows):
        await jobs.record([change for job in many for change in over(job)], {})
        for job in many:
            await put_all(blobs, job.id)
        real = blobs.delete

        async def failing(key: str) -> None:
            if many[1].id in key:
                raise TransientError("the store is away")
            await real(key)

        blobs.delete = failing  # type: ignore[method-assign]
        with pytest.raises(TransientError):
            await purged(rows, blobs)
        assert stored.kept("jobs") == 3, "a row is there as long as a picture of it may be"

        assert (await purged(rows, stores.blobs()))[-1].jobs == 3
    assert stores.world.blobs == {}


@in_loop
async def test_purge_and_recorder_do_each_other_no_harm(stored: Rows) -> None:
    old = [make_job(n) for n in range(2 * BATCH)]
    new = [make_job(n, created_at=ALL.before + n) for n in range(1_000, 1_200)]
    async with stored.open() as (recorder, _), stored.open() as (jobs, rows):
        await recorder.record([change for job in old for change in over(job)], {})

        async def go_on() -> None:
            for begin in range(0, 200, 20):
                # What was told twice, in either order with the purge, beside what is new.
                twice = [change for job in old[begin * 2 : begin * 2 + 40] for change in over(job)[1:]]
                fresh = [change for job in new[begin : begin + 20] for change in over(job)]
                await recorder.record([*twice, *fresh], {"events:restyle": str(begin)})

        _, told = await asyncio.gather(go_on(), purged(rows, MemoryStores().blobs()))
        await purged(rows, MemoryStores().blobs())  # what the recorder had in hand was left

        assert told
        assert await left(rows) == []
        assert [await jobs.get(job.id) is not None for job in new] == [True] * len(new)
    assert stored.kept("jobs") == len(new)
