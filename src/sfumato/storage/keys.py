"""API keys, and what their owners used, in the database of the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.errors import AlreadyExists
from sfumato.core.job import Priority
from sfumato.core.keys import ApiKey, Quota, Scope, Usage
from sfumato.storage.database import Database
from sfumato.storage.tables import api_keys, jobs

__all__ = ["SqlKeys"]


class SqlKeys:
    """`KeyStore` of core.keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keys(self) -> Mapping[str, ApiKey]:
        """Every key by its prefix, those that are revoked or expired too."""
        async with self._database.read() as connection:
            return {row.prefix: _key(row) for row in await connection.execute(select(api_keys))}

    async def add(self, key: ApiKey) -> None:
        """Keep a new key. Raises AlreadyExists when another one has its prefix."""
        async with self._database.write() as connection:
            # An insert that finds its prefix taken changes nothing, and then another's digest stands there.
            await self._database.put(connection, api_keys, [_columns(key)])
            found = await _found(connection, key.prefix)
        if found is None or found.digest != key.digest:
            raise AlreadyExists(f"there is a key {key.prefix} already; make another one.")

    async def revoke(self, prefix: str, now: float) -> ApiKey | None:
        """End a key at `now`, unless it has been before; the key as it is then, None when there is none."""
        async with self._database.write() as connection:
            valid = (api_keys.c.prefix == prefix) & api_keys.c.revoked_at.is_(None)
            await connection.execute(update(api_keys).where(valid).values(revoked_at=now))
            return await _found(connection, prefix)

    async def usage(self, owner: str, since: float, job_ids: Sequence[str]) -> Usage:
        """What `owner` has in the rows; deleted jobs are counted for their cost. `since` is Unix seconds."""
        mine = jobs.c.owner == owner
        async with self._database.read() as connection:
            counted: frozenset[str] = frozenset()
            if job_ids:
                # First, so that what is seen here is also in the counts below.
                known = select(jobs.c.id).where(self._database.among(jobs.c.id, job_ids))
                counted = frozenset((await connection.execute(known)).scalars())
            unended = select(func.count()).select_from(jobs).where(mine, jobs.c.due_at.is_not(None))
            cost = select(func.coalesce(func.sum(jobs.c.cost), 0)).where(mine, jobs.c.created_at >= since)
            in_flight = (await connection.execute(unended)).scalar_one()
            return Usage(int(in_flight), int((await connection.execute(cost)).scalar_one()), counted)


async def _found(connection: AsyncConnection, prefix: str) -> ApiKey | None:
    row = (await connection.execute(select(api_keys).where(api_keys.c.prefix == prefix))).one_or_none()
    return None if row is None else _key(row)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        prefix=row.prefix,
        digest=row.digest,
        owner=row.owner,
        scopes=frozenset(Scope(each) for each in row.scopes.split()),
        created_at=row.created_at,
        max_priority=Priority(row.max_priority),
        weight=row.weight or 1.0,
        quota=Quota(row.rate, row.in_flight, row.per_day),
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _columns(key: ApiKey) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "digest": key.digest,
        "owner": key.owner,
        "scopes": " ".join(sorted(key.scopes)),
        "max_priority": key.max_priority.value,
        "weight": key.weight,
        "rate": key.quota.rate,
        "in_flight": key.quota.in_flight,
        "per_day": key.quota.per_day,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
