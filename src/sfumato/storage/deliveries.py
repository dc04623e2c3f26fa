"""Webhook deliveries in SQL: owed in the transaction that folds their event, claimed by recorders, settled by them."""

import json
import secrets as random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.events import JobRow
from sfumato.core.webhooks import (
    JOB_ENDPOINT,
    Attempt,
    Claimed,
    Delivery,
    DeliveryState,
    Hook,
    Pending,
    delivery_id,
    wanted,
)
from sfumato.storage.clock import database_now
from sfumato.storage.database import LONG_S, Database
from sfumato.storage.tables import deliveries, endpoints

__all__ = ["SqlOutbox", "Telling", "as_delivery", "give_up", "host_of", "owe", "valid_secrets"]

LOOKED_AT: Final = 4
"""So many times as many due ones as there is room for are looked at, to pass over hosts that have their share."""
_PENDING: Final = deliveries.c.state == DeliveryState.PENDING.value


class Telling(NamedTuple):
    """Something to be told, right after which the job stands as in `row`; `position` and `at` are the event's."""

    hook: Hook
    row: JobRow
    position: int
    at: float


async def owe(database: Database, connection: AsyncConnection, tellings: Sequence[Telling]) -> None:
    """Insert what is to be delivered, within the caller's transaction; what was owed before stays as it is."""
    owners = sorted({told.row.job.owner for told in tellings})
    query = select(endpoints).where(database.among(endpoints.c.owner, owners), endpoints.c.disabled_why == "")
    theirs = (await connection.execute(query.order_by(endpoints.c.id))).all()
    rows: dict[str, dict[str, Any]] = {}
    due_at = await database_now(connection)
    for told in tellings:
        job = told.row.job
        targets = [(JOB_ENDPOINT, job.webhook_url)] if wanted(job, told.hook) else []
        targets += [
            (each.id, each.url) for each in theirs if each.owner == job.owner and told.hook in each.events.split()
        ]
        for endpoint, url in targets:
            row = _owed(told, endpoint, url, due_at)
            rows[row["id"]] = row
    if rows:
        await database.put(connection, deliveries, [rows[each] for each in sorted(rows)])


def _owed(told: Telling, endpoint: str, url: str, due_at: float) -> dict[str, Any]:
    return {
        "id": delivery_id(told.row, told.hook, endpoint),
        "job_id": told.row.id,
        "owner": told.row.job.owner,
        "event": told.hook.value,
        "endpoint": endpoint,
        "url": url,
        "host": f"{told.row.job.owner} {host_of(url)}",
        "position": told.position,
        "at": told.at,
        "state": DeliveryState.PENDING.value,
        "attempts": 0,
        "due_at": due_at,
        "leased_until": 0.0,
        "receipt": "",
        "last_status": None,
        "last_error": "",
        "row": told.row,
    }


class SqlOutbox:
    """`Outbox` of core.webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, most: int, per_host: int, busy: Mapping[str, int], retries: int, lease_s: float
    ) -> Sequence[Claimed]:
        """Take up to `most` due deliveries, nobody else's for `lease_s`; the longest due first."""
        full = sorted(host for host, count in busy.items() if count >= per_host)
        async with self._database.read() as connection:
            # Mostly there is nothing, and then nobody who writes is held up.
            at = await database_now(connection)
            if (
                await connection.execute(select(deliveries.c.id).where(_due(at), _free(full)).limit(1))
            ).first() is None:
                return []
        async with self._database.write(LONG_S) as connection:
            at = await database_now(connection)
            found = (await connection.execute(_first_of_each_host(at, full, most, per_host))).all()
            ids = _shared_out(found, most, per_host, busy, retries)
            query = select(deliveries).where(self._database.among(deliveries.c.id, ids), _due(at))
            rows = (await connection.execute(query.with_for_update(skip_locked=True))).all()
            receipt = random.token_hex(8)
            taken = {"leased_until": at + lease_s, "receipt": receipt}
            mine = self._database.among(deliveries.c.id, [row.id for row in rows])
            await connection.execute(update(deliveries).where(mine).values(**taken))
            theirs = await self._secrets(connection, {row.endpoint for row in rows}, at)
        return [
            Claimed(as_delivery(row), row.host, row.row, theirs.get(row.endpoint, ()), receipt)
            for row in sorted(rows, key=lambda row: (row.due_at, row.position))
        ]

    async def _secrets(self, connection: AsyncConnection, ids: set[str], at: float) -> dict[str, Sequence[str]]:
        found = await connection.execute(select(endpoints).where(self._database.among(endpoints.c.id, sorted(ids))))
        return {row.id: [text for text, _ in valid_secrets(row.secrets, at)] for row in found}

    async def settle(self, claimed: Claimed, attempt: Attempt) -> None:
        """Note how it went. A failure is not noted by who lost its lease meanwhile; a success always is."""
        given = claimed.delivery
        mine = (deliveries.c.id == given.id) & _PENDING
        if not attempt.delivered:
            mine &= deliveries.c.receipt == claimed.receipt
        async with self._database.write(LONG_S) as connection:
            at = await database_now(connection)
            state = DeliveryState.PENDING
            if attempt.delivered or attempt.wait_s is None:
                state = DeliveryState.DELIVERED if attempt.delivered else DeliveryState.GIVEN_UP
            changed = {
                "state": state.value,
                "attempts": deliveries.c.attempts + 1,
                "due_at": at + (attempt.wait_s or 0.0),
                "leased_until": 0.0,
                "receipt": "",
                "last_status": attempt.status,
                "last_error": attempt.error,
            }
            await connection.execute(update(deliveries).where(mine).values(**changed))
            if attempt.gone:
                await _disable(connection, given, attempt.error)

    async def pending(self) -> Pending:
        """What waits, tried or not."""
        async with self._database.read() as connection:
            at = await database_now(connection)
            found = (await connection.execute(select(func.count(), func.min(deliveries.c.at)).where(_PENDING))).one()
        return Pending(found[0], 0.0 if found[1] is None else max(0.0, at - found[1]))


def _due(at: float) -> ColumnElement[bool]:
    """Whether a delivery is due, in nobody's hands, and the first that its endpoint has yet to be asked for."""
    earlier = deliveries.alias("earlier")
    held_up = exists().where(
        earlier.c.job_id == deliveries.c.job_id,
        earlier.c.endpoint == deliveries.c.endpoint,
        earlier.c.position < deliveries.c.position,
        earlier.c.state == DeliveryState.PENDING.value,
        earlier.c.attempts == 0,
    )
    return _PENDING & (deliveries.c.due_at <= at) & (deliveries.c.leased_until <= at) & ~held_up


def _free(full: Sequence[str]) -> ColumnElement[bool]:
    return deliveries.c.host.not_in(full)


def _first_of_each_host(at: float, full: Sequence[str], most: int, per_host: int) -> Select[Any]:
    """The longest due of each host that has room: one host's backlog, however long, hides nobody else's."""
    order = (deliveries.c.due_at, deliveries.c.position)
    place = func.row_number().over(partition_by=deliveries.c.host, order_by=order).label("place")
    due = select(deliveries.c.id, deliveries.c.host, deliveries.c.attempts, deliveries.c.due_at, place)
    ranked = due.where(_due(at), _free(full)).subquery()
    first = select(ranked).where(ranked.c.place <= per_host)
    return first.order_by(ranked.c.due_at, ranked.c.id).limit(most * LOOKED_AT)


def _shared_out(found: Sequence[Any], most: int, per_host: int, busy: Mapping[str, int], retries: int) -> list[str]:
    held = Counter(busy)
    chosen: list[str] = []
    for row in found:
        if len(chosen) == most:
            break
        again = row.attempts > 0
        if held[row.host] >= per_host or (again and retries <= 0):
            continue
        held[row.host] += 1
        retries -= again
        chosen.append(row.id)
    return chosen


async def _disable(connection: AsyncConnection, given: Delivery, why: str) -> None:
    rest = deliveries.c.endpoint == given.endpoint
    if given.endpoint == JOB_ENDPOINT:
        rest &= deliveries.c.job_id == given.job_id
    else:
        await connection.execute(update(endpoints).where(endpoints.c.id == given.endpoint).values(disabled_why=why))
    await give_up(connection, rest, why)


async def give_up(connection: AsyncConnection, which: ColumnElement[bool], why: str) -> None:
    """No further attempt for those of these that wait."""
    changed = {"state": DeliveryState.GIVEN_UP.value, "last_error": why}
    await connection.execute(update(deliveries).where(which, _PENDING).values(**changed))


def as_delivery(row: Any) -> Delivery:
    """A line of the table as its owner sees it."""
    state = DeliveryState(row.state)
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        event=Hook(row.event),
        endpoint=row.endpoint,
        url=row.url,
        at=row.at,
        state=state,
        attempts=row.attempts,
        next_at=row.due_at if state is DeliveryState.PENDING else None,
        last_status=row.last_status,
        last_error=row.last_error,
    )


def valid_secrets(stored: str, at: float) -> list[tuple[str, float | None]]:
    """The endpoint's secrets that sign at this time, the newest first."""
    return [(text, until) for text, until in json.loads(stored) if until is None or until > at]


def host_of(url: str) -> str:
    """Host and port of this address: one owner's deliveries to it have a share of their own, so that a receiver that
    hangs holds up neither another owner's at the same host nor another one beside it."""
    try:
        parts = urlsplit(url)
        return f"{(parts.hostname or url).rstrip('.')}:{parts.port or parts.scheme}"
    except ValueError:
        return url
