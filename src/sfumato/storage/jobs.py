"""Job rows in SQL: what the recorder folds into them and what the gateway reads of them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Select, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from sfumato.core.events import JobEvent, JobRow, Unreadable, advance, decode_event, new_row
from sfumato.core.job import Job, State
from sfumato.core.news import News, Place, Settled
from sfumato.core.ports import JobPage, JobQuery, RowChange
from sfumato.core.webhooks import hook_of
from sfumato.storage import news
from sfumato.storage.cursors import cursor_behind, place_of
from sfumato.storage.database import LONG_S, Database
from sfumato.storage.deliveries import Telling, owe
from sfumato.storage.hidden import few_shown, many_shown
from sfumato.storage.news import Happened, tell
from sfumato.storage.purge import remove_rows
from sfumato.storage.tables import cursors as _cursors
from sfumato.storage.tables import forgotten, jobs, parked, pending

__all__ = ["SqlJobs"]

COUNTED: Final = 1_000_000
COUNTED_AHEAD: Final = 10_000
SWEEP_CHUNK: Final = 1_000
"""Rows removed in one transaction, so that a sweep never holds up the recorder for long."""
MOVING: Final = ("state", "due_at", "row")
"""Columns that change after a row was created."""
_Placed = tuple[int, JobEvent]
_Waited = defaultdict[str, list[_Placed]]


class SqlJobs:
    """`JobRows` and `JobRecorder` of core.ports."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # What a gateway reads

    async def get(self, job_id: str) -> JobRow | None:
        """The row, unless it is forgotten or not written yet."""
        async with self._database.read() as connection:
            found = select(jobs.c.row).where(jobs.c.id == job_id, few_shown(jobs.c.id))
            row: JobRow | None = (await connection.execute(found)).scalar()
        return row

    async def list(self, query: JobQuery) -> JobPage:
        """Rows newest first. Raises InvalidRequest when the cursor is not one of ours."""
        async with self._database.read() as connection:
            rows: Sequence[JobRow] = (await connection.execute(_page(query))).scalars().all()
        page = rows[: query.limit]
        return JobPage(page, cursor_behind(page[-1].job.created_at, page[-1].id) if len(rows) > query.limit else "")

    async def count(self, query: JobQuery) -> int:
        """How many rows all pages of the list have, whatever its cursor (counted up to a million)."""
        found = _matching(select(jobs.c.id).where(many_shown(jobs.c.id)), query).limit(COUNTED).subquery()
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(found))).scalar_one())

    async def ahead(self, job: Job) -> int:
        """About how many of its owner's jobs of its model and priority wait before it (counted up to 10,000)."""
        alike = (jobs.c.owner == job.owner) & (jobs.c.priority == job.priority.rank)
        earlier = alike & (jobs.c.created_at < job.created_at)
        waiting = select(jobs.c.id).where(jobs.c.model == job.model, jobs.c.state == State.QUEUED.value, earlier)
        counted = select(func.count()).select_from(waiting.limit(COUNTED_AHEAD).subquery())
        async with self._database.read() as connection:
            return int((await connection.execute(counted)).scalar_one())

    async def forget(self, job_id: str) -> None:
        """Hide the row for good, even one that is yet to be written; its outcome stays as the tombstone."""
        async with self._database.write() as connection:
            await self._database.put(connection, forgotten, [{"job_id": job_id}])

    async def settled(self) -> Settled:
        """What of the news can be read now."""
        async with self._database.read() as connection:
            return await news.settled(connection)

    async def news(self, after: Place, last: int, owners: Collection[str] | None, limit: int) -> Sequence[News]:
        """The oldest lines after a place and up to number `last`, of these owners' jobs (None: of all)."""
        async with self._database.read() as connection:
            return await news.read(self._database, connection, after, last, owners, limit)

    # What the recorder writes

    async def cursors(self) -> dict[str, str]:
        """Log name → the cursor up to which it is folded into the rows."""
        async with self._database.read() as connection:
            return {row.log: row.cursor for row in await connection.execute(select(_cursors))}

    async def record(self, changes: Sequence[RowChange], cursors: dict[str, str]) -> None:
        """Fold the changes in by `core.events.advance`; an event without a row waits for its job message."""
        async with self._database.write(LONG_S) as connection:
            if changes:
                await self._fold(connection, _by_job(changes))
            if cursors:
                values = [{"log": log, "cursor": cursors[log]} for log in sorted(cursors)]
                await self._database.put(connection, _cursors, values, update=["cursor"])

    async def park(self, log: str, position: int, message: Unreadable) -> None:
        """Keep a message that this build can't read; parking it again changes nothing."""
        values = {"log": log, "position": position, "raw": _storable(message.raw), "why": _storable(message.why)}
        async with self._database.write(LONG_S) as connection:
            await self._database.put(connection, parked, [values])

    async def overdue(self, now: float, limit: int) -> Sequence[JobRow]:
        """Rows not yet terminal whose job expired before `now`, the longest overdue first."""
        late = select(jobs.c.row).where(jobs.c.due_at < now).order_by(jobs.c.due_at).limit(limit)
        async with self._database.read() as connection:
            rows: Sequence[JobRow] = (await connection.execute(late)).scalars().all()
        return rows

    async def sweep(self, before: float) -> int:
        """Remove terminal rows created before `before` (Unix seconds), and events that no job came for; how many."""
        removed = 0
        await news.trim(self._database, LONG_S)
        while found := await self._sweep_chunk(before):
            removed += found
        async with self._database.write(LONG_S) as connection:
            await self._database.take_turn(connection, alone=True)
            orphans = await connection.execute(delete(pending).where(pending.c.at < before))
        return removed + orphans.rowcount

    async def _sweep_chunk(self, before: float) -> int:
        old = select(jobs.c.id).where(jobs.c.created_at < before).limit(SWEEP_CHUNK)
        return await remove_rows(self._database, old)

    async def _fold(self, connection: AsyncConnection, told: "Mapping[str, _Told]") -> None:
        """Several recorders may fold the same at once: each takes its locks in the order below, and rows by their ids.

        What one of them creates, the others don't see before its end: they take it for created or wait for it here.
        """
        await self._wait_for_creators(connection, told)
        created = [_columns(new_row(its.job)) for its in told.values() if its.job is not None]
        if created:
            await self._database.put(connection, jobs, created)
        before = await self._locked(connection, told)
        waited = await self._take_pending(connection, [row["id"] for row in created])
        tellings: list[Telling] = []
        # A row that was there already may have been purged since it was looked at.
        there = [before[row["id"]] for row in created if row["id"] in before]
        happened = [Happened(row, row.events[0]) for row in there]
        after = {
            job_id: _folded(row, [*waited[job_id], *told[job_id].events], tellings, happened)
            for job_id, row in before.items()
        }
        changed = [_columns(row) for job_id, row in after.items() if row is not before[job_id]]
        if changed:
            await self._database.put(connection, jobs, changed, update=MOVING)
        if happened:
            await tell(self._database, connection, sorted(happened, key=lambda each: (each.row.id, each.line.position)))
        if tellings:
            await owe(self._database, connection, tellings)
        early = [_waiting(*placed) for job_id, its in told.items() if job_id not in after for placed in its.events]
        if early:
            await self._database.put(connection, pending, early)

    async def _wait_for_creators(self, connection: AsyncConnection, told: "Mapping[str, _Told]") -> None:
        """Make sure that no event is left to wait for a job whose row somebody creates at this very moment."""
        rowless = {job_id for job_id, its in told.items() if its.job is None}
        if rowless:
            found = select(jobs.c.id).where(self._database.among(jobs.c.id, rowless))
            rowless -= set((await connection.execute(found)).scalars())
        await self._database.take_turn(connection, alone=bool(rowless))

    async def _locked(self, connection: AsyncConnection, ids: Iterable[str]) -> dict[str, JobRow]:
        """The rows there are, nobody else's to change until the transaction ends."""
        query = select(jobs.c.row).where(self._database.among(jobs.c.id, ids)).order_by(jobs.c.id).with_for_update()
        found: Sequence[JobRow] = (await connection.execute(query)).scalars().all()
        return {row.id: row for row in found}

    async def _take_pending(self, connection: AsyncConnection, ids: Sequence[str]) -> _Waited:
        waited: _Waited = defaultdict(list)
        if not ids:
            return waited
        query = select(pending.c.position, pending.c.event).where(self._database.among(pending.c.job_id, ids))
        for position, raw in await connection.execute(query):
            event = decode_event(raw)
            if isinstance(event, JobEvent):
                waited[event.job_id].append((position, event))
        if waited:
            await connection.execute(delete(pending).where(self._database.among(pending.c.job_id, waited)))
        return waited


@dataclass(slots=True)
class _Told:
    """What a batch says about one job."""

    job: Job | None = None
    events: list[_Placed] = field(default_factory=list)


def _by_job(changes: Iterable[RowChange]) -> dict[str, _Told]:
    """What a batch says, by job, in the order of their ids."""
    told: defaultdict[str, _Told] = defaultdict(_Told)
    for change in changes:
        if change.job is not None:
            told[change.job.id].job = change.job
        if change.event is not None:
            told[change.event.job_id].events.append((change.position, change.event))
    return dict(sorted(told.items()))


def _folded(row: JobRow, placed: Iterable[_Placed], tellings: list[Telling], happened: list[Happened]) -> JobRow:
    """The row after these events; what they give webhooks to tell, and the lines it gets, are put into the lists."""
    for position, event in sorted(placed, key=lambda each: each[0]):
        before, row = row, advance(row, event, position)
        if row.events is not before.events:
            happened.append(Happened(row, row.events[-1]))
        if (hook := hook_of(before, row)) is not None:
            tellings.append(Telling(hook, row, position, event.at))
    return row


def _columns(row: JobRow) -> dict[str, Any]:
    job = row.job
    return {
        "id": job.id,
        "owner": job.owner,
        "model": job.model,
        "priority": job.priority.rank,
        "state": row.state.value,
        "cost": job.cost,
        "created_at": job.created_at,
        "due_at": None if row.state.terminal else job.expires_at,
        "row": row,
    }


def _waiting(position: int, event: JobEvent) -> dict[str, Any]:
    return {"job_id": event.job_id, "position": position, "at": event.at, "event": event.model_dump_json()}


def _storable(text: str) -> str:
    """A text that every database takes: PostgreSQL knows no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _matching(rows: Select[Any], query: JobQuery) -> Select[Any]:
    if query.owner is not None:
        rows = rows.where(jobs.c.owner == query.owner)
    if query.model:
        rows = rows.where(jobs.c.model == query.model)
    if query.state is not None:
        rows = rows.where(jobs.c.state == query.state.value)
    if query.since is not None:
        rows = rows.where(jobs.c.created_at >= query.since)
    if query.until is not None:
        rows = rows.where(jobs.c.created_at < query.until)
    return rows


def _page(query: JobQuery) -> Select[Any]:
    rows = _matching(select(jobs.c.row).where(few_shown(jobs.c.id)), query)
    if query.cursor:
        rows = rows.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(*place_of(query.cursor)))
    # One more than asked tells whether there is a next page.
    return rows.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(query.limit + 1)
