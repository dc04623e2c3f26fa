"""The line of what happens to jobs, in SQL: written in the transaction that changes their rows, kept for an hour."""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Text, cast, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.events import JobRow, Lifecycle
from sfumato.core.news import News, Place, Settled
from sfumato.storage.clock import database_clock, database_now
from sfumato.storage.database import Database
from sfumato.storage.hidden import few_shown
from sfumato.storage.tables import cursors, jobs
from sfumato.storage.tables import news as _news

__all__ = ["Happened", "read", "settled", "tell", "trim"]

KEPT_S: Final = 3_600.0
TRIM_CHUNK: Final = 1_000
GONE: Final = "news:gone"
"""Beside the recorder's cursors: the number up to which lines were removed."""
_NEWEST: Final = select(func.max(_news.c.number))


class Happened(NamedTuple):
    """A line that a job's row got just now."""

    row: JobRow
    line: Lifecycle


async def tell(database: Database, connection: AsyncConnection, happened: Sequence[Happened]) -> None:
    """Write these lines, within the caller's transaction; what was written before stays where it stands."""
    number, at = await _stamp(connection)
    rows = [
        {"job_id": row.id, "position": line.position, "number": number, "owner": row.job.owner, "at": at, "line": line}
        for row, line in happened
    ]
    await database.put(connection, _news, rows)


async def settled(connection: AsyncConnection) -> Settled:
    """What can be read now."""
    gone = (await connection.execute(select(cursors.c.cursor).where(cursors.c.log == GONE))).scalar()
    if connection.dialect.name == "sqlite":
        last = (await connection.execute(_NEWEST)).scalar() or 0
    else:
        # Transactions end in another order than they began: one that is older than any that runs comes no more.
        oldest = func.pg_snapshot_xmin(func.pg_current_snapshot())
        last = (await connection.execute(select(_as_number(oldest)))).scalar_one() - 1
    return Settled(int(gone or 0), int(last))


async def read(
    database: Database, connection: AsyncConnection, after: Place, last: int, owners: Collection[str] | None, limit: int
) -> Sequence[News]:
    """The oldest lines after a place and up to number `last`, of these owners' jobs (None: of all)."""
    key = (_news.c.number, _news.c.job_id, _news.c.position)
    lines = select(*key, _news.c.line, jobs.c.row).join(jobs, jobs.c.id == _news.c.job_id)
    lines = lines.where(tuple_(*key) > tuple_(*after), _news.c.number <= last)
    lines = lines.where(few_shown(_news.c.job_id))
    if owners is not None:
        lines = lines.where(database.among(_news.c.owner, sorted(owners)))
    found = await connection.execute(lines.order_by(*key).limit(limit))
    return [News(Place(row.number, row.job_id, row.position), row.line, row.row) for row in found]


async def trim(database: Database, within_s: float) -> None:
    """Remove what is older than KEPT_S."""
    oldest = select(_news.c.number, _news.c.at).order_by(_news.c.number).limit(TRIM_CHUNK)
    while True:
        async with database.write(within_s) as connection:
            before = await database_now(connection) - KEPT_S
            old = [row.number for row in await connection.execute(oldest) if row.at < before]
            if not old:
                return
            await connection.execute(delete(_news).where(_news.c.number <= old[-1]))
            await database.put(connection, cursors, [{"log": GONE, "cursor": str(old[-1])}], update=["cursor"])


async def _stamp(connection: AsyncConnection) -> tuple[int, float]:
    """The number of this transaction, greater than that of any that has ended before it began, and the time."""
    clock = database_clock(connection)
    if connection.dialect.name != "sqlite":
        number, at = (await connection.execute(select(_as_number(func.pg_current_xact_id()), clock))).one()
        return int(number), float(at)
    # Who writes is alone here. The clock keeps a number from being given twice after the newest lines were removed.
    newest, at = (await connection.execute(select(func.max(_news.c.number), clock))).one()
    return max(int(newest or 0) + 1, int(at * 1_000)), float(at)


def _as_number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL casts its 64-bit transaction ids to text alone.
    return cast(cast(transaction, Text), BigInteger)
