"""Webhook deliveries in SQL: owed in the transaction that folds their event, claimed by recorders, settled by them."""

import json
import secrets as random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Select, case, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.events import JobRow
from sfumato.core.webhooks import (
    JOB_ENDPOINT,
    Attempt,
    Claimed,
    Delivery,
    DeliveryState,
    Due,
    Hook,
    Pending,
    Room,
    delivery_id,
    shared_out,
    wanted,
)
from sfumato.storage.clock import database_now
from sfumato.storage.database import LONG_S, Database
from sfumato.storage.tables import deliveries, endpoints

__all__ = ["SqlOutbox", "Telling", "as_delivery", "give_up", "host_of", "owe", "valid_secrets"]

LOOKED_AT: Final = 4
"""So many times as many due ones as there is room for are looked at: hosts and owners with their share are passed."""
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
    if not theirs and not any(told.row.job.webhook_url for told in tellings):
        return
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

    async def claim(self, room: Room, lease_s: float) -> Sequence[Claimed]:
        """Take due deliveries as far as there is room, nobody else's for `lease_s`; owners in turn."""
        async with self._database.read() as connection:
            # Looked for here, however many are due: whoever writes is held up by what is taken alone.
            found = await connection.execute(_first_of_each(await database_now(connection), room))
            ids = shared_out((Due(row.id, row.host, row.owner, row.attempts) for row in found), room)
        if not ids:
            return []
        async with self._database.write(LONG_S) as connection:
            at = await database_now(connection)
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
            idle_due_at = case((deliveries.c.leased_until <= at, deliveries.c.due_at))
            query = select(func.count(), func.min(deliveries.c.at), func.min(idle_due_at)).where(_PENDING)
            number, *moments = (await connection.execute(query)).one()
        return Pending(number, *(0.0 if moment is None else max(0.0, at - moment) for moment in moments))


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


def _first_of_each(at: float, room: Room) -> Select[Any]:
    """What is longest due, of each owner and host that has room, owners in turn: no backlog hides another's.

    Nor do those that failed before hide those that were never tried: each kind has its turns.
    """
    full = sorted(host for host, count in room.hosts.items() if count >= room.per_host)
    again = (deliveries.c.attempts > 0).label("again")
    theirs, longest = (deliveries.c.owner, deliveries.c.host), (deliveries.c.due_at, deliveries.c.position)
    place = func.row_number().over(partition_by=theirs, order_by=longest).label("place")
    shown = _due(at) & deliveries.c.host.not_in(full)
    if room.retries <= 0:
        shown &= deliveries.c.attempts == 0
    due = select(deliveries.c.id, *theirs, deliveries.c.attempts, deliveries.c.due_at, again, place)
    first = due.where(shown).subquery()
    kind, order = (first.c.owner, first.c.again), (first.c.due_at, first.c.id)
    turn = func.row_number().over(partition_by=kind, order_by=order).label("turn")
    by_turns = select(first, turn).where(first.c.place <= room.per_host).subquery()
    return select(by_turns).order_by(by_turns.c.turn, by_turns.c.due_at, by_turns.c.id).limit(room.free * LOOKED_AT)


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
