"""An owner's webhook endpoints and deliveries in SQL: what a gateway shows and changes of them."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, tuple_, update

from sfumato.core.webhooks import (
    MOST_SECRETS,
    Delivery,
    DeliveryPage,
    DeliveryQuery,
    DeliveryState,
    Endpoint,
    Hook,
)
from sfumato.storage.clock import database_now
from sfumato.storage.cursors import cursor_behind, place_of
from sfumato.storage.database import Database
from sfumato.storage.deliveries import as_delivery, give_up, host_of, valid_secrets
from sfumato.storage.tables import deliveries
from sfumato.storage.tables import endpoints as _endpoints

__all__ = ["SqlWebhooks"]


class SqlWebhooks:
    """`WebhookDesk` of core.webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def endpoints(self, owner: str) -> Sequence[Endpoint]:
        """The owner's endpoints, the oldest first."""
        query = select(_endpoints).where(_endpoints.c.owner == owner).order_by(_endpoints.c.created_at, _endpoints.c.id)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).all()
        return [_endpoint(row) for row in found]

    async def add(self, endpoint: Endpoint, secret: str, most: int) -> bool:
        """Events from now on go there too. False: the owner has `most` already, and nothing was added."""
        values = {
            "id": endpoint.id,
            "owner": endpoint.owner,
            "url": endpoint.url,
            "host": host_of(endpoint.url),
            "events": " ".join(endpoint.events),
            "secrets": json.dumps([[secret, None]]),
            "created_at": endpoint.created_at,
            "disabled_why": endpoint.disabled_why,
        }
        theirs = select(_endpoints.c.id).where(_endpoints.c.owner == endpoint.owner)
        async with self._database.write() as connection:
            # Who adds at the same time waits for these, and then counts what was added.
            await connection.execute(theirs.with_for_update())
            if len((await connection.execute(theirs)).all()) >= most:
                return False
            await connection.execute(insert(_endpoints).values(**values))
        return True

    async def remove(self, owner: str, endpoint: str) -> bool:
        """Nothing more goes there; what waits for it is given up. False when the owner has no such endpoint."""
        mine = (_endpoints.c.id == endpoint) & (_endpoints.c.owner == owner)
        async with self._database.write() as connection:
            gone = await connection.execute(delete(_endpoints).where(mine))
            if gone.rowcount:
                await give_up(connection, deliveries.c.endpoint == endpoint, "The endpoint was deleted.")
        return bool(gone.rowcount)

    async def rotate(self, owner: str, endpoint: str, secret: str, overlap_s: float) -> bool:
        """`secret` signs from now on; the latest before sign beside it for `overlap_s` at most. False: none."""
        mine = (_endpoints.c.id == endpoint) & (_endpoints.c.owner == owner)
        async with self._database.write() as connection:
            row = (await connection.execute(select(_endpoints).where(mine).with_for_update())).one_or_none()
            if row is None:
                return False
            at = await database_now(connection)
            last = at + overlap_s
            before = [
                (text, last if until is None else min(until, last)) for text, until in valid_secrets(row.secrets, at)
            ]
            kept = [(secret, None), *(each for each in before if each[1] > at)][:MOST_SECRETS]
            await connection.execute(update(_endpoints).where(mine).values(secrets=json.dumps(kept)))
        return True

    async def deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """Newest first. Raises InvalidRequest when the cursor is not one of ours."""
        rows = select(deliveries).where(deliveries.c.owner == query.owner)
        if query.job_id:
            rows = rows.where(deliveries.c.job_id == query.job_id)
        if query.state is not None:
            rows = rows.where(deliveries.c.state == query.state.value)
        if query.cursor:
            rows = rows.where(tuple_(deliveries.c.at, deliveries.c.id) < tuple_(*place_of(query.cursor)))
        # One more than asked tells whether there is a next page.
        page = rows.order_by(deliveries.c.at.desc(), deliveries.c.id.desc()).limit(query.limit + 1)
        async with self._database.read() as connection:
            found = [as_delivery(row) for row in await connection.execute(page)]
        shown = found[: query.limit]
        return DeliveryPage(shown, cursor_behind(shown[-1].at, shown[-1].id) if len(found) > query.limit else "")

    async def redeliver(self, owner: str, delivery: str) -> Delivery | None:
        """Send it once more, now, with all its attempts before it; as it stands then. None: no such one."""
        mine = (deliveries.c.id == delivery) & (deliveries.c.owner == owner)
        async with self._database.write() as connection:
            again = {"state": DeliveryState.PENDING.value, "attempts": 0, "due_at": await database_now(connection)}
            await connection.execute(update(deliveries).where(mine).values(**again))
            row = (await connection.execute(select(deliveries).where(mine))).one_or_none()
        return None if row is None else as_delivery(row)


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        id=row.id,
        owner=row.owner,
        url=row.url,
        events=tuple(Hook(each) for each in row.events.split()),
        created_at=row.created_at,
        disabled_why=row.disabled_why,
    )
