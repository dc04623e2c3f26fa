"""The controller's decisions, its lease and the hosts that run workers, in the database of the rows."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.errors import Deposed
from sfumato.core.scaling import Decided, Ends, Placement, Pool
from sfumato.storage.clock import database_now
from sfumato.storage.database import Database
from sfumato.storage.tables import decisions as _decisions
from sfumato.storage.tables import leases, placements
from sfumato.storage.tables import pools as _pools

__all__ = ["SqlScaling"]

LEASE: Final = "controller"
FORGOTTEN_S: Final = 86_400.0
"""A host that was silent for so long is not only passed over but removed."""


class SqlScaling:
    """`Board`, `Offers` and `DecisionReader` of core.scaling."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def decisions(self) -> Mapping[str, Decided]:
        """The latest decision about each model that there is one about."""
        async with self._database.read() as connection:
            found = await connection.execute(select(_decisions))
            return {row.model: Decided(row.replicas, row.why, row.at) for row in found}

    async def lead(self, holder: str, for_s: float) -> bool:
        """Take the lease, or hold it longer: `for_s` from now on. False while another holds it."""
        async with self._database.write() as connection:
            await self._database.put(connection, leases, [{"name": LEASE, "holder": "", "until": 0.0}])
            now = await database_now(connection)
            held_by, until = await _lease(connection)
            # More than was ever asked for was written while the clock ran ahead.
            if held_by != holder and now < until <= now + for_s:
                return False
            changed = update(leases).where(leases.c.name == LEASE).values(holder=holder, until=now + for_s)
            await connection.execute(changed)
        return True

    async def resign(self, holder: str) -> None:
        """Give the lease up; without effect when another holds it."""
        async with self._database.write() as connection:
            mine = (leases.c.name == LEASE) & (leases.c.holder == holder)
            await connection.execute(update(leases).where(mine).values(until=0.0))

    async def pools(self, silent_s: float) -> Sequence[Pool]:
        """The hosts that were heard within `silent_s`, by name."""
        async with self._database.read() as connection:
            now = await database_now(connection)
            alive = select(_pools).where(_pools.c.at.between(now - silent_s, now + silent_s)).order_by(_pools.c.name)
            found = (await connection.execute(alive)).all()
            placed: defaultdict[str, dict[str, int]] = defaultdict(dict)
            for row in await connection.execute(select(placements)):
                placed[row.pool][row.model] = row.replicas
        return [Pool(row.name, row.places, placed[row.name], _ends(row.ends)) for row in found]

    async def decide(
        self, holder: str, decided: Mapping[str, Decided], placed: Mapping[str, Mapping[str, Placement]]
    ) -> None:
        """Replace all decisions and placements at once. Raises Deposed when the lease is another's."""
        async with self._database.write() as connection:
            now = await database_now(connection)
            held_by, until = await _lease(connection)
            if held_by != holder or now >= until:
                raise Deposed(f"{held_by or 'nobody'} decides how many workers there are now.")
            await connection.execute(delete(_decisions).where(_decisions.c.model.not_in(list(decided))))
            await connection.execute(delete(placements))
            await connection.execute(delete(_pools).where(_pools.c.at < now - FORGOTTEN_S))
            if decided:
                rows = [{"model": model, **_columns(each)} for model, each in decided.items()]
                await self._database.put(connection, _decisions, rows, update=["replicas", "why", "at"])
            if lines := [
                {"pool": pool, "model": model, "replicas": each.replicas, "idlest": " ".join(each.idlest)}
                for pool, models in placed.items()
                for model, each in models.items()
            ]:
                await self._database.put(connection, placements, lines)

    async def offer(self, pool: str, places: int, ends: Mapping[str, Ends] = MappingProxyType({})) -> None:
        """Say that this host lives and runs up to `places` workers; `ends` as in `Pool`."""
        told = {model: [each.count, each.how] for model, each in ends.items()}
        offered: dict[str, Any] = {"name": pool, "places": places, "ends": json.dumps(told)}
        async with self._database.write() as connection:
            offered["at"] = await database_now(connection)
            await self._database.put(connection, _pools, [offered], update=["places", "ends", "at"])

    async def placed(self, pool: str) -> Mapping[str, Placement]:
        """What this host should run."""
        async with self._database.read() as connection:
            found = await connection.execute(select(placements).where(placements.c.pool == pool))
            return {row.model: Placement(row.replicas, tuple(row.idlest.split())) for row in found}

    async def withdraw(self, pool: str) -> None:
        """This host runs no more workers."""
        async with self._database.write() as connection:
            await connection.execute(delete(_pools).where(_pools.c.name == pool))


def _ends(told: str) -> Mapping[str, Ends]:
    return {model: Ends(count, how) for model, (count, how) in json.loads(told).items()}


async def _lease(connection: AsyncConnection) -> tuple[str, float]:
    """Who holds the lease and until when; nobody else may change it before the transaction ends."""
    mine = select(leases.c.holder, leases.c.until).where(leases.c.name == LEASE).with_for_update()
    row = (await connection.execute(mine)).one_or_none()
    return ("", 0.0) if row is None else (row.holder, row.until)


def _columns(decided: Decided) -> dict[str, Any]:
    return {"replicas": decided.replicas, "why": decided.why, "at": decided.at}
