"""The contract of NewsReader: what happens to jobs is read in one order, once, by whoever comes back to a place."""

import asyncio
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

from sfumato.core.events import Dispatched
from sfumato.core.job import Job
from sfumato.core.news import News, Place
from sfumato.core.ports import RowChange
from sfumato.storage import news as sql_news
from tests.contract.stations import in_loop
from tests.contract.stores import DiskStores, JobStore, MemoryStores, PostgresStores, RowStores
from tests.contract.test_job_store import JOB, SQL, ended, published, started
from tests.postgres import PostgresServer
from tests.support import NOW, eventually, make_job

BEGIN = Place(0, "")


@pytest.fixture(params=SQL)
def sql(request: pytest.FixtureRequest, tmp_path: Path) -> RowStores:
    return opened(request, tmp_path)


@pytest.fixture(params=["memory", *SQL])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> RowStores:
    return MemoryStores() if request.param == "memory" else opened(request, tmp_path)


def opened(request: pytest.FixtureRequest, folder: Path) -> RowStores:
    """The database that the fixture is asked for, with nothing in it."""
    if request.param == "sqlite":
        return DiskStores(folder)
    server: PostgresServer = request.getfixturevalue("postgres")
    return PostgresStores(server.fresh())


async def read(rows: JobStore, after: Place = BEGIN, owners: Collection[str] | None = None) -> list[News]:
    """What is settled, once everything written so far is."""
    return list(await rows.news(after, (await rows.settled()).last, owners, 1_000))


async def kinds(rows: JobStore, job: Job = JOB, after: Place = BEGIN) -> list[str]:
    return [each.line.kind for each in await read(rows, after) if each.place.job_id == job.id]


def whole_life(job: Job) -> list[RowChange]:
    return [
        RowChange(job=job),
        RowChange(event=started(job), position=4),
        RowChange(event=ended(job), position=6),
    ]


@in_loop
async def test_each_line_of_a_life_is_read_once_in_order(stores: RowStores) -> None:
    async with stores.rows() as rows:
        for change in whole_life(JOB):
            await rows.record([change], {})

        found = await read(rows)

        assert [each.line.kind for each in found] == ["queued", "started", "final"]
        assert [each.place for each in found] == sorted({each.place for each in found})
        assert all(each.row == stores.stored_row(JOB.id) for each in found)


@in_loop
async def test_replay_and_what_shows_nothing_tell_nothing(stores: RowStores) -> None:
    handed_out = Dispatched(job_id=JOB.id, at=NOW, attempt=0, delivery=0, lane=0, worker="w")
    async with stores.rows() as rows:
        await rows.record(whole_life(JOB), {})
        place = (await read(rows))[-1].place
        await rows.record([*whole_life(JOB), RowChange(event=handed_out, position=7)], {})

        assert await kinds(rows, after=place) == []
        assert await kinds(rows) == ["queued", "started", "final"]


@in_loop
async def test_events_that_waited_for_their_job_are_told_with_it(stores: RowStores) -> None:
    async with stores.rows() as rows:
        await rows.record(whole_life(JOB)[1:], {})
        assert await kinds(rows) == []

        await rows.record([RowChange(job=JOB)], {})

        assert await kinds(rows) == ["queued", "started", "final"]


@in_loop
async def test_who_comes_back_to_any_place_reads_the_rest(stores: RowStores) -> None:
    jobs = [make_job(number) for number in range(4)]
    async with stores.rows() as rows:
        await rows.record(published(jobs), {})
        await rows.record([change for job in jobs for change in whole_life(job)[1:]], {})

        found = await read(rows)

        assert len(found) == 12
        for number, each in enumerate(found):
            assert await read(rows, each.place) == found[number + 1 :]
        assert await rows.news(found[2].place, found[-1].place.number, None, 3) == found[3:6]


@in_loop
async def test_only_these_owners_jobs_and_none_that_are_forgotten_are_read(stores: RowStores) -> None:
    jobs = [make_job(number, owner=owner) for number, owner in enumerate(["a", "b", "c", "a"])]
    async with stores.rows() as rows:
        await rows.record(published(jobs), {})
        await rows.forget(jobs[3].id)

        found = await read(rows, owners=["a", "b"])

        assert {each.place.job_id for each in found} == {jobs[0].id, jobs[1].id}
        assert await read(rows, owners=[]) == []


@in_loop
async def test_readers_beside_writers_miss_nothing_and_read_nothing_twice(stores: RowStores) -> None:
    """Several recorders fold at once; who follows sees a line only when nothing can come before it any more."""
    jobs = [make_job(number) for number in range(60)]
    async with stores.rows() as rows, stores.rows() as others:
        found: list[News] = []

        async def follow() -> bool:
            last = (await rows.settled()).last
            after = found[-1].place if found else BEGIN
            found.extend(await rows.news(after, last, None, 7))
            return len(found) >= 3 * len(jobs)

        async def write(store: JobStore, some: Iterable[Job]) -> None:
            for job in some:
                for change in whole_life(job):
                    await store.record([change], {})

        writing = [write(rows, jobs[::2]), write(others, jobs[1::2]), eventually(follow, within_s=30)]
        await asyncio.gather(*writing)

        assert len({each.place for each in found}) == len(found) == 3 * len(jobs)
        lives = [[each.line.kind for each in found if each.place.job_id == job.id] for job in jobs]
        assert lives == [["queued", "started", "final"]] * len(jobs)


@in_loop
async def test_old_lines_are_removed_and_that_shows(sql: RowStores, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sql.rows() as rows:
        await rows.record(whole_life(JOB), {})
        before = await read(rows)
        await rows.sweep(0.0)
        assert (await read(rows), (await rows.settled()).gone) == (before, 0)

        monkeypatch.setattr(sql_news, "KEPT_S", -1.0)
        await rows.sweep(0.0)

        assert (await read(rows), (await rows.settled()).gone) == ([], before[-1].place.number)
