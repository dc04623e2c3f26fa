"""API keys in memory, counting the jobs of the simulation's world: the same contract as the store in SQL."""

import dataclasses
from collections.abc import Mapping, Sequence

from sfumato.core.errors import AlreadyExists
from sfumato.core.keys import ApiKey, Usage
from tests.simulation.memory import World

__all__ = ["MemoryKeys"]


class MemoryKeys:
    """Keys beside the rows of `world`, whose io is awaited before each effect."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kept: dict[str, ApiKey] = {}

    async def keys(self) -> Mapping[str, ApiKey]:
        await self._world.io("keys")
        return dict(self.kept)

    async def add(self, key: ApiKey) -> None:
        await self._world.io("add")
        if key.prefix in self.kept:
            raise AlreadyExists(f"there is a key {key.prefix} already")
        self.kept[key.prefix] = key

    async def revoke(self, prefix: str, now: float) -> ApiKey | None:
        await self._world.io("revoke")
        key = self.kept.get(prefix)
        if key is not None and key.revoked_at is None:
            key = self.kept[prefix] = dataclasses.replace(key, revoked_at=now)
        return key

    async def usage(self, owner: str, since: float, job_ids: Sequence[str]) -> Usage:
        await self._world.io("usage")
        mine = [row for row in self._world.rows.values() if row.job.owner == owner]
        counted = frozenset(job_id for job_id in job_ids if job_id in self._world.rows)
        spent = sum(row.job.cost for row in mine if row.job.created_at >= since)
        return Usage(sum(not row.state.terminal for row in mine), spent, counted)
