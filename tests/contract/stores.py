"""What a store suite needs of an implementation: opening it as a process would, and reading around it."""

import asyncio
import json
import multiprocessing
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sfumato.core.errors import AlreadyExists
from sfumato.core.events import JobRow
from sfumato.core.job import Outcome, State
from sfumato.core.ports import Blobs, BlobSweep, JobRecorder, JobRows, Outcomes
from sfumato.storage.blobs import FolderBlobs
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.outcomes import SqliteOutcomes
from sfumato.storage.s3 import S3Blobs
from sfumato.storage.s3_http import ask
from sfumato.storage.s3_outcomes import S3Outcomes
from sfumato.storage.s3_place import S3Place
from tests.postgres import say
from tests.simulation.memory import MemoryBlobs, MemoryOutcomes, MemoryRows, World
from tests.support import NOW, job_id

__all__ = [
    "DiskStores",
    "JobStore",
    "MemoryStores",
    "ObjectStore",
    "ObjectStores",
    "PostgresStores",
    "RowStores",
    "S3Stores",
    "SqlRowStores",
    "Stores",
    "create_in_process",
    "decide_in_process",
    "racing_processes",
]


class ObjectStore(Blobs, BlobSweep, Protocol):
    """Both ends of a blob store."""


class JobStore(JobRows, JobRecorder, Protocol):
    """Both ends of the rows."""


class RowStores(Protocol):
    """One implementation of the rows, with nothing in it yet."""

    def rows(self) -> AbstractAsyncContextManager[JobStore]: ...

    def stored_row(self, job_id: str) -> JobRow | None:
        """The row, read around the port."""
        ...


class SqlRowStores(RowStores, Protocol):
    """One whose other tables are looked at too."""

    def parked(self) -> list[tuple[str, ...]]:
        """Log, message and reason of what could not be read, read around the port."""
        ...


class ObjectStores(Protocol):
    """One implementation of objects and outcomes, with nothing in it yet."""

    @property
    def tick_s(self) -> float:
        """How coarse the times are that it keeps."""
        ...

    def blobs(self) -> ObjectStore: ...

    def outcomes(self) -> AbstractAsyncContextManager[Outcomes]: ...

    def stored_object(self, key: str) -> bytes | None:
        """The object, read around the port."""
        ...

    def stored_outcome(self, job_id: str) -> Outcome | None:
        """The outcome, read around the port."""
        ...


class Stores(ObjectStores, RowStores, Protocol):
    """One implementation of all stores."""


@dataclass(frozen=True)
class DiskStores:
    """A folder of objects and two SQLite files. A plain value: it travels to child processes."""

    folder: Path
    tick_s: float = 0.1
    """File systems stamp with the kernel's coarse clock, a tick behind."""

    @property
    def objects(self) -> Path:
        return self.folder / "blobs"

    def blobs(self) -> FolderBlobs:
        return FolderBlobs(self.objects)

    @asynccontextmanager
    async def outcomes(self) -> AsyncIterator[SqliteOutcomes]:
        async with SqliteOutcomes(self.folder / "outcomes.sqlite") as outcomes:
            yield outcomes

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[SqlJobs]:
        async with Database.open(self.folder / "rows.sqlite") as database:
            yield SqlJobs(database)

    def stored_object(self, key: str) -> bytes | None:
        path = self.objects / key
        return path.read_bytes() if path.exists() else None

    def stored_outcome(self, job_id: str) -> Outcome | None:
        found = self.select("outcomes", "SELECT outcome FROM outcomes WHERE job_id = ?", job_id)
        return Outcome.model_validate_json(found[0][0]) if found else None

    def stored_row(self, job_id: str) -> JobRow | None:
        found = self.select("rows", "SELECT row FROM jobs WHERE id = ?", job_id)
        return JobRow.model_validate_json(found[0][0]) if found else None

    def parked(self) -> list[tuple[str, ...]]:
        return self.select("rows", "SELECT log, raw, why FROM parked")

    def select(self, file: str, statement: str, *values: str) -> list[tuple[str, ...]]:
        """What Python's own sqlite3 finds in a file."""
        with closing(sqlite3.connect(self.folder / f"{file}.sqlite", timeout=10)) as connection:
            return connection.execute(statement, values).fetchall()


@dataclass(frozen=True)
class PostgresStores:
    """The rows in a PostgreSQL database that has our tables. A plain value: it travels to child processes."""

    url: str

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[SqlJobs]:
        async with Database.connect(self.url) as database:
            yield SqlJobs(database)

    def stored_row(self, job_id: str) -> JobRow | None:
        found = say(self.url, f"SELECT row FROM jobs WHERE id = '{job_id}'")  # noqa: S608 - an id of a test
        return JobRow.model_validate_json(found) if found else None

    def parked(self) -> list[tuple[str, ...]]:
        found = say(self.url, "SELECT coalesce(json_agg(json_build_array(log, raw, why)), '[]') FROM parked")
        return [tuple(line) for line in json.loads(found)]


@dataclass(frozen=True)
class MemoryStores:
    """The simulation's stores: what it proves is worth as much as they are like the real ones."""

    world: World = field(default_factory=lambda: World(clock=time.time))
    tick_s: float = 0.0

    def blobs(self) -> MemoryBlobs:
        return MemoryBlobs(self.world)

    @asynccontextmanager
    async def outcomes(self) -> AsyncIterator[MemoryOutcomes]:
        yield MemoryOutcomes(self.world)

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[MemoryRows]:
        yield MemoryRows(self.world)

    def stored_object(self, key: str) -> bytes | None:
        return self.world.blobs[key][0] if key in self.world.blobs else None

    def stored_outcome(self, job_id: str) -> Outcome | None:
        return self.world.outcomes.get(job_id)

    def stored_row(self, job_id: str) -> JobRow | None:
        return self.world.rows.get(job_id)


@dataclass(frozen=True)
class S3Stores:
    """A bucket of a real server, read around the port by Python's own HTTP client. It travels to child processes."""

    place: S3Place
    tick_s: float = 1.0
    """HTTP dates have whole seconds."""

    def blobs(self) -> S3Blobs:
        # SeaweedFS lets a dozen who race for one key wait for several seconds.
        return S3Blobs(self.place, answer_s=15.0)

    @asynccontextmanager
    async def outcomes(self) -> AsyncIterator[S3Outcomes]:
        yield S3Outcomes(self.blobs())

    def stored_object(self, key: str) -> bytes | None:
        answer = ask(self.place, "GET", key)
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def stored_outcome(self, job_id: str) -> Outcome | None:
        found = self.stored_object(f"outcomes/{job_id}")
        return None if found is None else Outcome.model_validate_json(found)


def racing_processes(count: int) -> ProcessPoolExecutor:
    """`count` fresh processes."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def create_in_process(stores: ObjectStores, keys: int) -> int:
    """Create objects 0 to `keys` beside other processes that do the same; how many creates won."""

    async def run() -> int:
        blobs, won = stores.blobs(), 0
        for number in range(keys):
            try:
                await blobs.put(f"outputs/{number}/x", str(os.getpid()).encode(), create_only=True)
                won += 1
            except AlreadyExists:
                pass
        return won

    return asyncio.run(run())


def decide_in_process(stores: ObjectStores, jobs: int) -> list[str]:
    """Decide jobs 0 to `jobs` beside other processes that do the same; who won each, as this process was answered."""

    async def run() -> list[str]:
        async with stores.outcomes() as outcomes:
            mine = [
                Outcome(job_id=job_id(n), state=State.CANCELED, at=NOW, seconds={str(os.getpid()): 1.0})
                for n in range(jobs)
            ]
            return [next(iter((await outcomes.decide(outcome)).seconds)) for outcome in mine]

    return asyncio.run(run())
