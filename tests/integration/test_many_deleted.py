"""Whatever was deleted before, a job is found and a page listed as fast as ever."""

import time
from pathlib import Path

import pytest

from sfumato.core.ports import JobQuery, RowChange
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.tables import forgotten
from tests.contract.stations import in_loop
from tests.postgres import PostgresServer
from tests.support import job_id, make_job

DELETED = 60_000
CHUNK = 10_000


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    if request.param == "sqlite":
        return tmp_path / "rows.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.fresh()


@in_loop
async def test_sixty_thousand_deleted_jobs_slow_nobody_down(address: str | Path) -> None:
    opening = Database.open(address) if isinstance(address, Path) else Database.connect(address)
    async with opening as database:
        rows = SqlJobs(database)
        await rows.record([RowChange(job=make_job(n)) for n in range(100)], {})
        for begin in range(1_000, 1_000 + DELETED, CHUNK):
            async with database.write(30.0) as connection:
                gone = [{"job_id": job_id(n)} for n in range(begin, begin + CHUNK)]
                await database.put(connection, forgotten, gone)

        took_s = []
        for n in range(20):
            began = time.perf_counter()
            assert await rows.get(job_id(n)) is not None
            assert len((await rows.list(JobQuery(owner="local", limit=50))).rows) == 50
            took_s.append(time.perf_counter() - began)

    # Usually 5 ms; a query that reads all that was deleted takes 50 and more for each of the two.
    assert sorted(took_s)[5] < 0.05
