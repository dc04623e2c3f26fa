"""The contract of Board, Offers and DecisionReader: one decides, all hosts follow."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from sfumato.core.errors import Deposed
from sfumato.core.scaling import Board, Decided, Ends, Offers, Placement, Pool
from sfumato.storage.database import Database
from sfumato.storage.scaling import SqlScaling
from tests.memory_scaling import MemoryScaling
from tests.postgres import PostgresServer
from tests.support import NOW, eventually

TWO = {"restyle": Decided(2, "14 jobs wait.", NOW)}


class Scaling(Board, Offers, Protocol):
    """Every end of the store."""


class Stores(Protocol):
    """One implementation, with nothing in it yet; each opening is as a process of its own would make it."""

    def open(self) -> AbstractAsyncContextManager[Scaling]: ...


@dataclass(frozen=True)
class MemoryStores:
    """One for all who open it."""

    store: MemoryScaling = field(default_factory=lambda: MemoryScaling(time.time))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Scaling]:
        yield self.store


@dataclass(frozen=True)
class SqlStores:
    """A database of one kind, empty at first."""

    address: str | Path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SqlScaling]:
        async with self._database() as database:
            yield SqlScaling(database)

    def _database(self) -> AbstractAsyncContextManager[Database]:
        return Database.open(self.address) if isinstance(self.address, Path) else Database.connect(self.address)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    match request.param:
        case "memory":
            return MemoryStores()
        case "sqlite":
            return SqlStores(tmp_path / "rows.sqlite")
    server: PostgresServer = request.getfixturevalue("postgres")
    return SqlStores(server.fresh())


def test_one_of_many_gets_the_lease(stores: Stores) -> None:
    async def run() -> list[bool]:
        async with stores.open() as one, stores.open() as other:
            return await asyncio.gather(*(each.lead(f"{n}", 60) for n, each in enumerate((one, other, one, other))))

    assert sum(asyncio.run(run())) == 1


def test_lease_is_held_by_renewing_it_and_lost_by_silence(stores: Stores) -> None:
    async def run() -> None:
        async with stores.open() as one, stores.open() as other:
            assert await one.lead("one", 60)
            assert not await other.lead("other", 60)
            assert await one.lead("one", 0.05)

            await eventually(lambda: other.lead("other", 60))

            assert not await one.lead("one", 60)

    asyncio.run(run())


def test_lease_that_was_given_up_is_free_at_once(stores: Stores) -> None:
    async def run() -> None:
        async with stores.open() as one, stores.open() as other:
            assert await one.lead("one", 60)
            await other.resign("other")
            assert not await other.lead("other", 60)

            await one.resign("one")

            assert await other.lead("other", 60)

    asyncio.run(run())


def test_who_lost_the_lease_changes_nothing(stores: Stores) -> None:
    async def run() -> None:
        async with stores.open() as one, stores.open() as other:
            await one.lead("one", 60)
            await one.decide("one", TWO, {"host": {"restyle": Placement(2)}})
            await one.resign("one")
            await other.lead("other", 60)

            with pytest.raises(Deposed):
                await one.decide("one", {}, {})

            assert await other.decisions() == TWO
            assert await other.placed("host") == {"restyle": Placement(2)}

    asyncio.run(run())


def test_nobody_decides_without_the_lease(stores: Stores) -> None:
    async def run() -> None:
        async with stores.open() as board:
            with pytest.raises(Deposed):
                await board.decide("one", TWO, {})
            await board.lead("one", 0.01)
            await asyncio.sleep(0.05)
            with pytest.raises(Deposed):
                await board.decide("one", TWO, {})
            assert await board.decisions() == {}

    asyncio.run(run())


def test_decisions_replace_those_of_before_whole(stores: Stores) -> None:
    async def run() -> None:
        async with stores.open() as board:
            await board.lead("one", 60)
            await board.decide("one", {"gone": Decided(1, "x", NOW), "stays": Decided(1, "y", NOW)}, {})

            stays = {"stays": Decided(3, "z", NOW + 1)}
            await board.decide("one", stays, {"host": {"stays": Placement(3, ("worker-b", "worker-a"))}})

            assert await board.decisions() == stays
            assert await board.placed("host") == {"stays": Placement(3, ("worker-b", "worker-a"))}
            assert await board.placed("another") == {}

    asyncio.run(run())


def test_host_is_seen_while_it_offers_itself(stores: Stores) -> None:
    async def run() -> None:
        async with stores.open() as board:
            await board.lead("one", 60)
            await board.offer("b", 2)
            await board.offer("a", 1)
            ends = {"sdxl": Ends(3, "ended with status -9")}
            await board.offer("b", 4, ends)
            await board.decide("one", {}, {"b": {"restyle": Placement(3)}})
            assert await board.pools(silent_s=60) == [Pool("a", 1, {}), Pool("b", 4, {"restyle": 3}, ends)]

            await board.withdraw("b")
            assert await board.pools(silent_s=60) == [Pool("a", 1, {})]

            await asyncio.sleep(0.05)
            assert await board.pools(silent_s=0.01) == []

    asyncio.run(run())
