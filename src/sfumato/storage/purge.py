"""Old job rows in SQL, for who removes them before the recorder's own sweep does."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, func, select, tuple_

from sfumato.core.history import EndedPage, EndedQuery
from sfumato.storage.cursors import cursor_behind, place_of
from sfumato.storage.database import LONG_S, Database
from sfumato.storage.tables import deliveries, forgotten, jobs

__all__ = ["SqlPurge", "remove_rows"]


class SqlPurge:
    """`JobPurge` of core.history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, which: EndedQuery) -> int:
        """How many there are."""
        async with self._database.read() as connection:
            return int((await connection.execute(_ended(select(func.count()), which))).scalar_one())

    async def some(self, which: EndedQuery, cursor: str, limit: int) -> EndedPage:
        """The next ones behind the cursor ("" to begin); none when that was all."""
        found = _ended(select(jobs.c.id, jobs.c.created_at), which)
        if cursor:
            found = found.where(tuple_(jobs.c.created_at, jobs.c.id) > tuple_(*place_of(cursor)))
        async with self._database.read() as connection:
            rows = (await connection.execute(found.order_by(jobs.c.created_at, jobs.c.id).limit(limit))).all()
        return EndedPage([row.id for row in rows], cursor_behind(rows[-1].created_at, rows[-1].id) if rows else "")

    async def drop(self, job_ids: Sequence[str]) -> int:
        """Remove these rows with what was delivered about them; how many. One that is in use just now stays."""
        return await remove_rows(self._database, select(jobs.c.id).where(self._database.among(jobs.c.id, job_ids)))


async def remove_rows(database: Database, which: Select[Any]) -> int:
    """Remove the ended rows that a select gives the ids of, and all that hangs on them, in one transaction."""
    ended = which.where(jobs.c.due_at.is_(None))
    async with database.write(LONG_S) as connection:
        # What somebody else has in hand is left for the next time.
        ids = (await connection.execute(ended.with_for_update(skip_locked=True))).scalars().all()
        await connection.execute(delete(forgotten).where(database.among(forgotten.c.job_id, ids)))
        await connection.execute(delete(deliveries).where(database.among(deliveries.c.job_id, ids)))
        await connection.execute(delete(jobs).where(database.among(jobs.c.id, ids)))
    return len(ids)


def _ended(rows: Select[Any], which: EndedQuery) -> Select[Any]:
    rows = rows.where(jobs.c.due_at.is_(None), jobs.c.created_at < which.before)
    if which.owner:
        rows = rows.where(jobs.c.owner == which.owner)
    if which.model:
        rows = rows.where(jobs.c.model == which.model)
    if which.state is not None:
        rows = rows.where(jobs.c.state == which.state.value)
    return rows
