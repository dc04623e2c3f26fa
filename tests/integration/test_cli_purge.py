"""`sfumato jobs purge` over what the settings name: SQLite and a folder, or PostgreSQL and a bucket."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from sfumato.cli import main
from sfumato.config import load_settings
from sfumato.core.events import Ended
from sfumato.core.job import Job, Outcome, State
from sfumato.core.ports import RowChange
from sfumato.wiring import open_ports
from tests.postgres import PostgresServer
from tests.s3_servers import s3_bucket
from tests.support import job_id, make_job

DAY_S = 86_400.0


@pytest.fixture(params=["embedded", pytest.param("servers", marks=pytest.mark.server)], autouse=True)
def stores(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name stores with nothing in them."""
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path))
    if request.param == "embedded":
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    place = s3_bucket(request, "seaweedfs")
    monkeypatch.setenv("SFUMATO_DATABASE_URL", server.fresh())
    monkeypatch.setenv("SFUMATO_S3_BUCKET", place.bucket)
    monkeypatch.setenv("SFUMATO_S3_ENDPOINT", place.endpoint)
    monkeypatch.setenv("SFUMATO_S3_ACCESS_KEY_ID", place.access_key_id)
    monkeypatch.setenv("SFUMATO_S3_SECRET_ACCESS_KEY", place.secret_access_key)
    monkeypatch.setenv("SFUMATO_DATA_DIR", str(tmp_path / "not needed"))


def days_old(number: int, days: float, **changes: object) -> Job:
    at = time.time() - days * DAY_S
    return make_job(number, created_at=at, expires_at=at + DAY_S, **changes)


async def keep(*jobs: Job, state: State | None = State.SUCCEEDED) -> None:
    """Let these jobs have been, ended so (None: not yet), each with its input and a result."""
    async with open_ports(load_settings()) as ports:
        changes = []
        for job in jobs:
            changes.append(RowChange(job=job))
            if state is not None:
                outcome = Outcome(job_id=job.id, state=state, at=job.created_at + 1)
                await ports.outcomes.decide(outcome)
                end = Ended(job_id=job.id, at=outcome.at, attempt=0, delivery=0, outcome=outcome)
                changes.append(RowChange(event=end, position=1))
            await ports.blobs.put(job.input.key, b"input")
            await ports.blobs.put(f"outputs/{job.id}/a1.png", b"result")
        await ports.rows.record(changes, {})


async def kept(*jobs: Job) -> list[bool]:
    """Of each job, whether all of it is there (True) or nothing (False) but its outcome."""
    found = []
    async with open_ports(load_settings()) as ports:
        for job in jobs:
            row = await ports.rows.get(job.id) is not None
            prefixes = [f"{kind}/{job.id}/" for kind in ("inputs", "outputs")]
            stored = [key.key for prefix in prefixes async for key in ports.blobs.old(prefix, float("inf"))]
            assert len(stored) == (2 if row else 0)
            assert row or await ports.outcomes.get(job.id) is not None
            found.append(row)
    return found


def test_purge_takes_old_ended_jobs_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    old, young, waiting = days_old(1, 31), days_old(2, 29), days_old(3, 31)
    asyncio.run(keep(old, young))
    asyncio.run(keep(waiting, state=None))

    assert main(["jobs", "purge", "--older-than", "30d", "--dry-run"]) == 0
    assert capsys.readouterr().out == "1 ended jobs would be deleted\n"
    assert asyncio.run(kept(old, young, waiting)) == [True, True, True]

    assert main(["jobs", "purge", "--older-than", "30d"]) == 0
    assert capsys.readouterr().out == "deleted 1 jobs and 2 pictures\n"
    assert asyncio.run(kept(old, young, waiting)) == [False, True, True]

    assert main(["jobs", "purge", "--older-than", "30d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == 0


def test_purge_takes_only_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    hers, his, other = days_old(1, 31, owner="alice"), days_old(2, 31, owner="bob"), days_old(3, 31, model="sketch")
    failed = days_old(4, 31)
    asyncio.run(keep(hers, his, other))
    asyncio.run(keep(failed, state=State.FAILED))

    for options, left in (
        (["--owner", "alice"], [False, True, True, True]),
        (["--model", "sketch"], [False, True, False, True]),
        (["--state", "failed"], [False, True, False, False]),
        (["--owner", "nobody"], [False, True, False, False]),
    ):
        assert main(["jobs", "purge", "--older-than", "30d", *options]) == 0
        assert asyncio.run(kept(hers, his, other, failed)) == left
    assert "deleted 0 jobs and 0 pictures" in capsys.readouterr().out


def test_purge_of_a_thousand_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    async def many() -> None:
        async with open_ports(load_settings()) as ports:
            changes = []
            for n in range(1_000):
                job = days_old(n, 31)
                end = Outcome(job_id=job_id(n), state=State.CANCELED, at=job.created_at)
                told = Ended(job_id=job.id, at=end.at, attempt=0, delivery=0, outcome=end)
                changes += [RowChange(job=job), RowChange(event=told, position=1)]
            await ports.rows.record(changes, {})

    asyncio.run(many())
    assert main(["jobs", "purge", "--older-than", "4w"]) == 0
    told = capsys.readouterr()
    assert told.out == "deleted 1000 jobs and 0 pictures\n"
    assert "1000/1000" in told.err
