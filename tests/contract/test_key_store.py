"""The contract of KeyStore: keys are kept whole, revoked once, and what owners use is counted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from sfumato.core.errors import AlreadyExists
from sfumato.core.events import Ended
from sfumato.core.job import Job, Outcome, Priority, State
from sfumato.core.keys import ApiKey, KeyStore, Quota, Scope, Usage, key_text
from sfumato.core.ports import JobRecorder, JobRows, RowChange
from sfumato.storage.database import Database
from sfumato.storage.jobs import SqlJobs
from sfumato.storage.keys import SqlKeys
from tests.memory_keys import MemoryKeys
from tests.postgres import PostgresServer
from tests.simulation.memory import MemoryRows, World
from tests.support import NOW, make_job


class Rows(JobRows, JobRecorder, Protocol):
    """Both ends of the rows, which usage is counted from."""


@dataclass(frozen=True)
class MemoryStores:
    world: World = field(default_factory=lambda: World(clock=time.time))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[KeyStore, Rows]]:
        yield MemoryKeys(self.world), MemoryRows(self.world)


@dataclass(frozen=True)
class SqlStores:
    address: str | Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[KeyStore, Rows]]:
        opened = Database.open(self.address) if isinstance(self.address, Path) else Database.connect(self.address)
        async with opened as database:
            yield SqlKeys(database), SqlJobs(database)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStores | SqlStores:
    match request.param:
        case "memory":
            return MemoryStores()
        case "sqlite":
            return SqlStores(tmp_path / "rows.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    return SqlStores(server.fresh())


def a_key(number: int, **more: object) -> ApiKey:
    return ApiKey.of(key_text(number.to_bytes(37, "big")[::-1]), "alice", [Scope.READ], NOW, **more)


def ended(job: Job) -> RowChange:
    outcome = Outcome(job_id=job.id, state=State.CANCELED, at=NOW)
    return RowChange(event=Ended(job_id=job.id, at=NOW, attempt=0, delivery=0, outcome=outcome), position=9)


def test_keys_come_back_as_they_were(stores: MemoryStores | SqlStores) -> None:
    bare = a_key(1)
    full = ApiKey.of(
        key_text(b"x" * 37),
        "bob@example.org",
        [Scope.SUBMIT, Scope.ADMIN],
        NOW,
        max_priority=Priority.LOW,
        weight=2.5,
        quota=Quota(2.5, 7, 5 * 10**12),
        expires_at=NOW + 60,
    )

    async def run() -> None:
        async with stores.open() as (keys, _):
            assert await keys.keys() == {}
            await keys.add(bare)
            await keys.add(full)
            assert await keys.keys() == {bare.prefix: bare, full.prefix: full}

    asyncio.run(run())


def test_a_prefix_that_is_taken_is_refused_and_its_key_stays(stores: MemoryStores | SqlStores) -> None:
    first = a_key(1)
    second = ApiKey(first.prefix, "0" * 64, "bob", first.scopes, NOW)

    async def run() -> None:
        async with stores.open() as (keys, _):
            await keys.add(first)
            with pytest.raises(AlreadyExists):
                await keys.add(second)
            assert await keys.keys() == {first.prefix: first}

    asyncio.run(run())


def test_a_key_is_revoked_once_and_stays_known(stores: MemoryStores | SqlStores) -> None:
    async def run() -> None:
        async with stores.open() as (keys, _):
            await keys.add(a_key(1))
            await keys.add(a_key(2))
            prefix = a_key(1).prefix

            first, again = await keys.revoke(prefix, NOW + 1), await keys.revoke(prefix, NOW + 2)

            assert first == again
            assert first is not None
            assert first.revoked_at == NOW + 1
            assert (await keys.keys())[prefix] == first
            assert (await keys.keys())[a_key(2).prefix].revoked_at is None
            assert await keys.revoke("aaaaaaaz", NOW) is None

    asyncio.run(run())


def test_usage_counts_what_has_not_ended_and_what_was_made_since(stores: MemoryStores | SqlStores) -> None:
    old, over, waits = (make_job(number, owner="alice", cost=10**number) for number in (1, 2, 3))
    others = make_job(4, owner="bob")
    unknown = make_job(5, owner="alice")

    async def run() -> None:
        async with stores.open() as (keys, rows):
            await rows.record([RowChange(job=job) for job in (old, over, waits, others)], {})
            await rows.record([ended(over)], {})
            await rows.forget(over.id)

            usage = await keys.usage("alice", over.created_at, [waits.id, unknown.id])

            assert usage == Usage(2, 1_100, frozenset((waits.id,)))
            assert await keys.usage("nobody", 0.0, []) == Usage(0, 0, frozenset())

    asyncio.run(run())
