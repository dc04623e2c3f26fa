"""The jobs log and the event log over SQLite: rows that only grow, and one row a model for who reads the jobs."""

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from sfumato.core.errors import Deposed, TransientError
from sfumato.core.events import Event, Unreadable, decode_event, decode_job
from sfumato.core.job import Job
from sfumato.core.ports import Batch, Lead, Logged
from sfumato.sqlite.file import SqliteFile
from sfumato.sqlite.wakeup import Bell, look_until

__all__ = ["LOG_SCHEMA", "READERS_SCHEMA", "SqliteEvents", "SqliteJobs", "trim_events", "trim_jobs"]

T = TypeVar("T")

# AUTOINCREMENT: a position is never given twice, even when the newest entries were trimmed. Positions of one model have
# gaps, because the models share the table. The index ends in the position, as every SQLite index does.
LOG_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS log (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    at REAL NOT NULL,       -- Unix seconds of the writing process
    body TEXT NOT NULL      -- JSON of the job or event
);
CREATE INDEX IF NOT EXISTS log_by_model ON log (model);
"""
APPEND: Final = "INSERT INTO log (model, at, body) VALUES (?, ?, ?)"
AFTER: Final = "SELECT position, body FROM log WHERE model = ? AND position > ? ORDER BY position LIMIT ?"
LAST: Final = "SELECT coalesce(max(position), 0) FROM log WHERE model = ?"

# epoch grows with every new reader and fences the one before; seen is Unix seconds of its last sign, 0 after close.
READERS_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS readers (
    model TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    seen REAL NOT NULL,
    position INTEGER NOT NULL,
    metadata TEXT NOT NULL
);
"""
READER: Final = "SELECT epoch, seen, position, metadata FROM readers WHERE model = ?"
LEAD: Final = """
INSERT INTO readers (model, epoch, seen, position, metadata) VALUES (?1, 1, ?2, 0, '')
ON CONFLICT (model) DO UPDATE SET epoch = epoch + 1, seen = ?2
RETURNING epoch, position, metadata
"""
SEEN: Final = "UPDATE readers SET seen = ? WHERE model = ? AND epoch = ?"
COMMIT: Final = "UPDATE readers SET position = ?, metadata = ? WHERE model = ? AND epoch = ?"

FIRST_KEPT: Final = "SELECT position FROM log WHERE at >= ? ORDER BY position LIMIT 1"
TRIM_EVENTS: Final = "DELETE FROM log WHERE position IN (SELECT position FROM log WHERE position < ? LIMIT 1000)"
TRIM_JOBS: Final = """
DELETE FROM log WHERE position IN (
    SELECT log.position FROM log JOIN readers USING (model)
    WHERE log.position < ? AND log.position <= readers.position LIMIT 1000
)
"""


class _Log(Generic[T]):
    """One process's end of one model's log."""

    def __init__(self, file: SqliteFile, topic: str, model: str, bell: Bell, decode: Callable[[str], T]) -> None:
        self._file, self._topic, self._model, self._bell = file, topic, model, bell
        self._decode = decode

    async def append(self, bodies: Sequence[str]) -> None:
        def run(connection: sqlite3.Connection) -> None:
            now = time.time()
            connection.executemany(APPEND, [(self._model, now, body) for body in bodies])

        await self._file.write(run, rings=self._topic)

    def after(self, connection: sqlite3.Connection, position: int, limit: int) -> Sequence[Logged[T]]:
        rows = connection.execute(AFTER, (self._model, position, limit)).fetchall()
        return [Logged(found, self._decode(body)) for found, body in rows]

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[T]:
        look = functools.partial(self.after, position=int(after or 0), limit=limit)
        items = await look_until(self._bell, lambda: self._file.read(look), wait_s)
        return Batch(items, str(items[-1].position) if items else after)

    async def last(self) -> int:
        position = await self._file.read(lambda connection: connection.execute(LAST, (self._model,)).fetchone()[0])
        return int(position)


class SqliteEvents:
    """One process's end of a model's event log (core.ports.EventLog)."""

    def __init__(self, file: SqliteFile, wake_folder: Path, model: str) -> None:
        topic = f"events.{model}"
        self._bell = Bell(wake_folder, topic)
        self._log: _Log[Event | Unreadable] = _Log(file, topic, model, self._bell, decode_event)

    async def append(self, events: Sequence[Event]) -> None:
        if events:
            await self._log.append([event.model_dump_json() for event in events])

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[Event | Unreadable]:
        return await self._log.follow(after, limit, wait_s)

    async def end(self) -> str:
        return str(await self._log.last())

    async def close(self) -> None:
        """Stop listening for wake-ups."""
        self._bell.close()


class SqliteJobs:
    """One process's end of a model's jobs log (core.ports.JobsLog)."""

    def __init__(self, file: SqliteFile, wake_folder: Path, model: str, takeover_s: float) -> None:
        topic = f"jobs.{model}"
        self.takeover_s = takeover_s
        self._file, self._model, self._vacancy = file, model, f"reader.{model}"
        self._bell, self._vacancy_bell = Bell(wake_folder, topic), Bell(wake_folder, self._vacancy)
        self._log: _Log[Job | Unreadable] = _Log(file, topic, model, self._bell, decode_job)
        self._epoch = 0
        self._read_up_to = 0
        self._renew_at = 0.0

    async def publish(self, job: Job) -> None:
        await self._log.append([job.model_dump_json()])

    async def follow(self, after: str, limit: int, wait_s: float) -> Batch[Job | Unreadable]:
        return await self._log.follow(after, limit, wait_s)

    async def end(self) -> str:
        return str(await self._log.last())

    async def last(self) -> int:
        return await self._log.last()

    async def lead(self, wait_s: float) -> Lead | None:
        return await look_until(self._vacancy_bell, self._try_lead, wait_s)

    async def _try_lead(self) -> Lead | None:
        if await self._file.read(self._taken):
            return None
        taken = await self._file.write(self._take)
        if taken is None:
            return None
        # Known only now: an epoch that was not committed may become another reader's.
        self._epoch, self._read_up_to, metadata = taken
        self._renewed()
        return Lead(self._read_up_to, metadata)

    def _taken(self, connection: sqlite3.Connection) -> bool:
        """Whether another reader showed a sign of life within takeover_s."""
        row = connection.execute(READER, (self._model,)).fetchone()
        # abs: a sign from the future was written before the clock was set back, and holds no longer than others.
        return row is not None and row[0] != self._epoch and abs(time.time() - row[1]) < self.takeover_s

    def _take(self, connection: sqlite3.Connection) -> tuple[int, int, str] | None:
        if self._taken(connection):
            return None
        epoch, position, metadata = connection.execute(LEAD, (self._model, time.time())).fetchone()
        return int(epoch), int(position), str(metadata)

    async def read(self, limit: int, wait_s: float) -> Sequence[Logged[Job | Unreadable]]:
        return await look_until(self._bell, lambda: self._read(limit), wait_s)

    async def _read(self, limit: int) -> Sequence[Logged[Job | Unreadable]]:
        if time.monotonic() >= self._renew_at:
            await self._write_as_reader(SEEN, time.time())
            self._renewed()
        items = await self._file.read(lambda connection: self._read_on(connection, limit))
        if items:
            self._read_up_to = items[-1].position
        return items

    def _read_on(self, connection: sqlite3.Connection, limit: int) -> Sequence[Logged[Job | Unreadable]]:
        row = connection.execute(READER, (self._model,)).fetchone()
        if row is None or row[0] != self._epoch:
            raise self._deposed()
        return self._log.after(connection, self._read_up_to, limit)

    async def commit(self, position: int, metadata: str) -> None:
        await self._write_as_reader(COMMIT, position, metadata)

    async def _write_as_reader(self, statement: str, *values: object, rings: str = "") -> None:
        def run(connection: sqlite3.Connection) -> None:
            if connection.execute(statement, (*values, self._model, self._epoch)).rowcount == 0:
                raise self._deposed()

        await self._file.write(run, rings)

    def _renewed(self) -> None:
        self._renew_at = time.monotonic() + self.takeover_s / 4

    def _deposed(self) -> Deposed:
        return Deposed(f"another process reads the jobs of {self._model}; lead again, from the committed position.")

    async def close(self) -> None:
        self._bell.close()
        self._vacancy_bell.close()
        if self._epoch:
            with contextlib.suppress(TransientError):  # deposed already, or it falls silent
                await self._write_as_reader(SEEN, 0.0, rings=self._vacancy)
            self._epoch = 0


async def trim_jobs(file: SqliteFile, before: float) -> int:
    """Delete jobs older than `before` (Unix seconds) that their reader has committed; how many."""
    return await _trim(file, TRIM_JOBS, before)


async def trim_events(file: SqliteFile, before: float) -> int:
    """Delete events older than `before` (Unix seconds); how many."""
    return await _trim(file, TRIM_EVENTS, before)


async def _trim(file: SqliteFile, statement: str, before: float) -> int:
    """In slices, so that no other write waits for long."""
    first_kept = await file.read(lambda connection: connection.execute(FIRST_KEPT, (before,)).fetchone())
    bound = first_kept[0] if first_kept else 2**63 - 1
    trimmed = 0
    while (removed := await file.write(lambda connection: connection.execute(statement, (bound,)).rowcount)) > 0:
        trimmed += removed
    return trimmed
