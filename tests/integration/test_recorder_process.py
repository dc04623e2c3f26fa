"""The recorder as a process of its own, beside a broker that others write to."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from sfumato.broker.sqlite import SqliteBroker
from sfumato.config import load_settings
from sfumato.core.events import Started
from sfumato.core.job import Job, State
from sfumato.recorder.recorder import serve
from tests.contract.stores import DiskStores
from tests.support import NOW, make_job, poll

MODELS = '[models.restyle]\nbackend = "simulated"\n'


def record(folder: Path) -> None:
    sys.exit(serve(load_settings(data_dir=folder, log_level="warning")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.toml").write_text(MODELS)
    return tmp_path


@contextmanager
def recorder(folder: Path) -> Iterator[BaseProcess]:
    process = multiprocessing.get_context("spawn").Process(target=record, args=(folder,))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def publish(folder: Path, job: Job, *events: Started) -> None:
    async def run() -> None:
        broker = SqliteBroker(folder, takeover_s=3.0)
        await broker.jobs(job.model).publish(job)
        await broker.events(job.model).append(events)
        await broker.close()

    asyncio.run(run())


def state(folder: Path, job: Job) -> State | None:
    if not (folder / "rows.sqlite").exists():
        return None
    if not DiskStores(folder).select("rows", "SELECT 1 FROM sqlite_master WHERE name = 'jobs'"):
        return None
    row = DiskStores(folder).stored_row(job.id)
    return None if row is None else row.state


def terminate(process: BaseProcess, within_s: float = 5.0) -> int | None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(within_s)
    return process.exitcode


def fresh_job(number: int, model: str = "restyle") -> Job:
    """One that has not expired by the clock that the process goes by."""
    return make_job(number, model=model, created_at=time.time(), expires_at=time.time() + 3_600)


def started(job: Job) -> Started:
    return Started(job_id=job.id, at=NOW, attempt=0, delivery=0, worker="w")


def test_recorder_records_what_comes_and_ends_on_sigterm(folder: Path) -> None:
    job = fresh_job(1)

    with recorder(folder) as process:
        publish(folder, job)
        poll(lambda: state(folder, job) is State.QUEUED)
        publish(folder, job, started(job))
        poll(lambda: state(folder, job) is State.RUNNING)

        assert terminate(process) == 0


def test_killed_recorder_is_replaced_by_one_that_goes_on(folder: Path) -> None:
    jobs = [fresh_job(number) for number in range(1, 4)]

    for job in jobs:
        with recorder(folder) as process:
            publish(folder, job, started(job))
            poll(lambda job=job: state(folder, job) is State.RUNNING)  # type: ignore[misc]  # bound in this turn
            process.kill()

    assert [state(folder, job) for job in jobs] == [State.RUNNING] * 3


def test_model_added_while_it_runs_is_followed(folder: Path) -> None:
    known, added = fresh_job(1), fresh_job(2, model="sketch")

    with recorder(folder):
        publish(folder, known)
        poll(lambda: state(folder, known) is State.QUEUED)
        (folder / "models.toml").write_text(MODELS + '[models.sketch]\nbackend = "simulated"\n')
        publish(folder, added)

        poll(lambda: state(folder, added) is State.QUEUED)
